"""Checkpoints: everything a run needs to go on, or a reader to use the model, in one file.

    {"format": "thinksmall", "version": 2,
     "task": {"name", "options"}, "vocabulary": [...], "shape": {n_layer, ...}, "config": {...}   what it is
     "model": state_dict,                                                                         the weights
     ... whatever else the writer adds: algorithm state, random states, counters}                 to resume

Only tensors and JSON values are stored, so a file loads with `weights_only=True`: a checkpoint cannot
run code. A file is written aside, flushed to the disk and then renamed: a kill at any moment leaves
either the old file or the new one.
"""
import contextlib
import io
import os
import pathlib
import shutil
import time
from dataclasses import asdict

import torch

import tasks
from config import InputError
from model import GPT, GPTConfig, ScalarModel
from plumbing import hugging_face

FORMAT, VERSION = "thinksmall", 2


@contextlib.contextmanager
def writing(path):
    """Around what writes to `path`: a full disk or a folder that may not be written to becomes an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written to ({error.strerror}); make room, or see to the folder; a run goes on from "
                         "its last checkpoint with --resume") from error


def write_aside(path, write):
    """Call `write(file)` on a binary file beside `path`, flush it to the disk, rename it to `path`.
    InputError if the disk is full, and the old file stays."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.writing")  # two runs may make the same warm start
    with writing(path):
        try:
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            if os.name == "posix":  # the name lies in the folder: without this a power cut may bring the old file back
                folder = os.open(path.parent, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()  # half a file would only keep the disk full
            raise


def sweep(folder, age=0):
    """Remove what writers that were killed have left in `folder`. age: seconds without a change; younger ones may be alive."""
    for left in folder.glob("*.writing"):
        with contextlib.suppress(FileNotFoundError):  # it was alive, and is done
            if time.time() - left.stat().st_mtime >= age:
                left.unlink()


def check_room(folder, parameters):
    """InputError if the disk of `folder`, which need not be there yet, has no room for a run's checkpoints."""
    # Float32 weights, two moments and a reference, as many for a critic: 8 copies. The new file is
    # written beside the old one.
    needed = 2 * 8 * 4 * parameters
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if free < needed:
        raise InputError(f"{folder}: the disk is full: {free / 1e6:,.0f} MB are free, the checkpoints need about "
                         f"{needed / 1e6:,.0f} MB; make room, or name a folder on another disk with --out")


def save(path, model, task, config, **more):
    """Write a checkpoint. `config`: JSON values; `more`: tensors and JSON values by name."""
    content = {"format": FORMAT, "version": VERSION, "task": {"name": task.name, "options": asdict(task.options)},
               "vocabulary": sorted(task.tokenizer.vocabulary), "shape": asdict(model.config), "config": config,
               "model": model.state_dict(), **more}
    buffer = io.BytesIO()  # torch.save to a disk that fills up raises something that does not say so
    torch.save(content, buffer)
    write_aside(pathlib.Path(path), lambda file: file.write(buffer.getbuffer()))


def load(path):
    """The content of a checkpoint, given a run folder, a file or a folder of export.py, tensors on the CPU. InputError, one line,
    if it is none."""
    path = pathlib.Path(path)
    if os.path.isdir(path):  # unlike path.is_dir() it says False to a name that is too long
        if (path / "model.safetensors").exists():
            return hugging_face.read_folder(path)
        path = path / "checkpoint.pt"
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such checkpoint; name a run folder or a .pt file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a file that is cut short or of another kind
        raise InputError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); is it whole, and one of ours?")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("version"), int):
        raise InputError(f"{path}: is not a checkpoint of this project")
    if content["version"] != VERSION:
        older = content["version"] < VERSION
        raise InputError(f"{path}: was written by {'an older' if older else 'a newer'} version ({content['version']}, this one reads {VERSION}); "
                         f"{'train it anew' if older else 'update this project'}")
    missing = {"task", "vocabulary", "shape", "config", "model"} - content.keys()
    if missing:
        raise InputError(f"{path}: is not a whole checkpoint: {', '.join(sorted(missing))} is missing")
    return content


def load_run(path, device="cpu"):
    """A run folder or checkpoint file -> model (GPT on `device`), task, config (a dict). Raises InputError."""
    content = load(path)
    task = tasks.load(content["task"]["name"], **content["task"]["options"])
    if sorted(task.tokenizer.vocabulary) != content["vocabulary"]:
        raise InputError(f"{path}: task {task.name} had another vocabulary when this was written")
    model = GPT(GPTConfig(**content["shape"])).to(device)
    model.load_state_dict(content["model"])
    model.compute_dtype = getattr(torch, content["config"].get("dtype", "float32"))  # what it was trained in is what it is asked in
    return model, task, content["config"]


def load_verifier(path, device="cpu"):
    """The ScalarModel of a run: the critic of PPO, or a verifier's reward model, on `device`.
    InputError if it has none.

    It carries `kind`, the name of the algorithm that made it (ppo, orm, prm, rm), and the `vocabulary`
    that it reads.
    """
    content, (model, task, config) = load(path), load_run(path, device)
    state = content.get("algorithm", {})
    if "critic" not in state and "reward_model" not in state:
        raise InputError(f"{path}: this run has no critic and no reward model; --algo ppo trains the one, --algo orm, prm or rm "
                         "the other")
    verifier = ScalarModel(model)
    verifier.load_state_dict(state.get("critic") or state["reward_model"])
    verifier.kind, verifier.vocabulary = config.get("kind", config["algo"]), task.tokenizer.vocabulary
    return verifier.requires_grad_(False)
