"""From a command line to a run that is ready: flags, checks, the folder, the warm start. What cannot be used is said before the work."""
import json
import pathlib
from dataclasses import fields, is_dataclass

import torch

import checkpoint
import method
import tasks
import verifier
from config import InputError, Parser, add_flags, flag, from_flags
from plumbing import catalogue
from plumbing.run import Config, Run
from plumbing.warm_starts import cached_warm_start, init_from
from rewards import RewardConfig
from sample import SamplingConfig
from sft import SFTConfig

RUNS = pathlib.Path("runs")


def read_command_line(argv):
    """argv -> (algo, task name, given: dict of values by name, resume: path or None). Exit status 2 on a bad flag."""
    first = Parser(prog="train.py", add_help=False)
    first.add_argument("--algo", help=f"one of {', '.join(('sft', *catalogue.names()))} (default: grpo)")
    first.add_argument("--task", help=f"one of {', '.join(tasks.names())} (default: countdown)")
    first.add_argument("--resume", metavar="RUN", help="go on with this run; only --steps, --token-budget and --device may be changed")
    known, _ = first.parse_known_args(argv)
    if known.resume is not None:  # the run knows what it is; "" is the mistake of a script, and not a new run
        stored = read_config(pathlib.Path(known.resume))
        for name in ("algo", "task"):
            if getattr(known, name) not in (None, stored[name]):
                raise InputError(f"--{name} {getattr(known, name)}: the run in {known.resume} has {name} {stored[name]}")
        known.algo, known.task = stored["algo"], stored["task"]
    algo = "grpo" if known.algo is None else known.algo
    task = "countdown" if known.task is None else known.task
    parser = Parser(prog="train.py", parents=[first], description="Warm start, reinforcement learning, evaluation.")
    check_contract(algo, config_classes(algo, task))
    for config_class in config_classes(algo, task).values():
        add_flags(parser, config_class, suggested(algo, task))
    given = vars(parser.parse_args(argv))
    for name in ("algo", "task", "resume"):
        given.pop(name)
    if known.resume is not None:
        changed = set(given) - {"steps", "token_budget", "device"}
        if changed:
            raise InputError(f"{flag(sorted(changed)[0])} cannot be changed by --resume; only --steps, --token-budget and --device can")
        if stored.get("lr_schedule", "constant") != "constant" and any(given[name] != stored[name] for name in given.keys() & {"steps", "token_budget"}):
            print(f"--lr-schedule {stored['lr_schedule']}: the rate goes on as if the run had been of this length from the beginning")
        given = stored | given
    return algo, task, given, known.resume


def read_config(folder):
    """The config.json of a run folder -> dict. InputError if there is none, or it is not one of ours."""
    try:
        stored = json.loads((folder / "config.json").read_text())
        if stored["algo"] in ("sft", *catalogue.names()) and stored["task"] in tasks.names():
            return stored
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"--resume {folder}: there is no run of this project in this folder")


def config_classes(algo, task):
    """The dataclasses that a command line is made from. "sft" samples like the others when it is evaluated."""
    algorithm = SamplingConfig if algo == "sft" else catalogue.find(algo)[0].Config
    return {"loop": Config, "algorithm": algorithm, "options": tasks.task_class(task).Options,
            "sft": SFTConfig, "rewards": RewardConfig}


def check_contract(algo, classes):
    """InputError that names what to mend if the algorithm, or the settings of algorithm and task, break the contract above."""
    if algo != "sft":
        cls, _ = catalogue.find(algo)
        if not issubclass(cls, method.Method):
            raise InputError(f"--algo {algo}: class {cls.__name__} must derive from method.Method")
        if cls.update is method.Method.update:
            raise InputError(f"--algo {algo}: class {cls.__name__} has no method update")
        if not (is_dataclass(classes["algorithm"]) and issubclass(classes["algorithm"], SamplingConfig)):
            raise InputError(f"--algo {algo}: Config must be a dataclass that derives from sample.SamplingConfig")
    owner = {}
    for config_class in classes.values():
        for f in fields(config_class):
            if not {"help", "low", "high", "choices"} <= f.metadata.keys():
                raise InputError(f"{config_class.__name__}.{f.name}: declare it with config.setting(default, help, low=, high=)")
            if f.name in owner or f.name in ("algo", "task", "resume"):
                raise InputError(f"{config_class.__name__}.{f.name}: {owner.get(f.name, 'every command')} has a setting of this name "
                                 "already; rename it")
            owner[f.name] = config_class.__name__


def suggested(algo, task):
    """Settings, by name, that take the place of the general defaults for this algorithm and this task."""
    return tasks.task_class(task).defaults | ({} if algo == "sft" else catalogue.find(algo)[1])


def configure(algo, task, given):
    """Given values -> the checked configs by name. What is not given is suggested, or the general default."""
    given = suggested(algo, task) | given
    return {name: from_flags(config_class, given) for name, config_class in config_classes(algo, task).items()}


def new_folder(out, name, parameters):
    """The run folder, made now, so that a place that cannot be written to is known before the work begins."""
    folder = pathlib.Path(out) if out else RUNS / name
    number = 1
    while not out and folder.exists():  # never write over an earlier run
        number += 1
        folder = RUNS / f"{name}-{number}"
    try:
        held = [folder / name for name in ("config.json", "checkpoint.pt", "metrics.jsonl")]
        if any(file.exists() and file.stat().st_size for file in held):
            raise InputError(f"--out {folder}: holds a run already; name another folder, or go on with --resume {folder}")
        checkpoint.check_room(folder, parameters)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").touch()
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written to ({error.strerror})")
    return folder


def make_warm_start(model, task, configs):
    """Bring `model` to its warm start, from --init or from sft.py and its cache. -> (where it lies, seconds it took)."""
    loop = configs["loop"]
    if loop.init:
        init_from(loop.init, model, task)
        return loop.init, 0.0
    with checkpoint.writing(RUNS):  # its folder is made before the work begins
        place, seconds = cached_warm_start(model, task, configs["sft"], loop.seed, RUNS, loop.fresh)
    checkpoint.sweep(pathlib.Path(place), age=600)  # another run may be writing the same one just now
    return place, seconds


def row_memory(run):
    """Bytes that a row of a micro-batch needs in training."""
    c = run.policy.config
    return c.block_size * 4 * (c.n_layer * 30 * c.n_embd + 6 * c.vocab_size)


def widen_micro_batches(run, given, memory):
    """On a GPU it takes longer to launch a kernel than to run it on a few rows: micro-batches that were
    not asked for take the whole batch, as far as it fits into a quarter of the memory (bytes)."""
    a, sft = run.configs["algorithm"], run.configs["sft"]
    for config, name, batch in ((a, "micro_batch", a.prompts * a.group_size), (sft, "sft_micro_batch", sft.sft_batch)):
        if hasattr(config, name) and name not in given:
            setattr(config, name, max(getattr(config, name), min(batch, int(memory / 4 / row_memory(run)))))


def expected_memory(run):
    """Bytes a run will need at its largest: a sum of the tensors that are alive together, and torch itself."""
    c, a = run.policy.config, run.configs["algorithm"]
    weights = sum(p.numel() for p in run.policy.parameters()) * 4 * 5  # weights, gradients, two moments, the reference
    rows, length = a.prompts * a.group_size, c.block_size
    if getattr(a, "rollouts", 0) and getattr(a, "kind", "prm") == "prm":  # Monte-Carlo rollouts from every step, so many at once
        rows = max(rows, min(verifier.ROLLOUT_BATCH, rows * length * a.rollouts))
    kv_width = c.n_embd // c.n_head * (c.n_kv_head or c.n_head)
    cache = 2 * c.n_layer * rows * length * kv_width * (2 if run.loop.dtype == "bfloat16" else 4)
    scratch = rows * run.task.max_prompt_tokens * c.n_embd * 4 * 12  # the prefill
    forward = max(getattr(a, "micro_batch", 0), run.configs["sft"].sft_micro_batch) * row_memory(run)
    return weights + cache + max(scratch, forward) + 300e6


def check_heeded(algo, given):
    """InputError for a flag that would do nothing."""
    if given.get("init") and given.get("fresh"):
        raise InputError("--fresh: with --init no warm start is made")
    unheeded = [name for name in ("train_problems", "curriculum", "lr_schedule", "token_budget", "baselines")
                if given.get(name, 0) not in (0, False, "none", "constant")]
    if algo == "sft" and unheeded:
        raise InputError(f"{flag(unheeded[0])}: --algo sft stops after the warm start, where it means nothing")


def hold(folder):
    """No other process may work on the run until this one ends, even if it is killed -> an open file, which holds the lock, or None
    where files cannot be locked. InputError if another one does."""
    try:
        import fcntl  # not on Windows
        file = open(folder / ".lock", "w")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except BlockingIOError:
        raise InputError(f"{folder}: another process is at work on this run; wait for it, or stop it")
    except (ModuleNotFoundError, OSError):
        return None


def start(argv):
    """The command line -> a Run on its warm start, or as its last checkpoint left it."""
    algo, task_name, given, resume = read_command_line(argv)
    run_configs = configure(algo, task_name, given)
    check_heeded(algo, given)
    run = Run(pathlib.Path(resume or ""), algo, task_name, run_configs)
    if run.device == "cuda":
        widen_micro_batches(run, given, torch.cuda.get_device_properties(0).total_memory)
    parameters = sum(p.numel() for p in run.policy.parameters())
    if resume is not None:
        checkpoint.check_room(run.folder, parameters)
        taken = checkpoint.load(resume).get("state", {}).get("step", 0) if (run.folder / "checkpoint.pt").exists() else 0
        if run.loop.steps < taken:
            raise InputError(f"--steps {run.loop.steps}: the run has taken {taken} already")
    else:  # what cannot be used is said before a folder is made
        if run.loop.init:
            init_from(run.loop.init, run.policy, run.task)
        run.build()  # once for nothing: whatever it cannot use, it says so here
        if len(run.train_problems) < run.loop.train_problems:
            print(f"--train-problems {run.loop.train_problems}: there are no more than {len(run.train_problems)} that differ")
        run.folder = new_folder(run.loop.out, f"{algo}-{task_name}-{run.loop.seed}", parameters)
    run.lock = hold(run.folder)
    run.write("config.json", json.dumps(run.config_dict(), indent=2) + "\n")
    print(f"{run.folder}: {algo} on {task_name}, {parameters:,} parameters, {run.device}, {run.loop.dtype}, "
          f"about {expected_memory(run) / 1e9:.1f} GB of memory")
    if resume is not None and run.restore():
        print(f"resumed after step {run.step}")
        return run
    run.warm_start, run.seconds["warm_start"] = make_warm_start(run.policy, run.task, run_configs)
    run.build()
    return run
