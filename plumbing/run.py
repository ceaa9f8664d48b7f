"""One run: its pieces, its counters, and the folder of files that it leaves and can be taken up from.

    config.json      the whole command           metrics.jsonl   one line a step of the run
    checkpoint.pt    everything to go on from    samples.txt     what the model writes, early and late
    summary.json     the test split, before and after            rollouts.jsonl  whole groups, token by token
    run.html         all of it to look at (view.py)

After a kill at any moment the folder holds a checkpoint and a log that is at most ahead of it:
`restore` cuts the log back.
"""
import math
import os
import random
import re
from dataclasses import asdict, dataclass

import torch

import checkpoint
import tasks
from config import InputError, setting
from evaluate import fixed_problems, pick_device
from model import GPT, GPTConfig, Optimizers
from plumbing import catalogue, rollouts, track
from rewards import rule_rewards
from sample import SamplingConfig, collect
from tasks.tokenizer import EOS


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
    n_kv_head: int = setting(0, "heads of keys and values, a divisor of n_head: fewer sample quicker; 0: n_head", low=0, high=100)
    n_embd: int = setting(128, "width, a multiple of 2 * n_head", low=2, high=16384)
    block_size: int = setting(0, "context length in tokens; 0: what the task needs", low=0, high=65536)
    steps: int = setting(200, "steps of reinforcement learning", low=0, high=10**7)
    train_problems: int = setting(0, "train on this many different problems, over and over; 0: fresh ones in each step", low=0, high=10**6)
    curriculum: str = setting("none", "which problems are kept, p being the share of right samples when one was seen last: all; each with "
                              "probability 1 - p; those of 0.2 < p < 0.8", choices=("none", "priority", "band"))
    lr_schedule: str = setting("constant", "what becomes of the learning rates of the algorithm over the run",
                               choices=("constant", "linear", "cosine"))
    token_budget: int = setting(0, "stop after this many sampled tokens; 0: no such limit", low=0, high=10**12)
    eval_every: int = setting(20, "steps between looks at the val split; 0: never", low=0, high=10**7)
    eval_problems: int = setting(64, "val problems per look", low=1, high=10**6)
    test_problems: int = setting(500, "test problems before and after", low=1, high=10**6)
    test_samples: int = setting(16, "samples per test problem", low=16, high=10**5)
    checkpoint_every: int = setting(20, "steps between checkpoints", low=1, high=10**7)
    log_rollouts: int = setting(1, "groups of each step for rollouts.jsonl, beside those of each look", low=0, high=10**4)
    track: str = setting("none", "copy the metrics there as well, if it is installed", choices=("none", *track.MODULES))
    baselines: bool = setting(False, "also train the warm start on for as long as RL took (doubles the time)")


def new_model(task, loop, block_size, device):
    torch.manual_seed(loop.seed)  # the same weights on every device: they are drawn on the CPU
    model = GPT(GPTConfig(task.tokenizer.n_vocab, block_size, loop.n_layer, loop.n_head, loop.n_embd, loop.n_kv_head)).to(device)
    model.compute_dtype = getattr(torch, loop.dtype)
    if loop.compile:
        model.compile(dynamic=True)  # model(tokens) alone, under the same names; sampling has graphs of its own
    return model


def rate(schedule, done):
    """--lr-schedule: the share of the learning rates at a share `done` (0 to 1) of the run.

    >>> [rate(schedule, 0.5) for schedule in ("constant", "linear", "cosine")]
    [1.0, 0.5, 0.5]
    """
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": round((1 + math.cos(math.pi * done)) / 2, 12)}[schedule]


def keep(curriculum, p):
    """--curriculum: the chance that a problem is kept of whose samples a share p was right when it was
    seen last. 1 - p: Kimi k1.5, arXiv:2501.12599, section 2.3.4. Never below 1/20: the policy changes,
    and p with it.

    >>> [[keep(curriculum, p) for p in (0.0, 0.5, 1.0)] for curriculum in ("priority", "band")]
    [[1.0, 0.5, 0.05], [0.05, 1.0, 0.05]]
    """
    return max(0.05, {"none": 1.0, "priority": 1.0 - p, "band": float(0.2 < p < 0.8)}[curriculum])


def block_size(task, loop, max_new_tokens):
    """-> the context length. InputError if it is too short for the task, or the width does not fit the heads."""
    if loop.n_embd % (2 * loop.n_head):
        raise InputError(f"--n-embd {loop.n_embd}: must be a multiple of 2 * --n-head = {2 * loop.n_head}")
    if loop.n_head % (loop.n_kv_head or loop.n_head):
        raise InputError(f"--n-kv-head {loop.n_kv_head}: --n-head {loop.n_head} must be a multiple of it")
    if 0 < max_new_tokens < task.min_new_tokens:
        raise InputError(f"--max-new-tokens {max_new_tokens}: too short for {task.name}, whose answers need {task.min_new_tokens}")
    needed = task.max_prompt_tokens + max(max_new_tokens, task.max_new_tokens)
    if 0 < loop.block_size < needed:
        raise InputError(f"--block-size {loop.block_size}: too short for {task.name}, which needs {needed} "
                         f"(prompts {task.max_prompt_tokens}, completions {needed - task.max_prompt_tokens})")
    return loop.block_size or needed


class Run:
    """The pieces of one run, and its files."""

    def __init__(self, folder, algo, task_name, configs):
        self.folder, self.algo, self.configs = folder, algo, configs
        self.loop = loop = configs["loop"]
        self.task = tasks.load(task_name, **asdict(configs["options"]))
        self.max_new_tokens, self.temperature = configs["algorithm"].max_new_tokens, configs["algorithm"].temperature
        self.device = loop.device = pick_device(loop.device)  # kept in config.json: a run goes on where it began
        self.policy = new_model(self.task, loop, block_size(self.task, loop, self.max_new_tokens), self.device)
        self.step, self.tokens, self.updates, self.skipped = 0, 0, 0, 0
        self.seconds = {"warm_start": 0.0, "rl": 0.0, "evaluation": 0.0}
        self.before, self.method, self.stop_asked = None, None, False

    def build(self):
        """Build the algorithm on the warm start, and the random states of the loop. Each phase has its own."""
        seed = self.loop.seed
        self.rng = random.Random(f"problems {seed}")
        self.train_problems = fixed_problems(self.task, "train", self.loop.train_problems, random.Random(f"train problems {seed}"))
        self.solved = {}  # --curriculum: of the problems that were seen, the share of right samples
        self.generator = torch.Generator(self.device).manual_seed(seed)
        torch.manual_seed(seed)
        if self.algo != "sft":
            cls, _ = catalogue.find(self.algo)
            self.method = cls(self.policy, self.task, self.configs["algorithm"], self.generator, lambda rollout: self.reward(rollout)[0])
            for name in ("config", "behavior"):
                if not hasattr(self.method, name):
                    raise InputError(f"--algo {self.algo}: __init__ of {cls.__name__} must set self.{name}, or call super().__init__")
            self.optimizers = [(each, each.rates) for each in vars(self.method).values() if isinstance(each, Optimizers)]

    def set_rates(self):
        """The learning rates of the coming step."""
        loop = self.loop
        done = max(self.step / loop.steps, self.tokens / loop.token_budget if loop.token_budget else 0.0)
        for optimizer, rates in self.optimizers:
            optimizer.rates = [rate(loop.lr_schedule, done) * full for full in rates]

    def draw(self, count):
        """`count` training problems -> list."""
        problems = []
        while len(problems) < count:
            problem = self.rng.choice(self.train_problems) if self.train_problems else self.task.sample_problem(self.rng, "train")
            p = self.solved.get(repr(problem.key))
            if p is None or self.rng.random() < keep(self.loop.curriculum, p):
                problems.append(problem)
        return problems

    def remember(self, problems, accuracy):
        """What --curriculum asks: how often a problem was solved. problems: a list, one a row; accuracy (B,)."""
        if self.loop.curriculum != "none":
            verdicts = {}
            for problem, right in zip(problems, accuracy.tolist()):
                verdicts.setdefault(repr(problem.key), []).append(right)
            self.solved |= {key: sum(each) / len(each) for key, each in verdicts.items()}

    def reward(self, rollout):
        """The rule on every completion -> rewards (B,), accuracy (B,)."""
        return rule_rewards(self.task, rollout.problems, rollout.completions(self.task.tokenizer), rollout.finished.tolist(),
                            self.configs["rewards"])

    def config_dict(self):
        values = {name: value for config in self.configs.values() for name, value in asdict(config).items()}
        return {"algo": self.algo, "task": self.task.name, **values}

    def save(self):
        state = {"step": self.step, "tokens": self.tokens, "updates": self.updates, "skipped": self.skipped,
                 "seconds": self.seconds, "before": self.before, "warm_start": self.warm_start, "rng": self.rng.getstate(),
                 "solved": self.solved,
                 "generator": self.generator.get_state(), "torch_rng": torch.get_rng_state()}
        more = {"algorithm": self.method.state_dict()} if self.method else {}
        checkpoint.save(self.folder / "checkpoint.pt", self.policy, self.task, self.config_dict(), state=state, **more)

    def restore(self):
        """Go back to the last checkpoint, and cut the log back to it. False if the run was stopped before its first one."""
        checkpoint.sweep(self.folder)
        if not (self.folder / "checkpoint.pt").exists():
            self.write("rollouts.jsonl", "")
            self.write("metrics.jsonl", "")  # not empty only if somebody took the checkpoint away
            return False
        content = checkpoint.load(self.folder)
        if "state" not in content or {"n_kv_head": 0} | content["shape"] != asdict(self.policy.config):
            raise InputError(f"--resume {self.folder}: its checkpoint.pt is not that of its config.json")
        state = content["state"]
        self.policy.load_state_dict(content["model"])
        self.build()
        if self.method:
            self.method.load_state_dict(content["algorithm"])
        for name in ("step", "tokens", "updates", "skipped", "seconds", "before", "warm_start"):
            setattr(self, name, state[name])
        self.solved = state.get("solved", {})
        version, internal, gauss = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss))
        if content["config"].get("device", self.device) == self.device:
            self.generator.set_state(state["generator"])
        else:
            self.generator.manual_seed(self.loop.seed + self.step)
            print(f"on {self.device} now: what is sampled from here on is not what {content['config']['device']} would have sampled")
        torch.set_rng_state(state["torch_rng"])
        lines = self.read("metrics.jsonl").splitlines()[:self.step]
        self.write("metrics.jsonl", "".join(line + "\n" for line in lines))
        self.write("samples.txt", "".join(self.pages(self.step)))
        rollouts.cut_back(self)
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

    def write_samples(self):
        """Write what the policy says to the same three val problems to samples.txt, and return it."""
        generator = torch.Generator(self.device).manual_seed(0)
        rollout = collect(self.policy, self.task, fixed_problems(self.task, "val", 3),
                          SamplingConfig(group_size=1, temperature=self.temperature, max_new_tokens=self.max_new_tokens), generator)
        texts, done = rollout.completions(self.task.tokenizer), rollout.finished.tolist()
        rewards, _ = rule_rewards(self.task, rollout.problems, texts, done, self.configs["rewards"])
        page = f"=== step {self.step}\n" + "".join(
            f"{problem.prompt}{text}{EOS if ended else ' (cut off)'}\n--- reward {reward:g}\n"
            for problem, text, ended, reward in zip(rollout.problems, texts, done, rewards.tolist()))
        self.write("samples.txt", "".join(self.pages(self.step - 1)) + page)  # a resumed run may have been here before
        rollouts.log_look(self)
        return page

    def draw_curves(self):
        """curves.png, if there is anything to draw and matplotlib to draw it with."""
        if (self.folder / "metrics.jsonl").stat().st_size:
            try:
                import plot
                plot.curves(self.folder)
            except ModuleNotFoundError:
                print("(no curves.png: matplotlib is not installed)")
        try:
            import view
            view.write_page([self.folder], self.folder / "run.html")
        except Exception as error:  # a picture must not end a run
            print(f"(no run.html: {error})")
