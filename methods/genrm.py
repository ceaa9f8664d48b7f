"""GenRM, a generative verifier: the score of an answer is the chance that the model says "yes" to it.

The idea. A verifier with a head of its own (verifier.py) throws away that the model can speak. Ask it
instead, "Check: <problem> <answer>", and read how likely the next word is "yes". Then training the
verifier is imitation like any other, the same model solves and verifies, it may think before its
verdict, and it may be asked several times.

The equations (arXiv:2408.15240; x problem, y answer, I the words "Check: ", c a chain of thought):

    direct         s(x, y) = pi(yes | I, x, y)
    with a vote    s(x, y) = 1/K sum_k pi(yes | I, x, y, c_k),      c_k ~ pi(. | I, x, y)    --votes K
    loss           = - mean log pi(v | I, x, y [, c])  -  lambda mean log pi(y* | x)         --solve-weight

v is "yes" where the rule accepts the answer, else "no"; both words count the same, however many answers
are right. y* is a right answer of the policy's own, or a demonstration (--solve).

The recipe:
  1. sample answers (`collect`); ask about each (`verdicts`): that is only measured, or, with --votes,
     what is learned from;
  2. with --votes: of the thoughts keep those that came to the rule's verdict, and imitate thought and
     verdict; else the verdict alone;
  3. beside it, imitate right answers, in the same batch.

This is the one method here whose labels are the rule's, as those of an ORM are: it makes judges, for
others to use.

What is simplified: the paper's policy stays as it is, and another copy of the model verifies; here it
is one model that does both, and the answers that it checks are its own of now. Its chains of thought
are written with a reference solution at hand; here they are sampled and filtered. A thought may be as
long as half an answer; what has not ended by then is asked all the same. Tokens: thoughts are sampled,
and count. Asking for a verdict reads, and samples nothing.
"""
import random
from dataclasses import dataclass

import torch

import dialogue
from config import setting
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, completion_mask, generate, score
from verifier import auc

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000}


@dataclass
class GenRMConfig(SamplingConfig):
    """generative verifier"""
    votes: int = setting(0, "K: chains of thought before the verdict, which is averaged over them; 0: none",
                         low=0, high=1024)
    solve: str = setting("right", "what is imitated beside verdicts: right answers of its own, or demonstrations",
                         choices=("right", "demonstrations"))
    solve_weight: float = setting(1.0, "lambda: what solving counts; 0: only verdicts", low=0.0, high=100.0)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    epochs: int = setting(1, "passes over what is imitated of a step", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def verdicts(model, task, rollout, votes=0, generator=None, temperature=1.0):
    """What a model says of the answers of a rollout -> p (B, K), rows, token cost.

    p: pi(yes) behind each of K = max(1, votes) thoughts; 0 for what did not end, or has no answer
    block: that is seen without asking. rows: what was read before each verdict, B * K lists of ids.
    Token cost: of the thoughts.
    """
    rows, cost = [row for row in dialogue.about("Check: ", task, rollout) for _ in range(max(1, votes))], 0
    if votes:
        (start,), (end,) = task.tokenizer.encode("<think>"), task.tokenizer.encode("</think>")
        thoughts = generate(model, [row + [start] for row in rows], task.max_new_tokens // 2, temperature,
                            pad=task.tokenizer.pad, generator=generator, stop=end)
        rows = [row[:length] for row, length in zip(thoughts.tokens.tolist(), thoughts.lengths.tolist())]
        cost = thoughts.sampled_tokens
    p = dialogue.ask(model, task, rows, ["yes", "no"])[:, 0].view(len(rollout.lengths), -1)
    return p * dialogue.readable(rollout, task)[:, None], rows, cost


def watched(scores, says_right, right):
    """The rule over the judge's shoulder: scores (B,), says_right (B,) bool, right (B,) bool ->
    metrics; never part of the learning."""
    found = {"judge_accuracy": float((says_right == right).float().mean())}
    return found | ({"auc": auc(scores, right)} if 0 < int(right.sum()) < len(right) else {})


def to_imitate(rows, starts, weights, pad, device):
    """Lists of token ids, of which those from `starts` on are imitated, each row weighing what
    `weights` says -> tokens (N, T), mask (N, T), weights (N, T): divided by the sum over all tokens, so
    that these are shares of a mean."""
    lengths, T = torch.tensor([len(row) for row in rows]), max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (T - len(row)) for row in rows])
    mask = completion_mask(torch.tensor(starts), lengths, T)
    shares = mask * torch.tensor(weights)[:, None]
    return tokens.to(device), mask.to(device), (shares / shares.sum()).to(device)


class GenRM(Method):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no dialogue."""
    Config, saved = GenRMConfig, ("optimizer",)

    def __init__(self, policy, task, config, generator=None, reward=None):
        dialogue.needed(task)
        super().__init__(policy, task, config, generator, reward)
        self.optimizer = make_optimizer(policy, config.lr)

    def update(self, rollout, rewards):
        """The rule's verdict is the label; `rewards` may hold more, and is not looked at -> metrics
        (see docs/glossary.md)."""
        c, right = self.config, rollout.right(self.task)
        p, rows, cost = verdicts(self.policy, self.task, rollout, c.votes, self.generator, c.temperature)
        rollout.discarded += cost
        metrics = watched(p.mean(1), p.mean(1) > 0.5, right)
        parts = [to_imitate(*self.checks(rollout, p, rows, right), self.task.tokenizer.pad, p.device)]
        solved = self.solutions(rollout, right) if c.solve_weight else [[]]
        if solved[0]:
            parts.append(to_imitate(*solved, self.task.tokenizer.pad, p.device))
        T = max(tokens.shape[1] for tokens, _, _ in parts)
        join = lambda tensors: torch.cat([torch.nn.functional.pad(x, (0, T - x.shape[1])) for x in tensors])
        tokens, mask, weights = map(join, zip(*parts))
        weights[len(parts[0][0]):] *= c.solve_weight
        steps = min(c.mini_batches, len(tokens))  # a mini-batch holds 1 / steps of the weights, see grpo.py
        self.seen["advantages"] = right.float()

        def loss(part):
            logprobs = score(self.policy, part.cut(tokens)[0])[0].masked_fill(~part.cut(mask)[0], 0.0)
            return -(part.weights * logprobs).sum(), {}

        metrics |= {"verdicts": len(parts[0][0]), "solutions": len(solved[0])}
        return metrics | optimize([Learner(self.optimizer, loss)], torch.arange(len(tokens), device=p.device), mask, c,
                                  lambda rows: weights[rows] * steps, self.generator)

    def checks(self, rollout, p, rows, right):
        """-> rows that end with the rule's verdict, where what is imitated starts, what each counts:
        three lists."""
        encode, eos, K = self.task.tokenizer.encode, self.task.tokenizer.eos, p.shape[1]
        labels = right.repeat_interleave(K).tolist()
        kept = range(len(rows))
        if self.config.votes:
            agree = ((p > 0.5) == right[:, None]).flatten().tolist()
            kept = [i for i in kept if agree[i]] or list(kept)  # if none agrees: all thoughts, and the rule's verdict
        starts = [len(row) for row in dialogue.about("Check: ", self.task, rollout) for _ in range(K)]
        count = {verdict: sum(labels[i] == verdict for i in kept) for verdict in (True, False)}
        return ([rows[i] + encode("yes" if labels[i] else "no") + [eos] for i in kept],
                [starts[i] for i in kept], [1 / count[labels[i]] for i in kept])

    def solutions(self, rollout, right):
        """-> the same for what is imitated beside the verdicts: all of it counts the same."""
        if self.config.solve == "demonstrations":
            encode, eos = self.task.tokenizer.encode, self.task.tokenizer.eos
            rng = random.Random(int(torch.randint(2**31, (), generator=self.generator, device=right.device)))
            starts = [len(encode(problem.prompt)) for problem in rollout.problems]
            rows = [encode(p.prompt + self.task.demonstration(p, rng)) + [eos] for p in rollout.problems]
        else:
            chosen = rollout.select(right.nonzero()[:, 0])
            starts = chosen.prompt_lengths.tolist()
            rows = [row[:length] for row, length in zip(chosen.tokens.tolist(), chosen.lengths.tolist())]
        return rows, starts, [1.0] * len(rows)


# Exercises
# 1. Let "no" count as often as it occurs (weights of 1 in `checks`). What becomes of judge_accuracy,
#    and of auc? Which of the two would you give to somebody who has to choose among eight answers?
#    (test_yes_and_no_count_the_same)
# 2. --solve-weight 0: does the model still solve after a hundred steps? Does solving help checking?
#    Three seeds.
# 3. Imitate every thought, whether it came to the rule's verdict or not.
#    test_a_thought_that_came_to_the_wrong_verdict_is_not_imitated fails; does `auc` with --votes 4
#    fall, too?
