"""Train a small GPT to reason: warm start, reinforcement learning, evaluation.

    python train.py --algo grpo --task countdown          about 7 minutes on 2 CPU cores
    python train.py --algo sft --task countdown           the warm start alone
    python train.py --resume runs/grpo-countdown-0        go on after a stop, exactly where the last checkpoint was
    python train.py --algo grpo --task countdown --help   every setting

The recipe:
  1. warm start: imitate demonstrations (sft.py); cached under runs/, so that the next algorithm starts at once;
  2. measure the test split, before;
  3. the loop: draw problems, let the algorithm collect samples, reward them by rule, let the algorithm update;
  4. measure the test split, after, beside three rivals: blind search, the demonstrations themselves, more imitation.

The seam. An algorithm is a class with a dataclass `Config` (which derives from sample.SamplingConfig), built from (policy, task,
config, generator). It has `config`, `behavior` (the model that is sampled from), `collect(problems) -> Rollout`,
`update(rollout, rewards) -> metrics` (floats, with `updates`: how many optimizer steps it took), `state_dict` and
`load_state_dict`. The loop knows nothing else about it; a new one needs a line in the table ALGORITHMS. Settings that are not
given are those of its line there, then those of the task, then the general defaults.

A run folder holds config.json, metrics.jsonl (one line a step), samples.txt (what the model writes, early and late),
checkpoint.pt, summary.json and, where matplotlib is installed, curves.png.
"""
import json
import math
import os
import pathlib
import random
import re
import signal
import sys
import time
from dataclasses import asdict, dataclass, fields, is_dataclass

import torch
from tqdm import tqdm

import checkpoint
import dpo
import grpo
import ppo
import search
import sft
import tasks
import verifier
from config import InputError, Parser, add_flags, flag, from_flags, setting
from evaluate import by_chain, evaluate, fixed_problems, pick_device
from model import GPT, GPTConfig
from rewards import RewardConfig, rule_rewards
from sample import SamplingConfig, collect, largest_log_ratio
from sft import SFTConfig, cached_warm_start, init_from, warm_start
from tasks.tokenizer import EOS

# name: (class, the settings that make it this method). "sft" is the warm start alone.
ALGORITHMS = {name: (grpo.GRPO, row) for name, row in grpo.TABLE.items()} | {
    "ppo": (ppo.PPO, {}), "dpo": (dpo.DPO, {}), "star": (sft.STaR, {})} | {
    name: (verifier.Verifier, row) for name, row in verifier.TABLE.items()}
RUNS = pathlib.Path("runs")


@dataclass
class Config:
    """run"""
    seed: int = setting(0, "everything random follows from it", low=0, high=2**31 - 1)
    out: str = setting("", "run folder; empty: runs/ALGO-TASK-SEED")
    init: str = setting("", "start from this run or checkpoint instead of a warm start")
    fresh: bool = setting(False, "make the warm start anew even if it is cached")
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    dtype: str = setting("float32", "what to compute in; weights and log-probs stay float32", choices=("float32", "bfloat16"))
    compile: bool = setting(False, "torch.compile the forward pass of training: quicker steps after a minute of compiling")
    n_layer: int = setting(3, "layers", low=1, high=100)
    n_head: int = setting(4, "attention heads", low=1, high=100)
    n_embd: int = setting(128, "width, a multiple of 2 * n_head", low=2, high=16384)
    block_size: int = setting(0, "context length in tokens; 0: what the task needs", low=0, high=65536)
    steps: int = setting(200, "steps of reinforcement learning", low=0, high=10**7)
    train_problems: int = setting(0, "train on this many problems, over and over; 0: fresh ones in each step", low=0, high=10**6)
    token_budget: int = setting(0, "stop after this many sampled tokens; 0: no such limit", low=0, high=10**12)
    eval_every: int = setting(20, "steps between looks at the val split; 0: never", low=0, high=10**7)
    eval_problems: int = setting(64, "val problems per look", low=1, high=10**6)
    test_problems: int = setting(500, "test problems before and after", low=1, high=10**6)
    test_samples: int = setting(16, "samples per test problem", low=16, high=10**5)
    checkpoint_every: int = setting(20, "steps between checkpoints", low=1, high=10**7)
    baselines: bool = setting(False, "also train the warm start on for as long as RL took (doubles the time)")


BAD_STEPS = 5  # so many steps in a row without a finite gradient, and the run stops


# -------------------------------------------------------------------------------------------------- the command line

def read_command_line(argv):
    """argv -> (algo, task name, given: dict of values by name, resume: path or None). Exit status 2 on a bad flag."""
    first = Parser(prog="train.py", add_help=False)
    first.add_argument("--algo", help=f"one of {', '.join(('sft', *ALGORITHMS))} (default: grpo)")
    first.add_argument("--task", help=f"one of {', '.join(tasks.names())} (default: countdown)")
    first.add_argument("--resume", metavar="RUN", help="go on with this run; only --steps and --token-budget may be changed")
    known, _ = first.parse_known_args(argv)
    if known.resume is not None:  # the run knows what it is; "" is the mistake of a script, and not a new run
        stored = read_config(pathlib.Path(known.resume))
        for name in ("algo", "task"):
            if getattr(known, name) not in (None, stored[name]):
                raise InputError(f"--{name} {getattr(known, name)}: the run in {known.resume} has {name} {stored[name]}")
        known.algo, known.task = stored["algo"], stored["task"]
    algo = "grpo" if known.algo is None else known.algo
    task = "countdown" if known.task is None else known.task
    if algo not in ("sft", *ALGORITHMS):
        raise InputError(f"--algo {algo}: there is no such algorithm; choose one of {', '.join(('sft', *ALGORITHMS))}")
    parser = Parser(prog="train.py", parents=[first], description="Warm start, reinforcement learning, evaluation.")
    check_contract(algo, config_classes(algo, task))
    for config_class in config_classes(algo, task).values():
        add_flags(parser, config_class, suggested(algo, task))
    given = vars(parser.parse_args(argv))
    for name in ("algo", "task", "resume"):
        given.pop(name)
    if known.resume is not None:
        changed = set(given) - {"steps", "token_budget"}
        if changed:
            raise InputError(f"{flag(sorted(changed)[0])} cannot be changed by --resume; only --steps and --token-budget can")
        given = stored | given
    return algo, task, given, known.resume


def read_config(folder):
    """The config.json of a run folder -> dict. InputError if there is none, or it is not one of ours."""
    try:
        stored = json.loads((folder / "config.json").read_text())
        if stored["algo"] in ("sft", *ALGORITHMS) and stored["task"] in tasks.names():
            return stored
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"--resume {folder}: there is no run of this project in this folder")


def config_classes(algo, task):
    """The dataclasses that a command line is made from. "sft" samples like the others when it is evaluated."""
    algorithm = ALGORITHMS[algo][0].Config if algo in ALGORITHMS else grpo.GRPOConfig
    return {"loop": Config, "algorithm": algorithm, "options": tasks.task_class(task).Options,
            "sft": SFTConfig, "rewards": RewardConfig}


def check_contract(algo, classes):
    """InputError that names what to mend if the algorithm, or the settings of algorithm and task, break the contract above."""
    if algo in ALGORITHMS:
        missing = [name for name in ("collect", "update", "state_dict", "load_state_dict") if not hasattr(ALGORITHMS[algo][0], name)]
        if missing:
            raise InputError(f"--algo {algo}: its class has no method {missing[0]}")
        if not (is_dataclass(classes["algorithm"]) and issubclass(classes["algorithm"], SamplingConfig)):
            raise InputError(f"--algo {algo}: Config must be a dataclass that derives from sample.SamplingConfig")
    owner = {}
    for kind, config_class in classes.items():
        for f in fields(config_class):
            if not {"help", "low", "high", "choices"} <= f.metadata.keys():
                raise InputError(f"{config_class.__name__}.{f.name}: declare it with config.setting(default, help, low=, high=)")
            if f.name in owner or f.name in ("algo", "task", "resume"):
                raise InputError(f"{config_class.__name__}.{f.name}: {owner.get(f.name, 'every command')} has a setting of this name "
                                 "already; rename it")
            owner[f.name] = config_class.__name__


def suggested(algo, task):
    """Settings, by name, that take the place of the general defaults for this algorithm and this task."""
    return tasks.task_class(task).defaults | (ALGORITHMS[algo][1] if algo in ALGORITHMS else {})


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


def check_sizes(task, loop, max_new_tokens):
    """-> block_size. InputError if the context is too short for the task, or the width does not fit the heads."""
    if loop.n_embd % (2 * loop.n_head):
        raise InputError(f"--n-embd {loop.n_embd}: must be a multiple of 2 * --n-head = {2 * loop.n_head}")
    if 0 < max_new_tokens < task.min_new_tokens:
        raise InputError(f"--max-new-tokens {max_new_tokens}: too short for {task.name}, whose answers need {task.min_new_tokens}")
    needed = task.max_prompt_tokens + max(max_new_tokens, task.max_new_tokens)
    if 0 < loop.block_size < needed:
        raise InputError(f"--block-size {loop.block_size}: too short for {task.name}, which needs {needed} "
                         f"(prompts {task.max_prompt_tokens}, completions {needed - task.max_prompt_tokens})")
    return loop.block_size or needed


# -------------------------------------------------------------------------------------------------------- warm start

def new_model(task, loop, block_size, device):
    torch.manual_seed(loop.seed)  # the same weights on every device: they are drawn on the CPU
    model = GPT(GPTConfig(task.tokenizer.n_vocab, block_size, loop.n_layer, loop.n_head, loop.n_embd)).to(device)
    model.compute_dtype = getattr(torch, loop.dtype)
    if loop.compile:
        model.compile(dynamic=True)  # model(tokens) alone, under the same names; sampling has graphs of its own
    return model


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


# --------------------------------------------------------------------------------------------------------- one run

class Run:
    """One run: the pieces, the loop and the files it leaves."""

    def __init__(self, folder, algo, task_name, configs):
        self.folder, self.algo, self.configs = folder, algo, configs
        self.loop = loop = configs["loop"]
        self.task = task = tasks.load(task_name, **asdict(configs["options"]))
        self.max_new_tokens = configs["algorithm"].max_new_tokens
        self.device = loop.device = pick_device(loop.device)  # kept in config.json: a run goes on where it began
        self.policy = new_model(task, loop, check_sizes(task, loop, self.max_new_tokens), self.device)
        self.step, self.tokens, self.updates, self.skipped = 0, 0, 0, 0
        self.seconds = {"warm_start": 0.0, "rl": 0.0, "evaluation": 0.0}
        self.before = None
        self.stop_asked = False

    def start_algorithm(self):
        """Build the algorithm on the warm start, and the random states of the loop. Each phase has its own."""
        seed = self.loop.seed
        self.rng = random.Random(f"problems {seed}")
        few = random.Random(f"train problems {seed}")
        self.train_problems = [self.task.sample_problem(few, "train") for _ in range(self.loop.train_problems)]
        self.generator = torch.Generator(self.device).manual_seed(seed)
        torch.manual_seed(seed)
        if self.algo in ALGORITHMS:
            algorithm_class, _ = ALGORITHMS[self.algo]
            config = self.configs["algorithm"]
            self.algorithm = algorithm_class(self.policy, self.task, config, self.generator)
            for name in ("config", "behavior"):
                if not hasattr(self.algorithm, name):
                    raise InputError(f"--algo {self.algo}: __init__ of {algorithm_class.__name__} must set self.{name}")
            if getattr(config, "expert", "none") != "none":  # solutions that were searched for take the place of samples
                self.algorithm.collect = search.expert(self.algorithm.behavior, self.task, config, self.generator)

    def config_dict(self):
        values = {name: value for config in self.configs.values() for name, value in asdict(config).items()}
        return {"algo": self.algo, "task": self.task.name, **values}

    # ---- files

    def save(self):
        state = {"step": self.step, "tokens": self.tokens, "updates": self.updates, "skipped": self.skipped,
                 "seconds": self.seconds, "before": self.before, "warm_start": self.warm_start, "rng": self.rng.getstate(),
                 "generator": self.generator.get_state(), "torch_rng": torch.get_rng_state()}
        more = {"algorithm": self.algorithm.state_dict()} if self.algo in ALGORITHMS else {}
        checkpoint.save(self.folder / "checkpoint.pt", self.policy, self.task, self.config_dict(), state=state, **more)

    def restore(self):
        """Go back to the last checkpoint, and cut the log back to it. False if the run was stopped before its first one."""
        checkpoint.sweep(self.folder)
        if not (self.folder / "checkpoint.pt").exists():
            self.write("metrics.jsonl", "")  # not empty only if somebody took the checkpoint away
            return False
        content = checkpoint.load(self.folder)
        if "state" not in content or content["shape"] != asdict(self.policy.config):
            raise InputError(f"--resume {self.folder}: its checkpoint.pt is not that of its config.json")
        state = content["state"]
        self.policy.load_state_dict(content["model"])
        self.start_algorithm()
        if self.algo in ALGORITHMS:
            self.algorithm.load_state_dict(content["algorithm"])
        for name in ("step", "tokens", "updates", "skipped", "seconds", "before", "warm_start"):
            setattr(self, name, state[name])
        version, internal, gauss = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss))
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        lines = self.read("metrics.jsonl").splitlines()[:self.step]
        self.write("metrics.jsonl", "".join(line + "\n" for line in lines))
        self.write("samples.txt", "".join(self.pages(self.step)))
        return True

    def read(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def pages(self, last):
        """The pages of samples.txt up to step `last`."""
        pages = re.split(r"^(?==== step \d+\n)", self.read("samples.txt"), flags=re.MULTILINE)[1:]
        return [page for page in pages if int(page.split()[2]) <= last]

    def write(self, name, text):
        checkpoint.write_aside(self.folder / name, lambda file: file.write(text.encode()))

    def append(self, name, text):
        with checkpoint.writing(self.folder / name), open(self.folder / name, "a") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a checkpoint must never be ahead of the log, also after a power cut

    # ---- looking at the policy

    def measure(self, split, count, n):
        started = time.time()
        result = evaluate(self.policy, self.task, fixed_problems(self.task, split, count), n, (1, 8), self.max_new_tokens)
        self.seconds["evaluation"] += time.time() - started
        return result

    def blind_search(self, split, count, result, searches=64):
        attempts = max(1.0, result.get("attempts", 0))  # an answer without any thinking is an attempt too
        return self.task.blind_search(fixed_problems(self.task, split, count), attempts, searches=searches)

    def samples(self):
        """Write what the policy says to the same three val problems to samples.txt, and return it."""
        generator = torch.Generator(self.device).manual_seed(0)
        rollout = collect(self.policy, self.task, fixed_problems(self.task, "val", 3),
                          SamplingConfig(group_size=1, max_new_tokens=self.max_new_tokens), generator)
        texts, done = rollout.completions(self.task.tokenizer), rollout.finished.tolist()
        rewards, _ = rule_rewards(self.task, rollout.problems, texts, done, self.configs["rewards"])
        page = f"=== step {self.step}\n" + "".join(
            f"{problem.prompt}{text}{EOS if ended else ' (cut off)'}\n--- reward {reward:g}\n"
            for problem, text, ended, reward in zip(rollout.problems, texts, done, rewards.tolist()))
        self.write("samples.txt", "".join(self.pages(self.step - 1)) + page)  # a resumed run may have been here before
        return page

    # ---- the loop

    def train(self):
        """Steps until `steps` or the token budget is reached. -> False if it was interrupted (and saved)."""
        bar = tqdm(total=self.loop.steps, initial=self.step, desc=self.algo, unit="step", dynamic_ncols=True)
        first, bad, warned = self.step, 0, set()
        history = [json.loads(line) for line in self.read("metrics.jsonl").splitlines()]
        while self.step < self.loop.steps and not 0 < self.loop.token_budget <= self.tokens:
            line = self.train_step()
            bad = bad + 1 if line["skipped"] > self.skipped else 0
            self.skipped = line["skipped"]
            if bad == BAD_STEPS:
                raise InputError(f"the gradients of {bad} steps in a row were not finite, up to step {self.step}: try a "
                                 f"lower --lr, a lower --max-grad-norm or --dtype float32; the last checkpoint is in {self.folder}")
            history.append(line)
            for warning in collapse(history):
                if warning not in warned:
                    tqdm.write(f"step {self.step}: {warning}")
                    warned.add(warning)
            if self.loop.eval_every and self.step % self.loop.eval_every == 0:
                result = self.measure("val", self.loop.eval_problems, 8)
                line |= {f"val_{name}": value for name, value in result.items() if not name.endswith("_se")}
                line["val_blind_search"] = self.blind_search("val", self.loop.eval_problems, result, searches=16)
                self.samples()
            self.append("metrics.jsonl", json.dumps(line) + "\n")
            bar.update()
            bar.set_postfix(accuracy=f"{line['accuracy']:.2f}", length=f"{line['length']:.0f}", entropy=f"{line['entropy']:.2f}")
            if self.step == first + 3:
                tqdm.write(f"about {duration(self.seconds_left(line['seconds']))} left; "
                           f"{line['tokens_per_second']:,.0f} tokens/s in sampling and training together")
            if self.step % self.loop.checkpoint_every == 0 or self.stop_asked:
                self.save()
            if self.stop_asked:
                bar.close()
                return False
        bar.close()
        return True

    def seconds_left(self, step_seconds):
        """A guess: the steps, the looks at val and the last look at test, all at the pace seen so far."""
        loop, left = self.loop, self.loop.steps - self.step
        pace = self.seconds["evaluation"] / (loop.test_problems * (loop.test_samples + 1))  # "before" is done
        looks = left // loop.eval_every * loop.eval_problems * 9 if loop.eval_every else 0
        return left * step_seconds * (2 if loop.baselines else 1) + pace * looks + self.seconds["evaluation"]

    def train_step(self):
        """Collect, reward, update, and everything that is logged about it."""
        started = time.time()
        prompts = self.algorithm.config.prompts
        draw = (lambda: self.rng.choice(self.train_problems)) if self.train_problems else (
            lambda: self.task.sample_problem(self.rng, "train"))
        rollout = self.algorithm.collect([draw() for _ in range(prompts)])
        texts = rollout.completions(self.task.tokenizer)
        rewards, accuracy = rule_rewards(self.task, rollout.problems, texts, rollout.finished.tolist(), self.configs["rewards"])
        if self.step == 0:
            paused = time.time()
            worst = largest_log_ratio(self.algorithm.behavior, rollout, self.algorithm.config.temperature)
            tqdm.write(f"stored against recomputed log-probs before the first update: largest difference {worst:.1e}")
            if not worst < (1e-3 if self.loop.dtype == "float32" else 0.5):  # also if it is nan
                tqdm.write("warning: what is sampled is not what is trained; the model, or the sampling loop, is broken")
            started += time.time() - paused  # a check, not a part of the step
        metrics = self.algorithm.update(rollout, rewards)
        if not isinstance(metrics, dict) or "updates" not in metrics:
            raise InputError(f"--algo {self.algo}: update must return a dict of numbers with `updates`, the optimizer steps it took")
        skipped = metrics.pop("skipped", int(not all(math.isfinite(value) for value in metrics.values())))
        metrics = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON knows no nan
        seconds = time.time() - started
        self.step += 1
        self.tokens += rollout.sampled_tokens + rollout.discarded
        self.updates += metrics.pop("updates")
        self.seconds["rl"] += seconds
        described = [self.task.describe(problem, text) for problem, text in zip(rollout.problems, texts)]
        judged = [{"right": right, **d} for right, d in zip(accuracy.tolist(), described)]
        return {"step": self.step, "reward": float(rewards.mean()), "accuracy": float(accuracy.mean()),
                "finished": float(rollout.finished.float().mean()), "length": rollout.sampled_tokens / len(texts),
                **{name: sum(d[name] for d in described) / len(described) for name in described[0]},
                **by_chain(judged),
                # -log pi of what was sampled is an unbiased estimate of the policy's entropy, and costs nothing.
                "entropy": float(-rollout.logprobs.sum() / rollout.mask.sum()), **metrics,
                "updates": self.updates, "skipped": self.skipped + skipped, "tokens": self.tokens,
                "tokens_per_second": (rollout.sampled_tokens + rollout.discarded) / seconds,
                "seconds": seconds}

    # ---- the end

    def finish(self):
        """Measure the test split again, put the rivals beside it, and write summary.json and the curves."""
        loop, after = self.loop, self.before
        if self.step:
            after = self.measure("test", loop.test_problems, loop.test_samples)
        problems, rng = fixed_problems(self.task, "test", loop.test_problems), random.Random("demonstrations")
        right = [self.task.verify(p, self.task.demonstration(p, rng)) for p in problems for _ in range(8)]
        baselines = {"blind_search": self.blind_search("test", loop.test_problems, after),
                     "demonstrations": sum(right) / len(right), "more_sft": None}
        summary = {"before": self.before, "after": after, "baselines": baselines,
                   "seconds": self.seconds | {"total": sum(self.seconds.values())},
                   "steps": self.step, "tokens": self.tokens, "updates": self.updates, "warm_start": self.warm_start}
        self.write("summary.json", json.dumps(summary, indent=2) + "\n")  # before the slow rival, so that nothing can be lost
        if loop.baselines and self.step:
            baselines["more_sft"] = self.more_sft()["pass@1"]
            self.write("summary.json", json.dumps(summary, indent=2) + "\n")
        return summary

    def more_sft(self):
        """The rival of all reinforcement learning: imitation, for as many seconds more as RL took."""
        model = new_model(self.task, self.loop, self.policy.config.block_size, self.device)
        init_from(self.warm_start, model, self.task)
        print(f"baseline: {self.seconds['rl']:.0f} s more of imitation", flush=True)
        warm_start(model, self.task, self.configs["sft"], f"{self.loop.seed} more", seconds=self.seconds["rl"])
        return evaluate(model, self.task, fixed_problems(self.task, "test", self.loop.test_problems), self.loop.test_samples,
                        (1, 8), self.max_new_tokens)


def collapse(history, width=5):
    """Has the policy fallen apart, or never known anything? Lines of metrics, one a step -> list of warnings. Means over `width`
    steps are compared.

    >>> collapse([{"accuracy": 0.3, "reward": 0.3, "entropy": 0.2}] * 5 + [{"accuracy": 0.0, "reward": 0.0, "entropy": 0.2}] * 5)
    ['the reward has fallen to less than a fifth of what it was: the policy has collapsed; go back, and lower --lr']
    """
    if len(history) < 2 * width:
        return []
    mean = lambda name, lines: sum(line[name] for line in lines) / width
    early, late, warnings = history[:width], history[-width:], []
    best = lambda name: max(mean(name, history[i:i + width]) for i in range(0, len(history) - width + 1, width))
    if best("accuracy") < 0.01:
        warnings.append("fewer than one sample in a hundred has ever been right, so there is hardly anything to compare: a longer warm "
                        "start (--sft-steps), a larger --group-size or easier problems")
    elif mean("reward", late) < 0.2 * best("reward"):
        warnings.append("the reward has fallen to less than a fifth of what it was: the policy has collapsed; go back, and "
                        "lower --lr")
    if mean("entropy", late) < 0.05 * mean("entropy", early) and mean("accuracy", late) < 0.9:
        warnings.append("the entropy is gone: all samples of a problem are alike, and nothing can be learned from them; "
                        "lower --lr, or add --entropy-bonus")
    return warnings


def duration(seconds):
    """
    >>> duration(20), duration(70), duration(200)
    ('20 seconds', '1 minute', '3 minutes')
    """
    minutes = round(seconds / 60)
    return f"{seconds:.0f} seconds" if minutes < 1 else f"{minutes} minute{'s' * (minutes > 1)}"


def expected_memory(run):
    """Bytes a run will need at its largest: a sum of the tensors that are alive together, and torch itself."""
    c, a = run.policy.config, run.configs["algorithm"]
    weights = sum(p.numel() for p in run.policy.parameters()) * 4 * 5  # weights, gradients, two moments, the reference
    rows, length = a.prompts * a.group_size, c.block_size
    if getattr(a, "kind", "") == "prm":  # Monte-Carlo rollouts from every step: so many sequences at once
        rows = max(rows, min(verifier.ROLLOUT_BATCH, rows * length * a.rollouts))
    cache = 2 * c.n_layer * rows * length * c.n_embd * (2 if run.loop.dtype == "bfloat16" else 4)
    scratch = rows * run.task.max_prompt_tokens * c.n_embd * 4 * 12  # the prefill
    forward = max(getattr(a, "micro_batch", rows), run.configs["sft"].sft_micro_batch) * length * 4 * (c.n_layer * 30 * c.n_embd + 6 * c.vocab_size)
    return weights + cache + max(scratch, forward) + 300e6


def report(summary):
    """The summary as a few lines to read."""
    before, after, rivals = summary["before"], summary["after"], summary["baselines"]
    before, after = ({**r, "legal": r["legal"] / r["attempts"] if r["attempts"] else 0.0} if "legal" in r else r for r in (before, after))
    names = [n for n in ("greedy", "pass@1", "pass@8", "length", "attempts", "legal", "chain") if n in after]
    lines = [f"{after['problems']} test problems" + "".join(f"{n:>10}" for n in names)]
    for title, result in (("warm start", before), ("after RL", after))[:2 if summary["steps"] else 1]:
        lines.append(f"{title:<{len(lines[0]) - 10 * len(names)}}" + "".join(f"{result[n]:>10.3f}" if result[n] < 2 else f"{result[n]:>10.1f}" for n in names))
    for name, title in (("blind_search", "blind search with as many attempts"), ("demonstrations", "the demonstrations themselves"),
                        ("more_sft", "the warm start trained on for as long as RL took")):
        if rivals[name] is not None:
            lines.append(f"{rivals[name]:>24.3f}    {title}")
    seconds = summary["seconds"]
    lines.append(f"seconds: warm start {seconds['warm_start']:.0f}, RL {seconds['rl']:.0f}, evaluation {seconds['evaluation']:.0f}")
    return "\n".join(lines)


def start(argv):
    """The command line -> a Run that is ready for its first step, or for the step after its last checkpoint."""
    algo, task_name, given, resume = read_command_line(argv)
    run_configs = configure(algo, task_name, given)
    run = Run(pathlib.Path(resume or ""), algo, task_name, run_configs)
    parameters = sum(p.numel() for p in run.policy.parameters())
    if resume is not None:
        checkpoint.check_room(run.folder, parameters)
    else:  # what cannot be used is said before a folder is made
        if run.loop.init:
            init_from(run.loop.init, run.policy, run.task)
        run.start_algorithm()  # once for nothing: whatever it cannot use, it says so here
        run.folder = new_folder(run.loop.out, f"{algo}-{task_name}-{run.loop.seed}", parameters)
    run.write("config.json", json.dumps(run.config_dict(), indent=2) + "\n")
    print(f"{run.folder}: {algo} on {task_name}, {parameters:,} parameters, {run.device}, {run.loop.dtype}, "
          f"about {expected_memory(run) / 1e9:.1f} GB of memory")
    if resume is not None and run.restore():
        print(f"resumed after step {run.step}")
        return run
    run.warm_start, run.seconds["warm_start"] = make_warm_start(run.policy, run.task, run_configs)
    run.start_algorithm()
    run.before = run.measure("test", run.loop.test_problems, run.loop.test_samples)
    run.samples()
    run.save()
    return run


def main(argv=None):
    run = start(argv)
    print(f"\nwhat the warm start writes:\n{''.join(run.pages(0)).partition(chr(10))[2]}")

    def stop(*_):  # Ctrl-C: finish the step, save, say how to go on; a second Ctrl-C ends at once
        run.stop_asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        completed = run.algo not in ALGORITHMS or run.train()
    finally:
        signal.signal(signal.SIGINT, previous)
    if not completed:
        print(f"stopped and saved after step {run.step}; go on with: python train.py --resume {run.folder}")
        return None
    run.save()
    if run.step:
        print(f"\nwhat the policy writes after step {run.step}:\n{run.samples().partition(chr(10))[2]}")
    summary = run.finish()
    print(report(summary))
    if (run.folder / "metrics.jsonl").stat().st_size:
        try:
            import plot
            plot.curves(run.folder)
        except ModuleNotFoundError:
            print("(no curves.png: matplotlib is not installed)")
    print(f"everything is in {run.folder}; pass@k at other k: python evaluate.py {run.folder} --k 1,8,64")
    return summary


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in ("out of memory", "can't allocate memory")):
            raise
        sys.exit(print("error: not enough memory: lower --prompts, --group-size, --max-new-tokens, --micro-batch, --sft-micro-batch "
                       "or, if the algorithm has it, --rollouts; a run goes on from its last checkpoint with --resume", file=sys.stderr) or 2)
    except KeyboardInterrupt:  # outside of the loop of steps: a warm start or an evaluation begins again
        sys.exit(print("\nstopped; python train.py --resume RUN goes on from the run's last checkpoint", file=sys.stderr) or 130)
