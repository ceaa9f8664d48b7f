"""The supervised warm start: imitate demonstrations, token by token. And STaR: imitate one's own right answers.

The idea. Reinforcement learning can only reward what the policy already does now and then. So the model first learns to
imitate worked examples, which need not be good ones: it learns the language of the task, its arithmetic, and to explore.

    loss = - 1/N  sum over completion tokens  log pi(y_t | x, y_<t)          N: completion tokens in the batch

Read beside `grpo.py` this is a policy gradient in which somebody else's tokens all have advantage 1.

The recipe:
  1. draw problems of the training split and a demonstration for each (fresh ones for every step: nothing is stored);
  2. join prompt, demonstration and EOS; the loss covers the demonstration and the EOS, never the prompt;
  3. cut the batch into micro-batches of rows of similar length, so that little padding is computed;
  4. step: Muon on the hidden matrices, AdamW on the rest; constant rate, then linearly down to zero.

STaR (arXiv:2203.14465; also called rejection sampling, or expert iteration) gets its demonstrations elsewhere: sample, keep
what the rule accepts, fine-tune on that, repeat. In the words of `grpo.py`: an advantage of 1 for right answers and 0 for wrong
ones, no baseline, no clip. What comes out as often as it goes in is confirmed, not only what is better than usual. With
--teacher the samples come from another run: distillation. With --expert the solutions are found by search instead (search.py),
as in AlphaZero.

What is simplified: no packing of several examples into a row, no dropout, no weight decay. STaR begins each round anew from the
first model and explains its mistakes with a hint; here it goes on from where it is, without hints. It imitates at temperature 1
whatever was sampled, at any temperature.
Source: the cold start of DeepSeek-R1 (arXiv:2501.12948, section 2.3.1); rate schedule: arXiv:2405.18392.
"""
import hashlib
import json
import math
import pathlib
import random
import sys
import time
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

import checkpoint
from config import InputError, flag, setting
from model import make_optimizer
from optimize import Learner, micro_batches, optimize
from sample import SamplingConfig, collect, score


@dataclass
class SFTConfig:
    """warm start"""
    sft_steps: int = setting(600, "optimizer steps of the warm start", low=1, high=10**7)
    sft_batch: int = setting(64, "demonstrations per step", low=1, high=65536)
    sft_micro_batch: int = setting(32, "demonstrations per forward pass; memory and speed only", low=1, high=65536)
    sft_lr: float = setting(0.012, "AdamW's rate (embedding, norms)", low=0.0, high=1.0)
    sft_muon_lr: float = setting(0.006, "Muon's rate (hidden matrices); 0: AdamW does all", low=0.0, high=1.0)


def demonstrations(task, size, rng, split="train"):
    """Draw `size` demonstrations -> tokens (B, T) int64, padded on the right; mask (B, T) bool: completion and EOS."""
    rows, starts = [], []
    for _ in range(size):
        problem = task.sample_problem(rng, split)
        prompt = task.tokenizer.encode(problem.prompt)
        rows.append(prompt + task.tokenizer.encode(task.demonstration(problem, rng)) + [task.tokenizer.eos])
        starts.append(len(prompt))
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [task.tokenizer.pad] * (longest - len(row)) for row in rows])
    place, starts = torch.arange(longest), torch.tensor(starts)[:, None]
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    return tokens, (place >= starts) & (place < lengths)


def sft_step(model, optimizer, tokens, mask, micro_batch, schedule=1.0, max_norm=math.inf):
    """One optimizer step on a batch -> its loss (a float, nats per token) and the norm of its gradient.

    The micro-batch size changes nothing but memory and speed.
    """
    optimizer.zero_grad()
    total, N = 0.0, mask.sum()
    for rows, length in micro_batches(mask, micro_batch):
        logprobs, _ = score(model, tokens[rows, :length])
        loss = -(logprobs * mask[rows, :length]).sum() / N
        loss.backward()
        total += loss.detach()
    norm = optimizer.step(schedule, max_norm)
    return float(total), norm


def schedule(done):
    """The share of the learning rate at a share `done` (0 to 1) of the training: constant, then linearly to zero.

    >>> schedule(0.1), schedule(0.8), schedule(1.0)
    (1.0, 0.5, 0.0)
    """
    return round(min(1.0, (1.0 - done) / 0.4), 12)


def warm_start(model, task, config, seed, progress=iter, seconds=None):
    """Train `model` in place on `config.sft_steps` batches of demonstrations -> list of losses, one a step.

    Everything random comes from `seed`, and from nowhere else. `progress` wraps the range of steps (tqdm). With `seconds` the
    clock takes the place of `sft_steps`: the same training, for as long as something else took.
    """
    rng, losses, started = random.Random(f"warm start {seed}"), [], time.time()
    optimizer = make_optimizer(model, config.sft_lr, config.sft_muon_lr)
    for step in progress(range(10**9 if seconds else config.sft_steps)):
        done = (time.time() - started) / seconds if seconds else step / config.sft_steps
        if done >= 1:
            break
        tokens, mask = demonstrations(task, config.sft_batch, rng)
        loss, _ = sft_step(model, optimizer, tokens.to(model.device), mask.to(model.device), config.sft_micro_batch, schedule(done))
        losses.append(loss)
    return losses


# --------------------------------------------------------------------------------------- learning from one's own right answers

@dataclass
class STaRConfig(SamplingConfig):
    """STaR"""
    teacher: str = setting("", "run or checkpoint that the samples come from; empty: the policy itself")
    expert: str = setting("none", "search, in place of sampling, finds what is imitated", choices=("none", "best_of_n", "mcts"))
    expert_budget: int = setting(256, "tokens that the expert may spend on a problem", low=1, high=10**6)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    epochs: int = setting(1, "passes over what was kept of a step", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


class STaR:
    """The algorithm as train.py sees it: `collect(problems) -> Rollout`, `update(rollout, rewards) -> metrics`."""
    Config = STaRConfig

    def __init__(self, policy, task, config, generator=None):
        """policy: GPT, trained in place. generator: torch.Generator on its device. InputError if there is no such teacher."""
        self.policy, self.task, self.config, self.generator = policy, task, config, generator
        self.behavior = load_teacher(config.teacher, task, policy) if config.teacher else policy
        self.optimizer = make_optimizer(policy, config.lr)

    def collect(self, problems):
        return collect(self.behavior, self.task, problems, self.config, self.generator)

    def update(self, rollout, rewards):
        """Fine-tune on the rows that the rule accepts -> metrics. `rewards` may hold more than the verdict; it is not looked at."""
        kept = rollout.right(self.task).nonzero()[:, 0]

        def loss(part):
            tokens, mask = part.cut(rollout.tokens, rollout.mask)
            return -(score(self.policy, tokens)[0] * mask).sum() / part.tokens, {}

        return {"kept": len(kept)} | optimize([Learner(self.optimizer, loss)], kept, rollout.mask, self.config,
                                              generator=self.generator)

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])


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


# ----------------------------------------------------------------------------------- where warm starts are kept and found

def init_from(path, model, task):
    """Load the weights of a run or checkpoint into `model`. InputError if its vocabulary or its shape is another one."""
    other, other_task, _ = checkpoint.load_run(path)
    if other_task.tokenizer.vocabulary != task.tokenizer.vocabulary:
        raise InputError(f"--init {path}: its vocabulary is that of task {other_task.name}, not of {task.name}")
    for name in ("n_layer", "n_head", "n_embd"):
        theirs, ours = getattr(other.config, name), getattr(model.config, name)
        if theirs != ours:
            raise InputError(f"--init {path}: has {name} {theirs}, this run {ours}; add {flag(name)} {theirs}")
    model.load_state_dict(other.state_dict())


def cache_path(runs, task, model, config, seed):
    """The folder of a warm start: named by a hash of everything that determines it, our own code included."""
    here = pathlib.Path(__file__).parent
    code = [here / f"{name}.py"
            for name in ("model", "optimize", "sample", "sft", "rewards", "tasks/__init__", "tasks/tokenizer", "tasks/serial")]
    code.append(pathlib.Path(sys.modules[type(task).__module__].__file__))
    determines = [task.name, asdict(task.options), asdict(model.config), asdict(config), seed, str(model.compute_dtype),
                  model.device.type, torch.__version__, [hashlib.sha256(file.read_bytes()).hexdigest() for file in code]]
    return runs / f"warm-{task.name}-{hashlib.sha256(json.dumps(determines).encode()).hexdigest()[:12]}"


def cached_warm_start(model, task, config, seed, runs, fresh=False):
    """`warm_start`, once: the next run with the same settings loads what it would have made itself.

    runs: the folder of all runs. fresh=True makes it anew. -> (its folder, the seconds it took when it was made).
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


# Exercises
# 1. Let the loss cover the prompt too (mask = every token but padding). Which test in tests/test_sft.py fails, and what does the
#    warm start now spend its capacity on?
# 2. In STaR, weigh each kept row by 1 / (right answers of its group). Which problems gain, and what happens to pass@8? Compare
#    with `--algo grpo`, and with test_star_is_reinforce_without_a_baseline.
# 3. Distil: train `--algo star --teacher runs/grpo-countdown-0` on the warm start, for as many tokens as the teacher's own
#    training took. test_a_teacher_is_sampled_and_not_trained says what must stay fixed.
