"""A run as a folder of Hugging Face, for engines that are larger than this project; and back.

    python export.py runs/countdown-0 exported
    python train.py --algo grpo --task countdown --init exported     evaluate.py and search.py read it too

The folder loads with `AutoModelForCausalLM` and `AutoTokenizer`, and gives the same logits. Nothing has
to be installed to write it: the formats are JSON and a list of bytes (plumbing/hugging_face.py).

The tokenizer: a word of the task's vocabulary is a token, so what cuts a text into words is all there
is to it: the pattern of tasks/tokenizer.py, longest first. A piece outside of the vocabulary is an
error there as here. What differs: <|eos|> and <|pad|> written out in a text are read as the special
tokens.

What does not come along: the critic of PPO, optimizers, and the state of the random numbers. To go on
bit by bit, --resume the run.
"""
import json
import pathlib
import sys
from dataclasses import asdict

import checkpoint
from config import InputError, Parser
from evaluate import fixed_problems
from plumbing import hugging_face
from plumbing.report import report
from tasks.tokenizer import EOS, PAD

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [reinforcement-learning, reasoning]
---
# {task}, {algo}

A policy of {parameters:,} parameters in the Llama layout, trained from nothing: first it imitated mediocre demonstrations of the
task `{task}`, then it learned by `{algo}` from a rule alone. It knows {words} words and this one task. The prompt is the text of a
problem, nothing before it; an answer stands between `<answer>` and `</answer>`.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
prompt = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, do_sample=False)[0]))
```

What it scored in its own run:

```
{report}
```

Context: {block_size} tokens, of which {max_new_tokens} for the completion. Arithmetic: float32.
Settings of the task: {options}.
"""


def tokenizer_json(tokenizer):
    """tasks.tokenizer.Tokenizer -> a tokenizer.json (dict) for the library `tokenizers`."""
    words = {tokenizer.decode([i]): i for i in range(tokenizer.n_vocab)}
    special = [{"id": words[word], "content": word, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for word in (PAD, EOS)]
    cut = {"type": "Split", "pattern": {"Regex": tokenizer.pieces.pattern}, "behavior": "Isolated",
           "invert": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": cut, "post_processor": None, "decoder": {"type": "Fuse"},
            # "<unk>" is not in the vocabulary: an unknown piece is an error.
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}}


def write_folder(folder, model, task, config, summary=None):
    """The whole folder. config: of the run; summary: its summary.json, if there is one; both are dicts."""
    limit = config["max_new_tokens"] or task.max_new_tokens
    fields, weights = hugging_face.to_llama(model)
    kept = {name: config[name] for name in ("task", "dtype", "max_new_tokens")}
    ours = {"task": {"name": task.name, "options": asdict(task.options)},
            "config": kept | {"algo": "sft"}}  # whatever made it: no critic comes along
    special = {"eos_token_id": task.tokenizer.eos, "pad_token_id": task.tokenizer.pad, "bos_token_id": None}
    problem = fixed_problems(task, "val", 1)[0]
    card = CARD.format(task=task.name, algo=config["algo"], parameters=sum(p.numel() for p in model.parameters()),
                       words=task.tokenizer.n_vocab, prompt=problem.prompt, block_size=model.config.block_size,
                       max_new_tokens=limit, options=json.dumps(ours["task"]["options"]),
                       report=report(summary) if summary else "(this checkpoint has no summary.json beside it)")
    files = {"config.json": fields | special | {"thinksmall": ours}, "tokenizer.json": tokenizer_json(task.tokenizer),
             "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": PAD,
                                       "padding_side": "left", "clean_up_tokenization_spaces": False,
                                       "model_input_names": ["input_ids", "attention_mask"],
                                       "model_max_length": model.config.block_size},
             "generation_config.json": special | {"do_sample": True, "temperature": 1.0, "top_k": 0,
                                                  "top_p": 1.0, "max_new_tokens": limit}}
    for name, content in files.items():
        text = json.dumps(content, indent=2) + "\n"
        checkpoint.write_aside(folder / name, lambda file: file.write(text.encode()))
    checkpoint.write_aside(folder / "README.md", lambda file: file.write(card.encode()))
    checkpoint.write_aside(folder / "model.safetensors", lambda file: hugging_face.write_safetensors(file, weights))


def main(argv=None):
    parser = Parser(prog="export.py", description="A run as a folder of Hugging Face.")
    parser.add_argument("run", metavar="RUN", help="a run folder or checkpoint file")
    parser.add_argument("folder", metavar="DIR", help="the folder to write; it must be new, or empty")
    given = parser.parse_args(argv)
    model, task, config = checkpoint.load_run(given.run)
    folder, summary = pathlib.Path(given.folder), pathlib.Path(given.run) / "summary.json"
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder}: holds something already; name a new folder")
    write_folder(folder, model, task, config, json.loads(summary.read_text()) if summary.is_file() else None)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
