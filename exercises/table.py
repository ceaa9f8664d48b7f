"""The table of exercises: every part of every sheet, one line each.

    python exercises/table.py        prints it, with the sums of each sheet

A part that names a function of the core is code: `make.py` empties this function, and `grade.py`
compares what the student wrote with what stood there (both are in the teacher's repository alone). A part of sheet 7 is handed in as run folders.
The others (derive, run and look) are text, and the teacher gives their points.

To add an exercise, there: a line here; its inputs and its known mistakes, each with a hint, in
checks/sheet<N>.py; a section in sheets/<N>-*.md.
"""
from dataclasses import dataclass

SHEETS = {1: "Tokens, masks, sampling", 2: "Warm start and rewards", 3: "From REINFORCE to GRPO", 4: "PPO",
          5: "DPO and STaR", 6: "Search and its measures", 7: "Investigations"}


@dataclass(frozen=True)
class Part:
    id: str           # "3.2": sheet 3, part 2
    target: str       # "grpo.token_weights": a function; "runs": run folders; "": text, read by the teacher
    points: int
    minutes: int      # for somebody who knows PyTorch, and no reinforcement learning
    difficulty: int   # 1 a few lines; 2 some thought; 3 an afternoon's puzzle
    title: str
    hides: tuple = ()  # functions of later sheets that would give the answer away: emptied too

    @property
    def sheet(self):
        return int(self.id.split(".")[0])


PARTS = [Part(*line) for line in (
    # id   target                              points minutes difficulty
    ("1.1", "sample.completion_mask",               4, 10, 1, "which tokens the policy chose"),
    ("1.2", "sample.choose",                        6, 20, 2, "sample a token: the Gumbel trick"),
    ("1.3", "sample.write",                         6, 25, 2, "write it at each row's own position"),
    ("1.4", "sample.generate_plainly",             10, 45, 3, "the sampling loop"),
    ("1.5", "sample.score",                         6, 20, 2, "log-probs with a gradient: the indexing rule"),
    ("1.6", "sample.values",                        4, 10, 1, "values: the same rule for a critic"),
    ("1.7", "",                                     4, 20, 1, "run and look: where a shift by one would show"),
    ("2.1", "sft.demonstrations",                   6, 25, 2, "a batch of demonstrations and its mask"),
    ("2.2", "sft.sft_step",                         6, 25, 2, "the loss over completions, in micro-batches",
     ("methods.star.STaR.update",)),
    ("2.3", "rewards.extract_answer",               3, 10, 1, "one answer, or none"),
    ("2.4", "rewards.parse_expression",            10, 50, 3, "exact arithmetic without eval"),
    ("2.5", "tasks.countdown.Countdown.right",      5, 15, 1, "a verifier with no hole",
     ("tasks.countdown.Countdown.canonical_answer",)),
    ("2.6", "rewards.rule_rewards",                 4, 15, 1, "the rewards of a batch"),
    ("2.7", "",                                     4, 25, 1, "run and look: what imitation learns, and what it does not"),
    ("3.1", "grpo.group_advantages",                8, 25, 2, "advantages within a group"),
    ("3.2", "grpo.token_weights",                   6, 20, 2, "what each token counts"),
    ("3.3", "grpo.kl_estimate",                     4, 10, 1, "three estimates of the KL"),
    ("3.4", "grpo.policy_loss",                    12, 45, 3, "the ratio and the clip", ("ppo.value_loss",)),
    ("3.5", "",                                     6, 25, 2, "derive: the variance with a baseline"),
    ("3.6", "",                                     4, 15, 2, "derive: the factor 1 - 1/G"),
    ("3.7", "",                                     6, 25, 3, "derive: the weight of a problem of difficulty p"),
    ("3.8", "",                                     4, 40, 1, "run and look: one GRPO run and its curves"),
    ("4.1", "ppo.token_rewards",                    6, 20, 2, "rewards of tokens: the KL and the outcome"),
    ("4.2", "ppo.gae",                             10, 40, 3, "generalised advantage estimation"),
    ("4.3", "ppo.whiten",                           4, 10, 1, "whitening over the mask"),
    ("4.4", "ppo.value_loss",                       8, 25, 2, "the value loss, clipped"),
    ("4.5", "",                                     6, 30, 2, "derive: GAE between the return and the TD error"),
    ("4.6", "",                                     4, 40, 1, "run and look: the critic's first steps"),
    ("5.1", "dpo.dpo_loss",                         6, 20, 2, "the DPO loss", ("verifier.verifier_loss",)),
    ("5.2", "dpo.pairs",                            6, 25, 2, "who is compared with whom"),
    ("5.3", "dpo.DPO.update",                       8, 40, 3, "an update of DPO: sums, and a reference that stays"),
    ("5.4", "methods.star.STaR.update",             6, 25, 2, "STaR: keep what is right, imitate it"),
    ("5.5", "",                                     6, 30, 3, "derive: the DPO loss and its gradient"),
    ("5.6", "",                                     4, 40, 1, "run and look: margins, and log-probs that fall together"),
    ("6.1", "evaluate.pass_at_k",                   4, 15, 1, "pass@k without bias"),
    ("6.2", "search.majority_vote",                 6, 30, 2, "votes"),
    ("6.3", "experiments.exact.best_of_n_distribution", 8, 30, 2, "Best-of-N exactly"),
    ("6.4", "search.rebase_allocation",             5, 20, 2, "REBASE: as often as the score deserves"),
    ("6.5", "tree.Tree.select",                     8, 30, 2, "PUCT: where the next simulation goes"),
    ("6.6", "",                                     6, 25, 2, "derive: pass@k, and the KL of Best-of-N"),
    ("6.7", "",                                     4, 40, 1, "run and look: accuracy for tokens"),
    ("7.1", "runs",                                10, 90, 1, "GRPO, three seeds, and what to expect of them"),
    ("7.2", "runs",                                20, 240, 3, "change one thing, and defend it with three seeds"),
    ("7.3", "",                                    10, 60, 2, "the report: what was changed, seen and not shown"),
)]


def of_sheet(n):
    """The parts of sheet n; of all sheets for None."""
    return [part for part in PARTS if n in (None, part.sheet)]


if __name__ == "__main__":
    for n, title in SHEETS.items():
        parts = of_sheet(n)
        points, minutes = sum(p.points for p in parts), sum(p.minutes for p in parts)
        print(f"\nSheet {n}. {title}: {points} points, {minutes} minutes")
        for p in parts:
            target = f"  ({p.target})" if p.target else ""
            print(f"  {p.id}  {p.points:2} points  {p.minutes:3} min  {'*' * p.difficulty:3}  {p.title}{target}")
