"""Evaluation: how often is a sampled answer right, and how often is one of k?

    python evaluate.py runs/grpo-countdown-0 runs/warm-countdown-1234abcd --k 1,8,64

Greedy accuracy takes the most likely token each time. pass@k asks whether at least one of k samples is
right; from n >= k samples of a problem of which c are right, its unbiased estimate (arXiv:2107.03374,
equation 1) is

    pass@k = 1 - C(n - c, k) / C(n, k)           the chance that k of the n, drawn without replacement, are not all wrong

"Is any of the first k right" would be unbiased too, but throws away n - k samples; "1 - (1 - c/n)^k" is
biased.

The problems and the random numbers are the evaluation's own: the same problems for every run, and a run
that is evaluated often continues exactly like one that is never looked at. Tuning looks at `val`;
`test` is for the final table.

Source of the figure that matters most, pass@1 before and after beside pass@k at large k: arXiv:2504.13837.
"""
import random
import re
import sys
from dataclasses import dataclass
from math import comb

import torch
from tqdm import tqdm

import checkpoint
from config import InputError, Parser, add_flags, from_flags, setting
from sample import SamplingConfig, collect


def pass_at_k(n, c, k):
    """The unbiased estimate of pass@k from n samples of which c are right. Raises ValueError unless 0
    <= c <= n, 1 <= k <= n.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 0, 4)
    (0.25, 0.5, 0.0)
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def fixed_problems(task, split, count, rng=None):
    """The `count` problems that every evaluation on `split` looks at: different ones, in the order in
    which they are drawn.

    Fewer if the split has fewer; that is, if 10,000 draws in a row have brought nothing new. rng: a
    random.Random of the caller's, for other problems than those.
    """
    rng, found, in_vain = rng or random.Random(f"evaluation {split}"), {}, 0
    while len(found) < count and in_vain < 10_000:
        problem = task.sample_problem(rng, split)
        in_vain = in_vain + 1 if problem.key in found else 0
        found.setdefault(problem.key, problem)
    return list(found.values())


def wilson(share, n):
    """The 95 % interval of a share of n independent trials -> [low, high], never of width 0. Source:
    Wilson 1927.

    >>> [round(x, 3) for x in wilson(0.5, 100) + wilson(1.0, 100)]
    [0.404, 0.596, 0.963, 1.0]
    """
    z = 1.96
    centre, spread = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))]


def mean_interval(mean, se, n):
    """The same for the mean of n numbers between 0 and 1 with standard error `se`: they are worth mean (1 - mean) / se^2 trials."""
    return wilson(mean, max(n, mean * (1 - mean) / se ** 2) if se > 0 else n)


def progress(items, title):
    """tqdm where somebody is looking, silent in a file or a pipe."""
    return tqdm(items, desc=title, disable=None, leave=False, dynamic_ncols=True)


def sample_and_judge(model, task, problems, n, max_new_tokens=0, temperature=1.0, seed=0, batch=512):
    """n samples of each problem -> list of one dict a sample: right, length, finished, and what `task.describe` says."""
    generator = torch.Generator(model.device).manual_seed(seed)
    config = SamplingConfig(group_size=1, temperature=temperature, max_new_tokens=max_new_tokens)
    rows, judged = [problem for problem in problems for _ in range(n)], []
    for i in progress(range(0, len(rows), batch), "evaluation"):
        rollout = collect(model, task, rows[i:i + batch], config, generator)
        lengths = (rollout.lengths - rollout.prompt_lengths).tolist()
        for problem, text, length, done in zip(rollout.problems, rollout.completions(task.tokenizer), lengths,
                                               rollout.finished.tolist()):
            judged.append({"right": done and task.verify(problem, text), "length": length, "finished": done,
                           **task.describe(problem, text)})
    return judged


def evaluate(model, task, problems, n=16, k=(1, 8), max_new_tokens=0, temperature=1.0, seed=0):
    """Sample n completions of each problem, and one greedily -> dict.

    problems (how many), greedy, pass@k for each k <= n, their standard errors over the problems
    (`pass@1_se`), length (mean tokens sampled, EOS included), finished (share), and the mean of
    whatever `task.describe` reports (attempts, ...). Where it reports `chain`: right_with_chain and
    right_without, the accuracy of the answers with a chain of thought and of those without.
    """
    judged = sample_and_judge(model, task, problems, n, max_new_tokens, temperature, seed)
    greedy = sample_and_judge(model, task, problems, 1, max_new_tokens, 0.0, seed)
    mean = lambda values: sum(values) / len(values)
    result = {"problems": len(problems), "greedy": mean([j["right"] for j in greedy])}
    right = [sum(j["right"] for j in judged[i:i + n]) for i in range(0, len(judged), n)]  # c of each problem
    for each in k:
        if each <= n:
            values = [pass_at_k(n, c, each) for c in right]
            average = mean(values)
            result[f"pass@{each}"] = average
            result[f"pass@{each}_se"] = (mean([(v - average) ** 2 for v in values]) / len(values)) ** 0.5
    for name in judged[0]:
        if name != "right":
            result[name] = mean([j[name] for j in judged])
    return result | by_chain(judged)


def by_chain(judged):
    """Does thinking pay? The accuracy of the answers with a chain of thought and of those without, as
    far as there are any.

    >>> by_chain([{"right": True, "chain": 1.0}, {"right": False, "chain": 0.0}, {"right": True, "chain": 0.0}])
    {'right_with_chain': 1.0, 'right_without': 0.5}
    """
    kinds = {name: [j["right"] for j in judged if j.get("chain") == chain]
             for name, chain in (("right_with_chain", 1.0), ("right_without", 0.0))}
    return {name: sum(right) / len(right) for name, right in kinds.items() if right}


@dataclass
class EvaluateConfig:
    """evaluation"""
    k: str = setting("1,8", "which pass@k, whole numbers with commas between them")
    problems: int = setting(500, "how many", low=1, high=10**7)
    samples: int = setting(0, "per problem; 0: the largest k, at least 16", low=0, high=10**6)
    split: str = setting("test", "which problems; tune on val, never on test", choices=("train", "val", "test"))
    temperature: float = setting(1.0, "sampling temperature", low=0.01, high=10.0)
    seed: int = setting(0, "of the samples; the problems are always the same", low=0, high=2**31 - 1)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))


def main(argv=None):
    parser = Parser(prog="evaluate.py", description="pass@k of one or more runs on the same problems.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders or checkpoint files")
    add_flags(parser, EvaluateConfig, {"temperature": "that of the run"})
    given = vars(parser.parse_args(argv))
    config = from_flags(EvaluateConfig, given)
    if not re.fullmatch(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", config.k):
        raise InputError(f"--k {config.k}: must be whole numbers from 1 with commas between them, like 1,8,64")
    ks = sorted({int(k) for k in config.k.split(",")})
    n = config.samples or max(16, ks[-1])
    if n < ks[-1]:
        raise InputError(f"--k {config.k}: no k can be larger than --samples {n}")
    loaded = [checkpoint.load_run(run, pick_device(config.device)) for run in given["runs"]]  # all, before the work begins
    print(f"{config.split} problems, {n} samples each; in brackets a 95 % interval over the problems")
    for run, (model, task, trained) in zip(given["runs"], loaded):
        problems = fixed_problems(task, config.split, config.problems)
        temperature = config.temperature if "temperature" in given else trained.get("temperature", 1.0)
        result = evaluate(model, task, problems, n, ks, trained.get("max_new_tokens", 0), temperature, config.seed)
        with_interval = lambda name, low, high: f"{name} {result[name]:.3f} [{low:.3f}, {high:.3f}]"
        shown = [with_interval("greedy", *wilson(result["greedy"], len(problems)))]
        shown += [with_interval(f"pass@{k}", *mean_interval(result[f"pass@{k}"], result[f"pass@{k}_se"], len(problems))) for k in ks]
        rest = [f"{name} {value:.2f}" for name, value in result.items() if "pass@" not in name and name not in ("greedy", "problems")]
        few = "" if len(problems) == config.problems else ": there are no more that differ"
        print(f"\n{run}  ({task.name}, {len(problems)} problems{few}, temperature {temperature:g})\n  {'  '.join(shown)}\n  {'  '.join(rest)}", flush=True)


def pick_device(name):
    """"auto" -> "cuda" if there is one, else "cpu". InputError if the named device is not here."""
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":  # a model this small runs faster on a Mac's CPU than through mps: that has to be asked for
        return "cuda" if here["cuda"] else "cpu"
    if not here[name]:
        raise InputError(f"--device {name}: torch sees no such device here; use --device auto")
    return name


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
