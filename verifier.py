"""Learned verifiers: a reward model reads a solution and says how good it looks, for tasks where no rule
can.

The idea. A rule needs the answer key, and reads only the end. A reward model is a GPT with a scalar head
(model.ScalarModel) that is trained on the policy's own samples, which a rule has marked, and can later be
asked about new ones: about whole solutions, or about half-finished ones, which is what a search needs.
Three ways to train it:

    orm   outcome:   the whole solution     - [ y log s + (1 - y) log(1 - s) ]    s = sigmoid(head at its last token), y: right?
    prm   process:   the end of every step  the same, y: does it end right from here, if the policy goes on by itself?
    rm    pairs:     two whole solutions    - log sigmoid(head(chosen) - head(rejected))                          Bradley-Terry

A step is a reasoning step here. The labels of prm are made by Monte Carlo (Math-Shepherd,
arXiv:2312.08935): from the end of every step the policy finishes the solution `rollouts` times; the soft
label is the share that is right, the hard one whether any is. Their tokens are counted like all others.
orm: arXiv:2110.14168. rm: Bradley and Terry 1952, as in arXiv:2203.02155.

How good are the labels? `python verifier.py RUN` compares them with the answer to "can this attempt still
reach the target?", which countdown can compute. Math-Shepherd's 85 % are agreement with people who said
whether a step is correct: another question, so the two figures cannot be compared.

The recipe:
  1. sample solutions from the frozen policy, which stays as it is (`collect`); the rule marks them; prm: label their steps;
  2. an optimizer step of the reward model on the loss above, or with --epochs a few (`update`).

    python train.py --algo orm --task countdown --init runs/grpo-countdown-0 --out runs/orm
    python verifier.py runs/orm          how often is it right? beside what the solution says of itself

What is simplified: fresh samples for every update, so nothing can be overfitted; the reward model starts
from the policy that it reads. A prm label is about the policy that made it: a better one might still save a
step that is hopeless for this one.
"""
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import checkpoint
from config import InputError, Parser, add_flags, from_flags, setting
from dpo import pairs
from evaluate import fixed_problems, pick_device
from method import Method
from model import ScalarModel, make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, collect, generate, join


@dataclass
class VerifierConfig(SamplingConfig):
    """learned verifier"""
    kind: str = setting("orm", "what is scored, see verifier.py", choices=("orm", "prm", "rm"))
    group_size: int = setting(4, "samples per problem", low=2, high=65536)
    rollouts: int = setting(4, "prm: Monte-Carlo rollouts for the label of a step", low=1, high=10**4)
    labels: str = setting("soft", "prm: the share of rollouts that end right, or whether any does", choices=("soft", "hard"))
    lr: float = setting(1e-3, "AdamW's rate", low=0.0, high=1.0)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(1, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


ROLLOUT_BATCH = 1024  # Monte-Carlo rollouts in one call of the model

TABLE = {"orm": {"kind": "orm", "steps": 100}, "prm": {"kind": "prm", "steps": 100, "prompts": 16},
         "rm": {"kind": "rm", "steps": 100}}


def step_ends(rollout, task):
    """(B, T) bool: the tokens that complete a reasoning step: `task.step_token`, and the last token of the row."""
    [step] = task.tokenizer.encode(task.step_token)
    last = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device) == rollout.lengths[:, None] - 1
    return rollout.mask & ((rollout.tokens == step) | last)


def rollout_values(model, task, rows, problems, limits, n, temperature=1.0, generator=None):
    """How often does a solution end right if the policy goes on from here? A Monte-Carlo estimate, by the
    rule.

    rows: list of N lists of token ids, prompt and beginning of a solution; problems: one a row; limits:
    list of N, how many tokens a row may still get (0: it is over, and wrong). -> right (N, n) bool, token
    cost (int), Rollout of the n completions of each row that had a budget left, n neighbours a row, and
    which rows these are. In that rollout the completion begins where the prompt ends, so that the rule
    reads all of it; its mask covers what was sampled now.
    """
    open_rows = [i for i, limit in enumerate(limits) if limit > 0]
    right = torch.zeros(len(rows), n, dtype=torch.bool)
    if not open_rows:
        return right, 0, None, []
    each = [i for i in open_rows for _ in range(n)]
    # In batches: all at once, the cache would be their sum.
    batches = [each[k:k + ROLLOUT_BATCH] for k in range(0, len(each), ROLLOUT_BATCH)]
    eos, pad = task.tokenizer.eos, task.tokenizer.pad
    rollout = join([generate(model, [rows[i] for i in batch], [limits[i] for i in batch], temperature, eos=eos, pad=pad,
                             generator=generator) for batch in batches])
    rollout.problems = [problems[i] for i in each]
    token_cost = rollout.sampled_tokens
    # The solution begins where the prompt ends, not where the rollout began.
    starts = [len(task.tokenizer.encode(problem.prompt)) for problem in rollout.problems]
    rollout.prompt_lengths = torch.tensor(starts, device=model.device)
    right[open_rows] = rollout.right(task).view(-1, n).cpu()
    return right, token_cost, rollout, open_rows


def label_steps(model, task, rollout, n, max_new_tokens, temperature=1.0, generator=None):
    """Monte-Carlo labels for every step of a rollout -> ends (B, T) bool, right (steps, n) bool, token
    cost.

    The steps are in the order of `ends.nonzero()`. At the end of a solution nothing is left to chance: the
    label is the rule's.
    """
    ends, verdict = step_ends(rollout, task), rollout.right(task).tolist()
    positions = ends.nonzero().tolist()  # (b, t) of every end
    tokens, starts, lengths = rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), rollout.lengths.tolist()
    over = [t == lengths[b] - 1 for b, t in positions]
    limits = [0 if last else starts[b] + max_new_tokens - (t + 1) for (b, t), last in zip(positions, over)]
    rows, problems = [tokens[b][:t + 1] for b, t in positions], [rollout.problems[b] for b, _ in positions]
    right, token_cost, _, _ = rollout_values(model, task, rows, problems, limits, n, temperature, generator)
    for i, ((b, _), last) in enumerate(zip(positions, over)):
        if last:
            right[i] = verdict[b]
    return ends, right, token_cost


def verifier_loss(kind, scores, ends, labels, chosen=None, rejected=None):
    """The losses of the table above. scores (B, T): the raw head; -> scalar, the mean over what has a
    label.

    orm, prm: ends (B, T) bool, labels (B, T) in [0, 1]. rm: ends marks the last token of each row, chosen
    and rejected (N,) are rows.

    >>> scores, ends = torch.tensor([[5.0, 0.0], [5.0, 0.0]]), torch.tensor([[False, True], [False, True]])
    >>> round(float(verifier_loss("orm", scores, ends, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))), 4)      # undecided: ln 2
    0.6931
    """
    if kind == "rm":
        last = (scores * ends).sum(1)
        return -F.logsigmoid(last[chosen] - last[rejected]).mean()
    # Not scores[ends]: where the ends are would be asked of the device, once a micro-batch.
    return F.binary_cross_entropy_with_logits(scores, labels, weight=ends.float(), reduction="sum") / ends.sum()


def auc(scores, right):
    """The chance that a right solution scores higher than a wrong one, ties counting half: 1 is perfect,
    0.5 is chance.

    scores (N,), right (N,) bool -> float; nan if all are right or all wrong.

    >>> auc(torch.tensor([0.9, 0.4, 0.4]), torch.tensor([True, True, False]))
    0.75
    """
    good, bad = scores[right][:, None], scores[~right][None]
    return float(((good > bad).float() + 0.5 * (good == bad).float()).mean())


def rank_correlation(x, y):
    """Spearman's rho of two (N,) tensors, ties at their mean rank: 1 if they order the same way, 0 if they
    have nothing in common.

    >>> round(rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0, 20.0])), 6)
    0.5
    """
    a, b = ((v[:, None] > v).float().sum(1) + (v[:, None] == v).float().sum(1) / 2 for v in (x, y))
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


class Verifier(Method):
    """The algorithm as train.py sees it: see method.py. The policy that it is given is sampled from and
    never changed; what learns is `reward_model`."""
    Config, saved = VerifierConfig, ("optimizer", "reward_model")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.reward_model = ScalarModel(policy)
        self.optimizer = make_optimizer(self.reward_model, config.lr)
        self.labels = None

    def collect(self, problems):
        c = self.config
        rollout = super().collect(problems)
        if c.kind == "prm":
            limit = self.max_new_tokens
            _, right, rollout.discarded = label_steps(self.policy, self.task, rollout, c.rollouts, limit, c.temperature,
                                                      self.generator)
            self.labels = right.float().mean(1) if c.labels == "soft" else right.any(1).float()
        return rollout

    def update(self, rollout, rewards):
        """--epochs passes over the batch -> metrics. The rule gives the labels; `rewards` ranks the pairs of rm."""
        c, device = self.config, self.policy.device
        right = rollout.right(self.task)
        last = torch.arange(rollout.tokens.shape[1], device=device) == rollout.lengths[:, None] - 1
        ends = step_ends(rollout, self.task) if c.kind == "prm" else last
        labels = torch.zeros(ends.shape, device=device)
        labels[ends] = self.labels.to(device) if c.kind == "prm" else right.float()
        rows, count = torch.arange(len(ends), device=device), int(ends.sum())
        items = torch.stack(pairs(rewards.to(device), c.group_size), 1) if c.kind == "rm" else rows
        final = torch.zeros(len(ends), device=device)  # the raw head at the end of each solution

        def loss(part):
            tokens, e, y, at_end = part.cut(rollout.tokens, ends, labels, last)
            scores = self.reward_model(tokens)  # (n, t)
            first, second = torch.arange(len(tokens), device=device).tensor_split(2)
            if part.epoch == 0:  # before the reward model has seen this batch, if it is one step: an honest look
                final[part.rows] = (scores * at_end).sum(1).detach()
            share = part.share if c.kind == "rm" else part.weights.sum()  # labels here / labels of this optimizer step
            return share * verifier_loss(c.kind, scores, e, y, first, second), {}

        metrics = {"labels": len(items) if c.kind == "rm" else count}
        weigh = None if c.kind == "rm" else lambda rows: ends[rows] / ends[rows].sum()
        metrics |= optimize([Learner(self.optimizer, loss)], items, rollout.mask, c, weigh)
        seen = items.T.flatten() if c.kind == "rm" else rows
        if 0 < int(right[seen].sum()) < len(seen):
            metrics["auc"] = auc(final[seen], right[seen])
        return metrics


# ------------------------------------------------------------------------------------ asking a reward model

@torch.no_grad()
def scores_at(model, rows, positions=None, batch=256):
    """The raw head of a ScalarModel: rows, list of N lists of token ids -> list of N tensors, the scores at
    `positions[i]` (default: the last token). Rows of similar length are read together."""
    positions = positions or [[len(row) - 1] for row in rows]
    found, order = [None] * len(rows), sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for i in range(0, len(order), batch):
        part = order[i:i + batch]
        longest = len(rows[part[0]])
        tokens = torch.tensor([rows[j] + [0] * (longest - len(rows[j])) for j in part], device=model.backbone.device)
        for j, scores in zip(part, model(tokens).cpu()):
            found[j] = scores[positions[j]]
    return found


def judged(kind, row, ended):
    """The tokens of a row, a list, whose score says how good it is: all of them. But a critic has learned what the state before
    each token is worth, and nothing ever taught it what stands behind EOS: of a row that has ended it is asked one token earlier.

    >>> judged("orm", [5, 6, 0], ended=True), judged("ppo", [5, 6, 0], ended=True), judged("ppo", [5, 6], ended=False)
    ([5, 6, 0], [5, 6], [5, 6])
    """
    return row[:-1] if kind == "ppo" and ended else row


@dataclass
class MeasureConfig:
    """measuring a verifier"""
    problems: int = setting(200, "how many test problems", low=1, high=10**6)
    samples: int = setting(8, "solutions of each", low=1, high=10**4)
    seed: int = setting(0, "of the samples", low=0, high=2**31 - 1)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))


def main(argv=None):
    parser = Parser(prog="verifier.py", description="How good is a learned verifier on problems it has never seen?")
    parser.add_argument("run", metavar="RUN", help="a run of --algo orm, prm, rm or ppo (its critic)")
    add_flags(parser, MeasureConfig)
    given = vars(parser.parse_args(argv))
    c = from_flags(MeasureConfig, given)
    device = pick_device(c.device)
    policy, task, trained = checkpoint.load_run(given["run"], device)
    verifier = checkpoint.load_verifier(given["run"], device)
    generator = torch.Generator(device).manual_seed(c.seed)
    limit = trained["max_new_tokens"] or task.max_new_tokens
    config = SamplingConfig(group_size=c.samples, max_new_tokens=limit)
    rollout = collect(policy, task, fixed_problems(task, "test", c.problems), config, generator)
    measure_solutions(verifier, task, rollout, c.samples)
    if hasattr(task, "still_possible"):
        some = torch.randperm(len(rollout.lengths), generator=torch.Generator().manual_seed(c.seed))[:200]
        measure_steps(verifier, policy, task, rollout.select(some.to(device)), limit, generator)


def measure_solutions(verifier, task, rollout, samples):
    """Does it score right solutions above wrong ones? Beside what the solution says of itself."""
    right, texts = rollout.right(task).cpu(), rollout.completions(task.tokenizer)
    rows = [row[:length] for row, length in zip(rollout.tokens.tolist(), rollout.lengths.tolist())]
    print(f"{len(rows) // samples} test problems, {samples} samples each, {float(right.float().mean()):.3f} of them right")
    whole = [judged(verifier.kind, row, ended) for row, ended in zip(rows, rollout.finished.tolist())]
    print(f"AUC over all solutions: verifier {auc(torch.cat(scores_at(verifier, whole)), right):.3f}", end="")
    own = [task.own_verdict(text) for text in texts]
    if None not in own:
        print(f", what the solution says of itself {auc(torch.tensor(own).float(), right):.3f}", end="")
    print(f", whether it ended {auc(rollout.finished.float().cpu(), right):.3f}")
    if verifier.kind == "ppo":
        prompts = [row[:start] for row, start in zip(rows, rollout.prompt_lengths.tolist())][::samples]
        share = right.float().view(-1, samples).mean(1)
        print(f"value before the first token against the share of right samples: rank correlation "
              f"{rank_correlation(torch.cat(scores_at(verifier, prompts)), share):.3f}")


def measure_steps(verifier, policy, task, rollout, limit, generator):
    """The truth about a step, where it can be computed: can this attempt still reach the target?"""
    tokens, starts = rollout.tokens.tolist(), rollout.prompt_lengths.tolist()
    positions = step_ends(rollout, task).nonzero().tolist()
    lengths = rollout.lengths.tolist()
    inside = [i for i, (b, t) in enumerate(positions) if t < lengths[b] - 1]  # at the end nothing is to be foreseen
    if not inside:
        return print("steps inside of solutions: none; this policy does not think in steps")
    begun = [(b, tokens[b][starts[b]:t + 1]) for b, t in (positions[i] for i in inside)]
    truth = torch.tensor([task.still_possible(rollout.problems[b], task.tokenizer.decode(ids)) for b, ids in begun])
    scores = torch.cat(scores_at(verifier, [tokens[b][:starts[b]] + ids for b, ids in begun]))
    print(f"steps inside of solutions: {len(inside)}, the attempt can still succeed in {float(truth.float().mean()):.3f} of "
          f"them; AUC of the verifier {auc(scores, truth):.3f}\n"
          "The truth below answers: can this attempt still reach the target? Math-Shepherd's 85 % answer another "
          "question, whether people call the step correct.")
    for n in (1, 4, 16):
        _, right, token_cost = label_steps(policy, task, rollout, n, limit, generator=generator)
        soft, hard = right.float().mean(1)[inside], right.any(1)[inside]
        agrees = lambda label: float((label == truth).float().mean())
        print(f"Monte-Carlo labels, {n:2} rollouts, {token_cost:7} tokens: hard label agrees with "
              f"\"can still reach the target\" in {agrees(hard):.3f}, soft label above 1/2 in {agrees(soft > 0.5):.3f}, "
              f"AUC of the soft label {auc(soft, truth):.3f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
