"""DAgger: the policy goes wrong in its own way, and a teacher shows what would have been right from there.

The idea. A demonstration shows the teacher's mistakes and how the teacher goes on after them. The policy makes other mistakes, and how to
go on after those it has never seen: so it tries again what it has just tried. Let it write, then, keep the attempts that failed, and have
the teacher, who knows the solution, write the next one. Imitate that one alone.

The equation (arXiv:1011.0686, algorithm 3.1 with beta = 1 for the warm start and 0 from then on; x: a problem, h ~ pi: the policy's own
failed attempts, y*: what the teacher writes after them):

    loss = - 1/N sum_t log pi(y*_t | x, h, y*_<t)          the states are the policy's, the actions the teacher's; N: tokens of all y*

Beside it: the warm start takes h from the teacher too. STaR (star.py) has no teacher, and learns only from samples that were right anyway.
GRPO has none either, and pays all tokens of a sample alike: a second attempt that repeats the first one costs it little.

The recipe:
  1. sample one completion of each problem (`collect`);
  2. keep its attempts up to the first that is illegal or right; one that is marked as found and is not gets the true mark, and ends
     them (`own_attempts`); cut that at a random place, and where there would be no room for one more;
  3. append a planted solution and its answer; imitate these, from the mark before them on, as the warm start imitates demonstrations.

What is simplified: the paper asks the teacher in every state that the policy comes to. Here it is asked once a sample, after a legal attempt
that has missed, and writes all the rest: within its attempt the states are its own, and false arithmetic is never corrected. The paper
trains anew on the states of all rounds; here each batch is used once, and the policy goes on from where it is. Tasks: those whose
demonstrations are lists of attempts, countdown and stream_of_search.
"""
import random
from dataclasses import dataclass, fields, replace

import torch

from config import InputError, setting
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, completion_mask, score


@dataclass
class DAggerConfig(SamplingConfig):
    """DAgger"""
    prompts: int = setting(128, "problems per step", low=1, high=65536)
    keep: int = setting(100, "at most so many of the policy's own attempts are kept; 0: none, and what is left is the warm start with a sure teacher",
                        low=0, high=100)
    group_size: int = setting(1, "samples per problem; nothing compares them", low=1, high=65536)
    lr: float = setting(0.004, "AdamW's rate (embedding, norms)", low=0.0, high=1.0)
    muon_lr: float = setting(0.002, "Muon's rate (hidden matrices); 0: AdamW does all", low=0.0, high=1.0)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(1, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def teacher_of(task):
    """The same task, whose demonstrations are a planted solution at once. InputError if they are no list of attempts."""
    known = {f.name for f in fields(task.options)}
    if "attempts" not in known or getattr(task.options, "cot", "on") == "off":
        raise InputError(f"--algo dagger: the demonstrations of {task.name} are no list of attempts that one could go on with; "
                         "use --task countdown with --cot on, or stream_of_search")
    sure = {"attempts": 1, "expert_share": 1.0, "cheat_share": 0.0}
    return type(task)(replace(task.options, **{name: value for name, value in sure.items() if name in known}))


def own_attempts(task, problem, completion):
    """The failed attempts that a completion begins with, as a teacher would have marked them -> list of lines.

    >>> import tasks
    >>> task = tasks.load("countdown")
    >>> text = "<think>7 - 5 = 2, 3 * 2 = 6, found\\n7 + 5 = 12, 12 + 3 = 16, failed\\n"  # 6 is not 22, 12 + 3 is not 16
    >>> own_attempts(task, task.problem((3, 5, 7), 22), text)
    ['7 - 5 = 2, 3 * 2 = 6, failed\\n']
    """
    kept = []
    for line in completion.removeprefix("<think>").split("</think>")[0].split("\n")[:-1]:
        steps, _, mark = line.rpartition(", ")
        if mark not in ("failed", "found") or task.check_attempt(problem, steps) in (None, problem.answer):
            break
        kept.append(f"{steps}, failed\n")
        if mark == "found":  # what it went on with came from a mistake
            break
    return kept


def written_so(tokenizer, text, ids):
    """Whether these are the ids of the text. A 1 and a 2, sampled one after the other, read like a 12, and are another state."""
    try:
        return tokenizer.encode(text) == ids
    except ValueError:
        return False


class DAgger(Method):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no attempts to go on with."""
    Config, saved = DAggerConfig, ("optimizer",)

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.teacher, self.optimizer = teacher_of(task), make_optimizer(policy, config.lr, config.muon_lr)

    def corrected(self, rollout):
        """-> tokens (B, T), padded on the right; mask (B, T) bool: what the teacher wrote, and the token before it; attempts kept a row.
        Where the teacher knows no solution the mask is empty: nobody shall learn to give up."""
        encode, end, rows, starts, attempts = self.task.tokenizer.encode, self.task.tokenizer.eos, [], [], 0
        written = [row[start:length - done] for row, start, length, done in zip(
            *(each.tolist() for each in (rollout.tokens, rollout.prompt_lengths, rollout.lengths, rollout.finished.int())))]
        rng = random.Random(int(torch.randint(2**31, (), generator=self.generator, device=self.policy.device)))
        for problem, text, ids in zip(rollout.problems, rollout.completions(self.task.tokenizer), written):
            own = own_attempts(self.task, problem, text) if written_so(self.task.tokenizer, text, ids) else []
            own = own[:min(rng.randint(0, len(own)), self.config.keep)]
            shown = self.teacher.demonstration(problem, rng)
            rest = encode(shown.removeprefix("<think>")) + [end]
            while len(begun := encode(f"{problem.prompt}<think>{''.join(own)}")) + len(rest) > self.policy.config.block_size:
                own.pop()
            rows.append(begun + rest)
            starts.append(len(begun) - 1 if self.task.verify(problem, shown) else len(rows[-1]))
            attempts += len(own)
        longest, device = max(map(len, rows)), self.policy.device
        tokens = torch.tensor([row + [self.task.tokenizer.pad] * (longest - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        return tokens, completion_mask(torch.tensor(starts, device=device), lengths, longest), attempts / len(rows)

    def update(self, rollout, rewards):
        """The rewards are not looked at: the teacher knows the solution -> metrics, a dict of floats (see docs/glossary.md)."""
        tokens, mask, attempts = self.corrected(rollout)

        def loss(part):
            logprobs, _ = score(self.policy, part.cut(tokens)[0])
            return -(logprobs * part.cut(mask)[0]).sum() / part.tokens, {}

        return {"own_attempts": attempts} | optimize([Learner(self.optimizer, loss)], mask.any(1).nonzero()[:, 0], mask, self.config,
                                                     generator=self.generator)


# Exercises
# 1. Never cut: `own` as long as it is. What becomes of pass@1, and of the share of attempts that repeat an earlier one
#    (experiments/better_teacher.py counts them)? And with --keep 0?
# 2. Let the loss cover the policy's own attempts too. test_only_what_the_teacher_writes_is_imitated fails; which method of this project
#    is that, for the rows that were right?
# 3. Have the teacher begin inside of the last attempt, at the first step from which the target cannot be reached (`still_possible`).
