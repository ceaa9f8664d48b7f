"""The bugs of hunt.py. Spoilers: who wants to hunt reads no further, and make.py leaves this folder out.

A bug: the file it is in, (what stands there, what is planted) of each edit, what it is, which curve tells, and a test that proves it:
it passes with the code as it should be, and fails with the bug.
"""
BUGS = {
    1: {
        "file": "plumbing/run.py",
        "edits": [("""        problems = []
        while len(problems) < count:""",
                   """        problems, rng = [], random.Random(f"problems {self.loop.seed}")
        while len(problems) < count:"""),
                  ("""self.rng.choice(self.train_problems) if self.train_problems else self.task.sample_problem(self.rng, "train")""",
                   """rng.choice(self.train_problems) if self.train_problems else self.task.sample_problem(rng, "train")""")],
        "what": "every step draws the same problems: the generator is made anew from the seed in each call of Run.draw",
        "tell": "accuracy on training problems, fresh ones as it is said, goes to 0.97 and val_pass@1 from 0.34 down to 0.20. Both are drawn "
                "alike, so they cannot part: the policy learns 24 problems by heart, and soon all samples of a problem agree",
        "proof": '''
import random
from types import SimpleNamespace

import tasks
from plumbing.run import Run


def test_two_steps_draw_different_problems():
    """64 draws from 3,984 training problems: the same ones twice is no accident."""
    run = SimpleNamespace(train_problems=[], solved={}, task=tasks.load("countdown"), rng=random.Random(0), loop=SimpleNamespace(seed=0))
    first, second = Run.draw(run, 64), Run.draw(run, 64)
    assert [p.key for p in first] != [p.key for p in second]
'''},
    2: {
        "file": "grpo.py",
        "edits": [("rows = ((advantages != 0).any(1) if", "rows = ((advantages > 0).any(1) if")],
        "what": "rows with a negative advantage are left out of the update: only successes are learned, mistakes never",
        "tell": "loss: on the first pass the ratio is 1 and the advantages of a group add up to 0, so with sequence_mean it must stay near 0; "
                "here it is -0.37, minus the mean of sqrt(m (1 - m)) over the groups. Accuracy is if anything better, and hardly any answer runs "
                "into the limit: only what was right is pushed up. Entropy falls to half",
        "proof": '''
import torch

from grpo import GRPO, GRPOConfig
from toys import Bigram, written


def test_a_worse_answer_becomes_less_likely():
    """Four answers of one token each, 2, 3, 4, 5: only 2 is right, advantages sqrt(3) and three times -1/sqrt(3). They add up to 0, so
    token 6, which nobody wrote, stays where it is; 3 must fall below it."""
    policy = Bigram(torch.zeros(7, 7))
    grpo = GRPO(policy, None, GRPOConfig(group_size=4, lr=0.01, max_new_tokens=1))
    grpo.update(written(policy, [[0, 2], [0, 3], [0, 4], [0, 5]]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert policy.table[0, 3] < policy.table[0, 6] - 0.005
'''},
    3: {
        "file": "sample.py",
        "edits": [("generate(model, [p for p in prompts for _ in range(config.group_size)],",
                   "generate(model, [p for _ in range(config.group_size) for p in prompts],"),
                  ("rollout.problems = [p for p in problems for _ in range(config.group_size)]",
                   "rollout.problems = [p for _ in range(config.group_size) for p in problems]")],
        "what": "the samples of a problem are not neighbours: a group of eight holds one sample each of eight problems, so answers are "
                "compared with answers to other problems",
        "tell": "groups_with_variance: 8 samples that have nothing in common but the accuracy p agree with probability p^8 + (1-p)^8, and "
                "1 - p^8 - (1-p)^8 is the curve: 0.94 to 0.99, from the first step to the last. Groups of one problem agree more often, because problems are "
                "easy or hard. Accuracy is no worse: the mean of a batch is a baseline, too",
        "proof": '''
import random

import torch

import tasks
from model import GPT, GPTConfig
from sample import SamplingConfig, collect


def test_the_samples_of_a_problem_are_neighbours():
    task, rng = tasks.load("countdown"), random.Random(0)
    problems = [task.sample_problem(rng) for _ in range(3)]
    model = GPT(GPTConfig(task.tokenizer.n_vocab, 64, 1, 2, 32))
    rollout = collect(model, task, problems, SamplingConfig(group_size=2, max_new_tokens=4))
    assert [p.key for p in rollout.problems] == [p.key for p in problems for _ in range(2)]
    n = int(rollout.prompt_lengths[0])
    assert torch.equal(rollout.tokens[0, :n], rollout.tokens[1, :n])
'''},
    4: {
        "file": "grpo.py",
        "edits": [("""            if low:
                old[part.rows, :part.length] = logprobs.detach()
""", """        old[part.rows, :part.length] = logprobs.detach()
""")],
        "what": "the log-probs of the policy that sampled are overwritten at every optimizer step, so the ratio is 1 in all passes and "
                "the clip never acts",
        "tell": "clip_fraction is exactly 0 and the loss 0 to rounding, in every step that has them: with four optimizer steps a batch "
                "the ratio must leave 1, and some tokens the clip. Nothing holds the later steps back: the policy collapses within six "
                "steps. And the overwritten numbers are those of the rollout: entropy, made of them afterwards, counts the prompt too, "
                "4.7 nats per token in step 1",
        "proof": '''
import torch

from grpo import GRPO, GRPOConfig
from toys import Bigram, written


def test_the_second_pass_is_compared_with_the_policy_that_sampled():
    """One step of 0.5 on every logit takes the ratio far beyond 1.2: in the second pass the clip must have something to clip."""
    policy = Bigram(torch.zeros(4, 4))
    grpo = GRPO(policy, None, GRPOConfig(group_size=2, lr=0.5, epochs=2, max_new_tokens=1))
    metrics = grpo.update(written(policy, [[0, 2], [0, 3]]), torch.tensor([1.0, 0.0]))
    assert metrics["clip_fraction"] > 0
'''},
}
