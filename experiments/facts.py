"""What the experiments about small tables share. A problem is a question of a token or a few, its answer a token or a few, so that a
warm start takes seconds, a run of RL less than a minute, and the chance of every answer can be read off exactly, without samples."""
import random

from cells import HERE  # puts the repository on the path
import torch

import sft
from grpo import GRPO, TABLE, GRPOConfig
from model import GPT, GPTConfig
from sample import SamplingConfig, collect
from tasks import Task
from tasks.tokenizer import Tokenizer


class Table(Task):
    """A task that is built and not loaded by name: it draws all of its problems in training, so the experiment says what is held out."""

    def __init__(self, words, max_prompt_tokens, max_new_tokens):
        self.tokenizer = Tokenizer(type(self).__name__, words)
        self.max_prompt_tokens, self.max_new_tokens = max_prompt_tokens, max_new_tokens

    def sample_problem(self, rng, split="train"):
        return self.draw(rng)


def warm_start(task, steps, seed, batch=64):
    """-> a model of 2 layers and width 64 (100,000 parameters) that imitates the demonstrations of the task."""
    torch.manual_seed(int(seed))
    model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, n_layer=2, n_head=2, n_embd=64))
    sft.warm_start(model, task, sft.SFTConfig(sft_steps=steps, sft_batch=batch, sft_micro_batch=batch), f"table {seed}")
    return model


def reinforce(model, task, reward, steps, seed, row="dr_grpo", method=GRPO, look=None, **settings):
    """RL with a row of grpo.TABLE and rewards of one's own: reward(problem, text, tokens) -> a number, where tokens counts those
    that were sampled, EOS included. look(step) is called before the first step and after each."""
    config = GRPOConfig(**{**TABLE[row], "micro_batch": 512, **settings})
    method, rng = method(model, task, config, torch.Generator().manual_seed(int(seed))), random.Random(f"problems {seed}")
    for step in range(steps):
        if look:
            look(step)
        rollout = method.collect([task.sample_problem(rng) for _ in range(config.prompts)])
        lengths = (rollout.lengths - rollout.prompt_lengths).tolist()
        rewards = [reward(p, text if done else "", n) for p, text, n, done in
                   zip(rollout.problems, rollout.completions(task.tokenizer), lengths, rollout.finished.tolist())]
        method.update(rollout, torch.tensor(rewards))
    if look:
        look(steps)


@torch.no_grad()
def chances(model, task, prompts):
    """The probability of every first token after each of the prompts, which are equally long -> (N, V)."""
    return model(torch.tensor([task.tokenizer.encode(prompt) for prompt in prompts]))[:, -1].softmax(-1)


def samples(model, task, problems, n=1, seed=0):
    """n completions of each problem -> list of (problem, text); the text of one that did not end is empty."""
    rollout = collect(model, task, problems, SamplingConfig(group_size=n), torch.Generator().manual_seed(seed))
    return [(p, text if done else "") for p, text, done in
            zip(rollout.problems, rollout.completions(task.tokenizer), rollout.finished.tolist())]
