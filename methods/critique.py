"""Constitutional AI: criticise one's own answer by a principle, revise it, imitate that; then prefer what keeps it.

The idea. Nobody marks answers; there is a sentence that says what an answer should be like, here "every
number exactly once". The model that can read an answer by that sentence is its own teacher, twice: it
rewrites its answers, and learns to write so at once; and it says which of two answers keeps the
principle, and that is a preference to learn from.

The equations (arXiv:2212.08073, sections 3 and 4; pi_0: the warm start, the critic in both phases):

    revision   c, y' ~ pi_0(. | "Critique: " x y)       c: "twice 5, ", "missing 7, ", "foreign 8, " or "fine, "
    SL phase   loss = - 1/N sum_t log pi(z_t | x, z_<t)       z: the policy's own completion, y' in place of y
    RL phase   s(y) = P_0("fine" | "Critique: " x y)          among the words that may stand there
               loss = - log sigmoid(beta margin)              dpo.py; chosen: s > 1/2, rejected: s <= 1/2

The recipe:
  1. sample completions (`collect`); for --revision-steps steps:
  2. have each answer criticised and revised, by sampling; where the critique is "fine" the answer stays;
  3. imitate the completions with their revised answers (--imitate own: unrevised, the control);
  4. from then on ask for s(y) by reading alone, pair the fine with the faulty of each group, and follow
     dpo.py; the reference is the policy as the SL phase left it.

The principle can be checked by rule (tasks.dialogue.fault), so the truth is known: `violations` of the
policy's answers, `revised_violations` of what is imitated, `judge_accuracy` of the verdict. None of it
is learned from.

What is simplified: one principle, one round of critique; DPO on the pairs in place of a preference
model and PPO; no second kind of preference that says what is useful, so nothing but the reference
speaks for right answers. The thinking before a revised answer stays as it was. Sampled critiques are
counted, reading for s(y) is not.
"""
import copy
from dataclasses import dataclass

import torch

from config import setting
from dialogue import about, answers, ask, needed
from dpo import DPO, DPOConfig
from optimize import Learner, optimize
from sample import completion_mask, generate, score
from tasks.dialogue import fault
from verifier import auc

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000, "cheat_share": 0.3}
VERDICTS = ["fine", "missing ", "twice ", "foreign "]


@dataclass
class CritiqueConfig(DPOConfig):
    """critique"""
    prompts: int = setting(32, "problems per step", low=1, high=65536)
    iterative: bool = setting(True, "sample from the current policy, not from the warm start")
    revision_steps: int = setting(30, "steps of the SL phase; preferences follow", low=0, high=10**7)
    imitate: str = setting("revised", "in the SL phase: completions with revised answers, or with the policy's own",
                           choices=("revised", "own"))


def criticise(judge, task, rollout, config, generator=None):
    """A critique of every row's answer, sampled -> Rollout: "twice 5, <answer>...</answer>"."""
    prompts = about("Critique: ", task, rollout)
    limit, block = config.max_new_tokens or task.max_new_tokens, judge.config.block_size
    found = generate(judge, prompts, [min(limit, block - len(prompt)) for prompt in prompts], config.temperature,
                     eos=task.tokenizer.eos, pad=task.tokenizer.pad, generator=generator)
    found.problems = rollout.problems
    return found


def revised(rollout, critiques, task):
    """The completions with the answers of their critiques in place of their own -> tokens, mask (B, T).

    A critique that begins with "fine" leaves the answer as it is. A completion without an answer, or cut
    off, or whose critique has none, has an empty mask: it is not imitated.
    """
    (fine,), eos, pad = task.tokenizer.encode("fine"), task.tokenizer.eos, task.tokenizer.pad
    starts, rows = rollout.prompt_lengths.tolist(), []
    verdicts = critiques.tokens[torch.arange(len(starts)), critiques.prompt_lengths].tolist()
    for row, start, done, verdict, own, new in zip(rollout.tokens.tolist(), starts, rollout.finished.tolist(), verdicts,
                                                   answers(rollout, task), answers(critiques, task)):
        new = own if verdict == fine else new
        rows.append(row[:row.index(own[0], start)] + new + [eos] if done and own and new else row[:start])
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=rollout.tokens.device)
    lengths = torch.tensor(list(map(len, rows)), device=tokens.device)
    return tokens, completion_mask(rollout.prompt_lengths, lengths, longest)


def violates(task, rollout):
    """-> (B,) bool: does the answer break the principle? The truth, by rule; no answer breaks it, too."""
    texts = rollout.completions(task.tokenizer)
    broken = [fault(problem, text) != "fine" for problem, text in zip(rollout.problems, texts)]
    return torch.tensor(broken, device=rollout.tokens.device)


class Critique(DPO):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no dialogue."""
    Config, saved = CritiqueConfig, (*DPO.saved, "judge", "steps")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        needed(task)
        self.judge, self.steps = copy.deepcopy(policy).requires_grad_(False), 0

    def update(self, rollout, rewards):
        """`rewards`, the rule's, are not looked at -> metrics, a dict of floats (see docs/glossary.md)."""
        self.steps += 1
        broken = violates(self.task, rollout)
        metrics = {"violations": float(broken.float().mean()), "phase": 1 if self.steps <= self.config.revision_steps else 2}
        if self.steps <= self.config.revision_steps:
            return metrics | self.imitate(rollout, broken)
        if self.steps == self.config.revision_steps + 1:
            self.reference.load_state_dict(self.policy.state_dict())
        s = ask(self.judge, self.task, about("Critique: ", self.task, rollout), VERDICTS)[:, 0]
        metrics["judge_accuracy"] = float(((s > 0.5) != broken).float().mean())
        if broken.any() and not broken.all():
            metrics["auc"] = auc(s, ~broken)
        return metrics | super().update(rollout, (s > 0.5).float())

    def imitate(self, rollout, broken):
        """The SL phase. broken (B,) bool: the truth, for the metrics."""
        c, task = self.config, self.task
        critiques = criticise(self.judge, task, rollout, c, self.generator)
        rollout.discarded += critiques.sampled_tokens
        tokens, mask = revised(rollout, critiques, task)
        says = [text.split(",")[0] for text in critiques.completions(task.tokenizer)]
        true = [fault(p, text) for p, text in zip(rollout.problems, rollout.completions(task.tokenizer))]
        calls_fine = torch.tensor([word == "fine" for word in says], device=broken.device)
        imitated = mask.any(1)
        new = [fault(p, task.tokenizer.decode(row[chosen].tolist()[:-1])) != "fine"
               for p, row, chosen, seen in zip(rollout.problems, tokens, mask, imitated.tolist()) if seen]
        metrics = {"judge_accuracy": float((calls_fine != broken).float().mean()), "imitated": int(imitated.sum()),
                   "caught": float((broken & ~calls_fine).sum() / broken.sum().clamp(min=1)),
                   "named": sum(a == b != "fine" for a, b in zip(says, true)) / max(1, int(broken.sum())),
                   "revised_violations": sum(new) / max(1, len(new))}
        if c.imitate == "own":
            tokens, mask = rollout.tokens, rollout.mask & imitated[:, None]
        self.seen["advantages"] = imitated.float()

        def loss(part):
            tokens_, mask_ = part.cut(tokens, mask)
            return -(score(self.policy, tokens_)[0] * mask_).sum() / part.tokens, {}

        rows = imitated.nonzero()[:, 0]
        return metrics | optimize([Learner(self.optimizer, loss)], rows, mask, c, generator=self.generator)


# Exercises
# 1. The critic errs to one side: its teacher calls a faulty answer fine, never a fine one faulty. Turn that around in
#    tasks/dialogue.py (critique), and compare `revised_violations` with `violations`. Which error costs more?
# 2. Let the critic be the policy itself (self.judge = policy). Does `judge_accuracy` rise or fall over the SL phase, in
#    which nobody practises criticism? (test_the_critic_stays_as_it_was_and_the_reference_is_the_policy_after_the_first_phase)
# 3. Prefer a right answer among fine ones, by the rule: what of `accuracy` and `violations` can be had together?
#    test_a_preference_is_the_verdict_and_not_the_rule is where it fails.
