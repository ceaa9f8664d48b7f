"""What several claims share: models of 0.1 million parameters, kept once they are made, and reinforcement
learning in ten lines.

A claim that needs twenty policies needs cheap ones. `kept` makes a model once and keeps it in
runs/small/; `imitate` is the warm start of sft.py, `reinforce` the loop of train.py without its files:
any method that --algo knows, on any task object, also one that an experiment has defined itself.
`right_counts` is what all of them measure.

What is simplified: nothing is saved within a run, so a run that was stopped begins again.
"""
import pathlib
import random
import time

import torch

import checkpoint
import evaluate
import sft
from config import from_flags
from model import GPT, GPTConfig
from plumbing import catalogue

PLACE = pathlib.Path("runs/small")


def kept(name, task, make, seed, n_layer=2, n_embd=64, block_size=128):
    """The model NAME-SEED.pt of runs/small -> (model, what make(model) returned: JSON values). Made if it is not
    there: make trains it in place. The name has to say everything that decides what comes out."""
    torch.manual_seed(int(seed))
    model = GPT(GPTConfig(task.tokenizer.n_vocab, block_size, n_layer, 4, n_embd))
    place = PLACE / f"{name}-{seed}.pt"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        config = {"algo": "sft", "task": task.name, "max_new_tokens": 0, "dtype": "float32"}  # what ask.py, search.py and export.py want to know
        checkpoint.save(place, model, task, config, made=make(model))
    content = checkpoint.load(place)
    model.load_state_dict(content["model"])
    return model, content["made"]


def imitate(task, seed, steps, **settings):
    """-> make(model) for `kept`: the warm start of sft.py; what it returns is the processor time it took, in seconds."""
    def make(model):
        started = time.process_time()
        sft.warm_start(model, task, sft.SFTConfig(sft_steps=steps, **settings), seed)
        return time.process_time() - started
    return make


def reinforce(task, seed, start, algo="grpo", steps=10**9, tokens=10**12, offset=0.0, problems=None, look=None,
              keep=(), **settings):
    """-> make(model) for `kept`: the weights of `start`, then `algo` until so many steps were taken or so many tokens sampled.

    The reward is 1 if the answer is right, else 0, and `offset` more. problems: a list to draw from; None: fresh
    ones of the training split. settings: those of the method. look(rollout, right) -> dict that is added to the
    line of a step. make returns the lines: accuracy and entropy of the step, tokens and processor time so far; and of the method's own
    metrics those named in `keep`.
    """
    def make(policy):
        policy.load_state_dict(start.state_dict())
        torch.manual_seed(int(seed))
        cls, row = catalogue.find(algo)
        reward = lambda rollout: rollout.right(task).float() + offset
        method = cls(policy, task, from_flags(cls.Config, row | settings), torch.Generator().manual_seed(int(seed)), reward)
        rng, lines, used, started = random.Random(f"problems {seed}"), [], 0, time.process_time()
        while len(lines) < steps and used < tokens:
            draw = (lambda: rng.choice(problems)) if problems else (lambda: task.sample_problem(rng))
            rollout = method.collect([draw() for _ in range(method.config.prompts)])
            right = rollout.right(task).float()
            metrics = method.update(rollout, right + offset)
            used += rollout.sampled_tokens + rollout.discarded
            entropy = float(-rollout.logprobs.sum() / rollout.mask.sum())  # of the policy, nats per token
            lines.append({"accuracy": float(right.mean()), "entropy": entropy, "tokens": used,
                          "seconds": time.process_time() - started, **{name: metrics[name] for name in keep if name in metrics},
                          **(look(rollout, right) if look else {})})
        return lines
    return make


def right_counts(model, task, problems, n, seed=0):
    """How many of n samples are right -> a list, one number a problem."""
    judged = evaluate.sample_and_judge(model, task, problems, n, seed=seed, batch=1024)
    return [sum(each["right"] for each in judged[i:i + n]) for i in range(0, len(judged), n)]


def band(xs, values):
    """A curve with a band for plot.lines: values, a list for each x with a number for each seed -> (xs, means, lows, highs).

    >>> band([1, 2], [[0.0, 1.0], [0.5, 0.5]])
    ([1, 2], [0.5, 0.5], [0.0, 0.5], [1.0, 0.5])
    """
    values = [list(each) for each in values]
    return list(xs), [sum(each) / len(each) for each in values], list(map(min, values)), list(map(max, values))
