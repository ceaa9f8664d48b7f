"""A run as a page can hold it: shape, vocabulary, and the weights as float16 in base64, for forward.js.

    live("runs/countdown-0") -> {"models": [the warm start, the trained policy], "example": "Use 3, 5, 7 to make 22.\\n"}

float16 keeps 11 bits of a weight. That moves the logits by up to 0.017 if all are rounded, by less than 0.01
if the embedding and the norms are not, through which every token comes in and goes out: 3 % of the numbers,
they stay float32. (`python bench/page.py RUN` measures it.) A model of 0.6 million parameters takes 1.7 MB.
"""
import base64
import pathlib
from dataclasses import asdict

import torch

import checkpoint
from config import InputError
from evaluate import fixed_problems

VIEWER = pathlib.Path(__file__).parent
EXAMPLES = 24  # held-out problems that can be asked without typing


def weights(model):
    """A GPT -> {"config", "float16": {"tensors": [[name, how many numbers], ...], "data": base64, one tensor behind the other},
    "float32": {the same for embedding and norms}}. InputError if a weight is too large for float16, 65504, or not finite."""
    packed = {"config": asdict(model.config)}
    for kind in ("float16", "float32"):
        state = {name: w.cpu().to(getattr(torch, kind)) for name, w in model.state_dict().items() if ("blocks" in name and w.ndim == 2) == (kind == "float16")}
        numbers = torch.cat([w.flatten() for w in state.values()])
        if not numbers.isfinite().all():
            raise InputError("a weight is larger than 65504 or not finite: this model cannot go into a page")
        data = base64.b64encode(numbers.numpy().astype({"float16": "<f2", "float32": "<f4"}[kind]).tobytes()).decode()
        packed[kind] = {"tensors": [[name, w.numel()] for name, w in state.items()], "data": data}
    return packed


def pack(run):
    """A run folder or checkpoint file -> dict for JSON: all that forward.js and live.js need of it. Raises InputError."""
    model, task, config = checkpoint.load_run(run)
    pieces = [task.tokenizer.decode_single_token_bytes(token).decode() for token in range(task.tokenizer.n_vocab)]
    return {"name": pathlib.Path(run).name, "task": task.name, **weights(model), "vocabulary": pieces,
            "max_prompt_tokens": task.max_prompt_tokens, "max_new_tokens": config["max_new_tokens"] or task.max_new_tokens,
            "examples": [problem.prompt for problem in fixed_problems(task, "test", EXAMPLES)]}


def warm_start_of(run):
    """Where the model lies that a run began from: its folder, or None if it is not there any more."""
    run, content = pathlib.Path(run), checkpoint.load(run)
    place = content.get("state", {}).get("warm_start")
    if not place or content["config"]["algo"] == "sft":
        return None
    folder = run if run.is_dir() else run.parent
    for found in (pathlib.Path(place), folder.parent / pathlib.Path(place).name):  # where it was made; beside the run
        if (found / "checkpoint.pt").is_file() or found.is_file():
            return found
    return None


def live(run, example=""):
    """A run -> what `startLive` of live.js wants, with the warm start in front of it, and the example or else one of its own."""
    trained, warm = pack(run), warm_start_of(run)
    models = [trained]
    if warm:
        before = pack(warm)
        if before["vocabulary"] == trained["vocabulary"]:
            models = [{**before, "name": "warm start"}, {**trained, "name": f"trained: {trained['name']}"}]
    return {"models": models, "example": example or trained["examples"][0]}


def code():
    """forward.js and live.js as one piece whose only name is `startLive`: names in it cannot meet those of the page."""
    text = "\n".join((VIEWER / name).read_text() for name in ("forward.js", "live.js"))
    return f"const startLive = (() => {{\n{text}\nreturn startLive;\n}})();\n"
