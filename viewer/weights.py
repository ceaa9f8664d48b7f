"""A run as a page can hold it: shape, vocabulary, and the weights as float16 in base64. forward.js reads it.

    pack("runs/countdown-0") -> {"name", "task", "config", "vocabulary", "tensors", "weights", "examples", ..., "before": {...} or None}

float16 keeps 11 bits of a weight: half the size, and the logits move by less than 1e-2 (bench/page.py measures it). A model of
0.6 million parameters takes 1.6 MB. `before` is the warm start that the run began from, if its folder is still there, so that
both can be asked the same question side by side.
"""
import base64
import pathlib
from dataclasses import asdict

import torch

import checkpoint
from config import InputError
from evaluate import fixed_problems

EXAMPLES = 24  # held-out problems to ask without typing


def weights(model):
    """A GPT -> {"config", "tensors": [[name, count], ...], "weights": base64 of float16, in this order}.

    InputError if a weight is too large for float16 (65504)."""
    state = {name: tensor.detach().cpu().half() for name, tensor in model.state_dict().items()}
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise InputError("a weight does not fit into float16 (65504), or is not finite: this run cannot go into a page")
    flat = torch.cat([tensor.flatten() for tensor in state.values()]).numpy().astype("<f2")
    return {"config": asdict(model.config), "tensors": [[name, tensor.numel()] for name, tensor in state.items()],
            "weights": base64.b64encode(flat.tobytes()).decode()}


def warm_start_of(run, model):
    """The model that a run began from -> GPT, or None: it began from itself, or the folder is gone, or holds another shape."""
    run, content = pathlib.Path(run), checkpoint.load(run)
    place = content.get("state", {}).get("warm_start")
    if not place or content["config"]["algo"] == "sft":
        return None
    folder = run if run.is_dir() else run.parent
    for found in (pathlib.Path(place), folder.parent / pathlib.Path(place).name):  # where it was, and beside the run
        try:
            before, _, _ = checkpoint.load_run(found)
        except InputError:
            continue
        return before if asdict(before.config) | {"block_size": 0} == asdict(model.config) | {"block_size": 0} else None
    return None


def pack(run):
    """A run folder or checkpoint file -> dict for JSON. Raises InputError."""
    model, task, config = checkpoint.load_run(run)
    before, tokenizer = warm_start_of(run, model), task.tokenizer
    piece = lambda token: tokenizer.decode_single_token_bytes(token).decode()
    return {"name": pathlib.Path(run).name, "task": task.name, **weights(model),
            "vocabulary": [piece(token) for token in range(tokenizer.n_vocab)],
            "max_prompt_tokens": task.max_prompt_tokens, "max_new_tokens": config["max_new_tokens"] or task.max_new_tokens,
            "examples": [problem.prompt for problem in fixed_problems(task, "test", EXAMPLES)],
            "before": {"name": "its warm start", **weights(before)} if before else None}
