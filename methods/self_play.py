"""Generator and verifier in self-play: one writes answers to be believed, the other learns whom to believe.

The idea. A generator that is paid for being believed soon writes what a fixed verifier takes for right, and not what is right. So the
verifier goes on learning, from what the generator writes now, and wherever it was fooled it is corrected. Nobody has an answer key:
of a few samples a step a weak teacher says whether they are right, and it is wrong itself in a fifth of the cases.

The equations (v = P("yes" | "Check: " x y) of the policy itself; l in {0, 1}: what the teacher says of a labelled sample):

    generator    max  E v(x, y)                                   r = v, A = (r - mean) / std of the group, as in grpo.py
    verifier     max  E l log pi(yes | Check: x y) + (1 - l) log pi(no | Check: x y)            over the labelled samples

On a right sample both want the same. On a wrong one they play against each other: the generator wants a yes, the verifier a no. In
prover-verifier games (arXiv:2407.13692) these are two provers, the helpful one and the sneaky one, and the label of every sample is
known; here one policy is both, whichever its sample happens to be, and nobody has to be told which.

The recipe:
  1. sample groups (`collect`); ask the policy about each of its answers (`verdicts`); an answer that cannot be read earns 0;
  2. --labels samples, drawn from those that can be read, are shown to the teacher (`labels`);
  3. one optimizer step on both: to imitate a label is a policy gradient whose one token has advantage 1 (sft.py).

Asking is reading: one forward pass, no token is sampled. The rule looks on (judge_accuracy, auc, and fooled: what the wrong answers
earn), and what the generator learns of it has come through the labels. --labels 0 leaves the verifier to itself.

What is simplified: generator and verifier share their weights, so each moves the other a little; the game has no rounds: both move at
every step; the verifier learns from the newest samples only, where the paper keeps those of all rounds.
"""
from dataclasses import dataclass

import torch

from config import InputError, setting
from dialogue import about, answers, ask, needed
from grpo import GRPO, GRPOConfig, token_weights
from optimize import optimize
from sample import Rollout, completion_mask, join, score
from tasks.dialogue import reliable
from verifier import auc

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000}


@dataclass
class SelfPlayConfig(GRPOConfig):
    """generator and verifier in self-play"""
    labels: int = setting(64, "samples a step of which a teacher says whether they are right; --checker: how often it is right itself",
                          low=0, high=10**6)
    verifier_weight: float = setting(1.0, "weight of the verifier's loss", low=0.0, high=100.0)


def written_checks(model, prompts, verdicts, pad, temperature):
    """Prompts that ask, and the verdicts that are to be learned, as a Rollout: the mask holds the verdict alone, logprobs are those
    of `model` as it is. prompts: list of N lists of ids; verdicts: N ids."""
    rows = [prompt + [verdict] for prompt, verdict in zip(prompts, verdicts)]
    lengths = torch.tensor(list(map(len, rows)), device=model.device)
    T = int(lengths.max())
    tokens = torch.tensor([row + [pad] * (T - len(row)) for row in rows], device=model.device)  # (N, T)
    mask = completion_mask(lengths - 1, lengths, T)
    with torch.no_grad():
        logprobs = torch.cat([score(model, part, temperature)[0] for part in tokens.split(256)])
    return Rollout(tokens, lengths - 1, lengths, mask, logprobs.masked_fill(~mask, 0.0), torch.ones_like(lengths).bool())


class SelfPlay(GRPO):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no such prompt, or a setting cannot be used here."""
    Config = SelfPlayConfig

    def __init__(self, policy, task, config, generator=None, reward=None):
        needed(task)
        if config.dynamic_sampling or config.renew_reference or config.length_weight:
            raise InputError("--dynamic-sampling, --renew-reference: not with batches that hold checks as well; --length-weight: asks the rule "
                             "who is right; leave them out")
        super().__init__(policy, task, config, generator, reward)

    def verdicts(self, rollout):
        """-> v of every row (B,), 0 where there is no answer to be checked; the prompts that asked; which rows can be read (B,) bool."""
        prompts = about("Check: ", self.task, rollout)
        readable = torch.tensor([bool(answer) for answer in answers(rollout, self.task)], device=rollout.tokens.device) & rollout.finished
        return ask(self.policy, self.task, prompts, ["yes", "no"])[:, 0] * readable, prompts, readable

    def labels(self, rollout, right, prompts, rows):
        """What the teacher says of some rows: the truth, or its opposite where it is not reliable -> list of bool."""
        said = [reliable(self.task, self.task.tokenizer.decode(prompts[i])) for i in rows]
        return [bool(right[i]) == honest for i, honest in zip(rows, said)]

    def update(self, rollout, rewards):
        """The rewards of the rule are not used -> metrics, a dict of floats (see docs/methods.md)."""
        c, task, right = self.config, self.task, rollout.right(self.task)
        v, prompts, readable = self.verdicts(rollout)
        self.steps += 1
        metrics = {"kl": self.kl(rollout), "judge_accuracy": float(((v > 0.5) == right).float().mean()), "verdict": float(v.mean())}
        if 0 < int(right.sum()) < len(right):
            metrics |= {"auc": auc(v, right), "fooled": float(v[~right].mean())}
        advantages = self.seen["advantages"] = self.advantages(rollout, self.shape(rollout, v))  # (B, T)
        weights = token_weights(rollout.mask, c.loss_aggregation, self.max_new_tokens)
        batch, places = rollout, readable.nonzero()[:, 0]
        shown = places[torch.randperm(len(places), generator=self.generator, device=places.device)[:c.labels]].tolist()
        if shown and c.verifier_weight:
            said = self.labels(rollout, right, prompts, shown)
            (yes,), (no,) = map(task.tokenizer.encode, ("yes", "no"))
            checks = written_checks(self.policy, [prompts[i] for i in shown], [yes if label else no for label in said],
                                    task.tokenizer.pad, c.temperature)
            metrics |= {"label_accuracy": sum(label == bool(right[i]) for i, label in zip(shown, said)) / len(shown),
                        "verifier_loss": float(-checks.logprobs.sum() / len(shown))}
            batch = join([rollout, checks])
            fit = lambda x: torch.nn.functional.pad(x, (0, batch.mask.shape[1] - x.shape[1]))
            weights = torch.cat((fit(weights), fit(c.verifier_weight * token_weights(checks.mask, "token_mean"))))
            advantages = torch.cat((fit(advantages), torch.ones(batch.mask[len(rollout.mask):].shape, device=advantages.device)))
        rows = ((advantages != 0).any(1) if c.beta == c.entropy_bonus == 0 else batch.mask.any(1)).nonzero()[:, 0]
        steps = min(c.mini_batches, len(rows))
        learner = self.learner(batch, advantages)
        return metrics | optimize([learner], rows, batch.mask, c, lambda rows: weights[rows] * steps, self.generator if steps > 1 else None)


# Exercises
# 1. --labels 0, 8, 64, 512 at the same seed. Plot accuracy, verdict and fooled: how many labels a step hold the generator to the truth?
# 2. --checker 0.6 and 1.0: the warm start changes with it. Is a verifier that learns from a weak teacher better than its teacher
#    (judge_accuracy against label_accuracy)? Why can it be?
# 3. Give the generator the logit log v - log(1 - v) in place of v. test_the_generator_earns_the_chance_of_a_yes fails; what changes
#    once nearly all answers are believed?
