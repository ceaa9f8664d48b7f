"""Is this run what it should be? And if not, what to look at first?

    python exercises/check_run.py RUN [RUN ...]              beside the bands of the same job, if there are any
    python exercises/check_run.py --make FILE RUN RUN RUN    writes bands, from runs of several seeds

The bands are made from run folders: for each metric and each phase of a run (the warm start on test, windows of
steps, the trained policy on test) the mean, the lowest and the highest over the seeds. A further seed falls
between the lowest and the highest of n only with probability (n - 1) / (n + 1). So it may lie outside by as much
as the band is wide, with fewer than five seeds by twice as much, and always by SLACK; from a normal distribution
nineteen in twenty then do (`coverage`). Dozens of numbers are compared, so a few outside are no alarm. The
symptoms below the verdict know nothing of the bands: they are what is wrong in any run.

Exit status: 0 as expected, 1 not, 2 cannot be read.
"""
import json
import pathlib
import random
import sys
from types import SimpleNamespace

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from config import InputError, Parser, flag  # noqa: E402

EXPECTED = ROOT / "exercises" / "expected"
WINDOWS = ((1, 5), (6, 20), (21, 60), (61, 120), (121, 200))  # steps of the run, both ends included
# What is compared, and by how much a value may always differ from the band: what 64 problems or 500 leave open.
SLACK = {"accuracy": 0.03, "val_pass@1": 0.08, "pass@1": 0.03, "pass@8": 0.04, "greedy": 0.04, "finished": 0.05,
         "length": 2.0, "attempts": 0.15, "legal share": 0.03, "marks share": 0.02, "hits per attempt": 0.02,
         "entropy": 0.02, "kl": 0.05, "groups_with_variance": 0.05, "grad_norm": 0.03, "explained_variance": 0.1,
         "margin": 0.2, "implicit_accuracy": 0.1}
ENOUGH = 100  # test problems: of fewer the mean says nothing
NOT_COMPARED = ("seed", "out", "init", "fresh", "device", "compile", "baselines", "eval_every", "eval_problems",
                "test_problems", "test_samples", "checkpoint_every", "steps", "token_budget", "micro_batch",
                "sft_micro_batch")


# ---------------------------------------------------------------------------------------------------- reading a run

def read(run):
    """A run folder -> config, lines of metrics.jsonl (without a half-written last one), summary ({}: not there)."""
    run = pathlib.Path(run)
    try:
        config = json.loads((run / "config.json").read_text())
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()]
        summary = json.loads((run / "summary.json").read_text()) if (run / "summary.json").exists() else {}
        algo, task = config["algo"], config["task"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: is not a run folder ({type(error).__name__}); name the folder that --out made")
    if not lines and not summary:
        raise InputError(f"{run}: {algo} on {task}, and no step has been taken yet")
    return config, lines, summary


def shares(values):
    """Counts per completion become shares of the attempts."""
    attempts, values = values.get("attempts"), dict(values)
    for name, share in (("legal", "legal share"), ("correct_marks", "marks share"), ("hits", "hits per attempt")):
        if attempts and values.get(name) is not None:
            values[share] = values[name] / attempts
    return values


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def phases(run):
    """-> {phase: {metric: value}}: what a run was like, phase by phase, as far as it has come."""
    _, lines, summary = read(run)
    found = {}
    enough = summary.get("before", {}).get("problems", 0) >= ENOUGH
    if enough:
        found["warm start (test)"] = shares(summary["before"])
    for first, last in WINDOWS:
        inside = [shares(line) for line in lines if first <= line["step"] <= last]
        if len(inside) == last - first + 1:
            found[f"steps {first} to {last}"] = {name: mean([line.get(name) for line in inside]) for name in SLACK}
    if enough and summary.get("steps") and "after" in summary:
        found[f"after {summary['steps']} steps (test)"] = shares(summary["after"])
    return {phase: {name: values[name] for name in SLACK if values.get(name) is not None}
            for phase, values in found.items()}


# ------------------------------------------------------------------------------------------------------------ bands

def bands(runs):
    """Several seeds of one job -> what is kept as JSON. InputError if they are not seeds of one job."""
    read_in = [read(run) for run in runs]
    configs, seeds = [config for config, _, _ in read_in], sorted({config["seed"] for config, _, _ in read_in})
    apart = [name for name in configs[0]
             if name not in NOT_COMPARED and any(config.get(name) != configs[0][name] for config in configs)]
    if apart:
        raise InputError(f"these runs differ in {flag(apart[0])}: bands are of one job")
    if len(seeds) < len(runs) or len(runs) < 2:
        raise InputError(f"bands need two seeds at least, each once; these are {', '.join(map(str, seeds))}")
    each = [phases(run) for run in runs]
    both = [phase for phase in each[0] if all(phase in other for other in each)]
    band = lambda values: {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}
    rounded = lambda values: {name: float(f"{value:.4g}") for name, value in values.items()}
    return {"algo": configs[0]["algo"], "task": configs[0]["task"], "seeds": seeds,
            "settings": {name: value for name, value in configs[0].items()
                         if name not in (*NOT_COMPARED, "algo", "task")},
            "bands": {phase: {name: rounded(band([run[phase][name] for run in each])) for name in each[0][phase]
                              if all(name in run[phase] for run in each)} for phase in both}}


def outside(value, band, slack, seeds=5):
    """How a value lies to a band: "" (as expected), "low" or "high". With five seeds the band may be left by its own
    width, with fewer by twice that; and always by `slack`.

    >>> [outside(x, {"low": 0.5, "high": 0.6}, 0.02) for x in (0.45, 0.39, 0.71)]
    ['', 'low', 'high']
    """
    room = max((band["high"] - band["low"]) * (1 if seeds >= 5 else 2), slack)
    return "low" if value < band["low"] - room else "high" if value > band["high"] + room else ""


def coverage(n, trials=20000, seed=0):
    """How often a further seed counts as expected beside n others: a normal distribution, by simulation. A float.

    >>> [0.92 < coverage(n) < 0.99 for n in (3, 5)]
    [True, True]
    """
    rng, inside = random.Random(seed), 0
    for _ in range(trials):
        seen = [rng.gauss(0, 1) for _ in range(n)]
        inside += not outside(rng.gauss(0, 1), {"low": min(seen), "high": max(seen)}, 0.0, n)
    return inside / trials


def compare(run, expected):
    """-> list of (phase, metric, value, band, "low" | "high" | "") for all that both know."""
    found = []
    for phase, values in phases(run).items():
        for name, value in values.items():
            band = expected["bands"].get(phase, {}).get(name)
            if band:
                found.append((phase, name, value, band, outside(value, band, SLACK[name], len(expected["seeds"]))))
    return found


# --------------------------------------------------------------------------------------------------------- symptoms

def facts(run):
    """What the symptoms ask about: a namespace of numbers and booleans. nan where a run has no such metric: every
    comparison with it is False, so it is no symptom."""
    config, lines, summary = read(run)
    nan, metrics = float("nan"), [shares(line) for line in lines] or [{}]
    average = lambda name, part: nan if (value := mean([line.get(name) for line in part])) is None else value
    largest = lambda name: max([abs(line[name]) for line in lines if line.get(name) is not None], default=nan)
    before = summary.get("before", {})
    before = before if before.get("problems", 0) >= ENOUGH else {}
    r = SimpleNamespace(steps=len(lines), before=before.get("pass@1", nan), before_finished=before.get("finished", nan),
                        first=SimpleNamespace(), last=SimpleNamespace())
    for name in ("accuracy", "reward", "finished", "length", "entropy", "kl", "groups_with_variance", "legal share"):
        setattr(r.first, name.replace(" ", "_"), average(name, metrics[:5]))
        setattr(r.last, name.replace(" ", "_"), average(name, metrics[-5:]))
    r.best = max([average("accuracy", metrics[i:i + 5]) for i in range(0, len(metrics), 5)])
    r.updates, r.skipped = (lines[-1][name] if lines else nan for name in ("updates", "skipped"))
    r.log_ratio, r.clip, r.loss = map(largest, ("max_log_ratio", "clip_fraction", "loss"))
    r.precise, r.countdown = config.get("dtype", "float32") == "float32", config["task"] == "countdown"
    r.learns_to_write = config["algo"] not in ("orm", "prm", "rm")
    r.one_step = config.get("epochs", 1) * config.get("mini_batches", 1) == 1  # optimizer steps a batch
    r.clips = config.get("clip_high", nan) < 10
    # The loss of plain GRPO is 0 to rounding while the ratio is 1.
    r.zero_loss = (config["algo"] == "grpo" and r.one_step and config.get("top_entropy", 1) == 1
                   and config.get("loss_aggregation", config.get("aggregate")) == "sequence_mean"
                   and not config.get("beta") and not config.get("entropy_bonus"))
    r.zero_or_one = not any(config.get(name) for name in ("step_penalty", "format_weight", "overlong", "length_weight"))
    r.format_weight, G, p = config.get("format_weight", 0.0), config.get("group_size", 8), r.last.accuracy
    r.independent = 1 - p ** G - (1 - p) ** G  # groups with variance, if samples shared nothing but the accuracy
    looks = [line for line in lines if line.get("val_pass@1") is not None]
    r.val = looks[-1]["val_pass@1"] if looks else nan
    r.near_val = average("accuracy", [line for line in lines if looks and 0 <= looks[-1]["step"] - line["step"] < 5])
    return r


# When; what is seen; what may be the cause; where to look. In the order in which to look: is the machinery whole?
# Was the beginning right? Has the policy fallen apart? Is the signal what it should be? Does it learn the right thing?
SYMPTOMS = (
    (lambda r: r.skipped > 0,
     "{r.skipped} optimizer steps were skipped: their gradient was not finite",
     "a rate too high, an exp of padding, a division by an empty mask",
     "--lr, --dtype float32; optimize.py"),
    (lambda r: r.log_ratio > (1e-3 if r.precise else 0.5),
     "max_log_ratio is {r.log_ratio:.3g}: what is trained is not what was sampled",
     "a shift by one, a mask with a token too many, a temperature that one side forgets",
     "sample.score, sample.generate"),
    (lambda r: r.steps and r.updates == 0,
     "updates is 0: no optimizer step was ever taken",
     "all groups have zero variance (accuracy 0 or 1?), or update returns too early",
     "groups_with_variance; GRPO.update"),
    (lambda r: r.before_finished < 0.9,
     "the warm start ends only {r.before_finished:.2f} of its answers by itself",
     "EOS is left out of the loss, or the warm start was short",
     "--sft-steps; the mask in sft.demonstrations"),
    (lambda r: r.countdown and r.before < 0.1,
     "the warm start is right in {r.before:.2f} of its answers; in the default job in 0.23",
     "a short warm start, the prompt in the loss, demonstrations that are false",
     "samples.txt, step 0; --sft-steps; sft.py"),
    (lambda r: r.learns_to_write and r.best < 0.01,
     "fewer than one sample in a hundred was ever right",
     "nothing to compare: a longer warm start, easier problems, larger groups",
     "--sft-steps, --group-size; docs/3-warm-start.md"),
    (lambda r: r.best >= 0.01 and r.last.accuracy < 0.2 * r.best,
     "accuracy has fallen from {r.best:.2f} to {r.last.accuracy:.2f}: collapse",
     "a rate too high, advantages with the wrong sign, old log-probs of other tokens",
     "--lr; docs/failures.md, 1"),
    (lambda r: r.last.kl > 1.5,
     "kl is {r.last.kl:.2f} nats per token",
     "a rate too high, k1 in the loss, many passes without a clip",
     "--lr, --kl-estimator, --epochs; docs/failures.md, 1 and 4"),
    (lambda r: r.updates > 5 and abs(r.last.kl) < 1e-6,
     "kl is 0 after {r.updates} updates",
     "the reference is the policy itself, because a copy was forgotten; or the rate is 0",
     "GRPO.__init__; --lr"),
    (lambda r: r.steps > 9 and r.last.entropy < 0.25 * r.first.entropy,
     "entropy has fallen from {r.first.entropy:.3f} to {r.last.entropy:.3f} nats per token",
     "too few problems, a rate too high, only successes are trained",
     "--train-problems, --lr, --entropy-bonus; docs/failures.md, 2"),
    (lambda r: r.last.groups_with_variance < 0.05,
     "groups_with_variance is {r.last.groups_with_variance:.2f}: nothing is left to learn from",
     "problems all too easy or all too hard, or the same one over and over",
     "docs/failures.md, 2"),
    (lambda r: (r.steps > 9 and r.zero_or_one and 0.05 < r.last.accuracy < 0.95
                and r.last.groups_with_variance > r.independent - 0.02),
     "groups_with_variance is {r.last.groups_with_variance:.2f}, as if the samples of a group shared no problem "
     "({r.independent:.2f})",
     "a group holds samples of several problems",
     "sample.collect: rows of a problem are neighbours"),
    (lambda r: r.one_step and r.clip > 1e-4,
     "clip_fraction reaches {r.clip:.2g} with one optimizer step a batch: there the ratio is 1",
     "old log-probs of another temperature, another model, another token",
     "grpo.actor"),
    (lambda r: not r.one_step and r.clips and r.steps > 9 and r.updates > 9 and r.clip == 0,
     "clip_fraction is 0 throughout, with several optimizer steps a batch",
     "the old log-probs are overwritten, so the ratio is always 1",
     "grpo.actor"),
    (lambda r: r.zero_loss and r.loss > 1e-3,
     "the loss reaches {r.loss:.2g}; here it is 0 to rounding",
     "the advantages of a group do not add up to 0, rows are left out, weights are those of another batch",
     "grpo.group_advantages, grpo.token_weights, GRPO.update"),
    (lambda r: r.format_weight and r.last.accuracy < 0.1 and r.last.reward > 0.8 * r.format_weight,
     "the reward is {r.last.reward:.2f}, the accuracy {r.last.accuracy:.2f}",
     "the shape pays more than the answer",
     "--format-weight; docs/failures.md, 3"),
    (lambda r: r.near_val - r.val > 0.25,
     "accuracy is {r.near_val:.2f} on training problems and {r.val:.2f} on val",
     "the same few problems in every step, learned by heart",
     "--train-problems; Run.draw"),
    (lambda r: r.last.legal_share < r.first.legal_share - 0.25,
     "legal attempts fell from {r.first.legal_share:.2f} to {r.last.legal_share:.2f}",
     "the rule does not read the thinking; in the default job they fall from 0.91 to 0.82",
     "--step-penalty; docs/7-rewards.md"),
    (lambda r: r.learns_to_write and r.last.finished < 0.4,
     "only {r.last.finished:.2f} of the answers end by themselves",
     "answers run into the limit: k1 in the loss, a short --max-new-tokens; in the default job they fall to 0.56",
     "samples.txt; --loss-aggregation; docs/failures.md, 4"),
    (lambda r: r.steps > 39 and r.last.accuracy < r.first.accuracy + 0.05,
     "after {r.steps} steps no better than in the first five",
     "a rate too low, a gradient cut by a detach, advantages of no size",
     "grad_norm; --lr; grpo.policy_loss"),
)


def symptoms(run):
    """What is wrong whatever the job -> list of (what is seen, perhaps why, where to look), the first thing first."""
    r = facts(run)
    return [(seen.format(r=r), cause, where) for when, seen, cause, where in SYMPTOMS if when(r)]


# --------------------------------------------------------------------------------------------------------- the report

def report(run, expected):
    """-> the text about one run, and whether it is as it should be. expected: the bands, or None."""
    config, lines, summary = read(run)
    job, found, far = f"{config['algo']} on {config['task']}", symptoms(run), False
    text = [f"{run}: {job}, seed {config['seed']}, {len(lines)} steps{'' if summary else ', not ended'}"]
    if expected:
        seeds, rows = expected["seeds"], compare(run, expected)
        few = ": fewer than the five that were meant, so the room around them is doubled" if len(seeds) < 5 else ""
        text.append(f"bands of {len(seeds)} seeds ({', '.join(map(str, seeds))}){few}")
        other = [f"{flag(name)} {config[name]} (there {value})" for name, value in expected["settings"].items()
                 if name in config and config[name] != value]
        if other:
            text.append(f"settings that differ from those of the bands, so some values will, too: {', '.join(other)}")
        out = [row for row in rows if row[-1]]
        far = len(out) > max(2, 0.15 * len(rows))
        text.append(f"{len(rows) - len(out)} of {len(rows)} values are as expected{':' if out else '.'}")
        text += [f"  {phase}: {name} {value:.3g} is {side}; {band['mean']:.3g} ({band['low']:.3g} to {band['high']:.3g})"
                 for phase, name, value, band, side in out]
    else:
        text.append(f"there are no bands for {job}; make some from runs of several seeds with --make")
    if found:
        text.append("what to look at, the first thing first:")
    for i, (seen, cause, where) in enumerate(found, 1):
        text += [f"  {i}. {seen}.", f"     perhaps: {cause}.", f"     look at: {where}"]
    if not found and not far:
        text.append("this run is what it should be." if expected else "nothing looks wrong.")
    elif not found:
        text.append("no known symptom. Look at the first phase in which something is outside: what came before was right. "
                    "Another seed tells whether it is chance.")
    return "\n".join(text), not found and not far


def main(argv=None):
    parser = Parser(prog="check_run.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--bands", type=pathlib.Path, metavar="FILE", help="default: exercises/expected/TASK-ALGO.json")
    parser.add_argument("--make", type=pathlib.Path, metavar="FILE", help="write the bands of these runs")
    given = parser.parse_args(argv)
    if given.make:
        made = bands(given.runs)
        given.make.write_text(json.dumps(made, indent=1) + "\n")
        print(f"{given.make}: {made['algo']} on {made['task']}, {len(made['seeds'])} seeds, {', '.join(made['bands'])}")
        return 0
    right = True
    for run in given.runs:
        config, _, _ = read(run)
        path = given.bands or EXPECTED / f"{config['task']}-{config['algo']}.json"
        if given.bands and not path.is_file():
            raise InputError(f"--bands {path}: there is no such file")
        text, fine = report(run, json.loads(path.read_text()) if path.is_file() else None)
        print(text + "\n")
        right &= fine
    return int(not right)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
