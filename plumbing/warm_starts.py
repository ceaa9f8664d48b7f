"""Where warm starts are kept and found: one that was made once, with the same settings, is loaded by the next run."""
import hashlib
import json
import pathlib
import sys
import time
from dataclasses import asdict

import torch
from tqdm import tqdm

import checkpoint
from config import InputError, flag
from sft import warm_start


def init_from(path, model, task):
    """Load the weights of a run or checkpoint into `model`. InputError if its vocabulary or its shape is another one."""
    other, other_task, _ = checkpoint.load_run(path)
    if other_task.tokenizer.vocabulary != task.tokenizer.vocabulary:
        raise InputError(f"--init {path}: its vocabulary is that of task {other_task.name}, not of {task.name}")
    for name in ("n_layer", "n_head", "n_embd", "n_kv_head"):
        theirs, ours = getattr(other.config, name), getattr(model.config, name)
        if theirs != ours:
            raise InputError(f"--init {path}: has {name} {theirs}, this run {ours}; add {flag(name)} {theirs}")
    model.load_state_dict(other.state_dict())


def load_teacher(path, task, policy):
    """The model of another run that has the vocabulary of `task` and room for as many tokens as `policy`, on its device."""
    teacher, teacher_task, _ = checkpoint.load_run(path, policy.device)
    if teacher_task.tokenizer.vocabulary != task.tokenizer.vocabulary:
        raise InputError(f"--teacher {path}: its vocabulary is that of task {teacher_task.name}, not of {task.name}")
    if teacher.config.block_size < policy.config.block_size:
        raise InputError(f"--teacher {path}: its context of {teacher.config.block_size} tokens is shorter than this run's "
                         f"{policy.config.block_size}")
    teacher.compute_dtype = policy.compute_dtype
    return teacher.requires_grad_(False)


def cache_path(runs, task, model, config, seed):
    """The folder of a warm start: named by a hash of everything that determines it, our own code included."""
    here = pathlib.Path(__file__).parent.parent
    code = [here / f"{name}.py"
            for name in ("config", "model", "optimize", "sample", "sft", "rewards", "tasks/__init__", "tasks/tokenizer", "tasks/serial", "tasks/dialogue")]
    code += [pathlib.Path(sys.modules[each.__module__].__file__) for each in type(task).__mro__[:-1]]  # but object
    determines = [task.name, asdict(task.options), asdict(model.config), asdict(config), seed, str(model.compute_dtype),
                  model.device.type, torch.__version__, [hashlib.sha256(file.read_bytes()).hexdigest() for file in code]]
    return runs / f"warm-{task.name}-{hashlib.sha256(json.dumps(determines).encode()).hexdigest()[:12]}"


def cached_warm_start(model, task, config, seed, runs, fresh=False):
    """`warm_start`, once: the next run with the same settings loads what it would have made itself.

    runs: the folder of all runs. fresh=True makes it anew. -> (its folder, the seconds it took when it
    was made).
    """
    folder = cache_path(runs, task, model, config, seed)
    if (folder / "checkpoint.pt").exists() and not fresh:
        content = checkpoint.load(folder)
        model.load_state_dict(content["model"])
        print(f"warm start: {folder} (made earlier in {content['seconds']:.0f} s)")
        return str(folder), content["seconds"]
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    losses = warm_start(model, task, config, seed,
                        lambda steps: tqdm(steps, desc="warm start", unit="step", dynamic_ncols=True))
    seconds = time.time() - started
    checkpoint.save(folder / "checkpoint.pt", model, task, {"algo": "sft", "task": task.name, "max_new_tokens": 0,
                                                                "dtype": str(model.compute_dtype).removeprefix("torch.")},
                    seconds=seconds, losses=losses)
    loss = sum(losses[-20:]) / len(losses[-20:])
    print(f"warm start: loss {loss:.3f} nats per token after {seconds:.0f} s, kept in {folder}")
    return str(folder), seconds
