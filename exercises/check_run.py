"""Is this run what it should be? And if not, what to look at first?

    python exercises/check_run.py RUN [RUN ...]                                     beside the bands of the same job
    python exercises/check_run.py --make exercises/expected/countdown-grpo.json RUN RUN RUN      bands, from runs of several seeds

The bands are made from run folders: for each metric and each phase of a run (the warm start on test, windows of steps, the trained
policy on test) the mean, the lowest and the highest over the seeds. A further seed falls between the lowest and the highest of n
only with probability (n - 1) / (n + 1). So it may lie outside by as much as the band is wide, with fewer than five seeds by twice as
much, and always by SLACK; from a normal distribution nineteen in twenty then do (`coverage`). Dozens of numbers are compared, so a few
outside are no alarm. The symptoms below the verdict know nothing of the bands: they are what is wrong in any run.

Exit status: 0 as expected, 1 not, 2 cannot be read.
"""
import json
import math
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from config import InputError, Parser, flag  # noqa: E402

EXPECTED = ROOT / "exercises" / "expected"
WINDOWS = ((1, 5), (6, 20), (21, 60), (61, 120), (121, 200))  # steps of the run, both ends included
# What is compared, and by how much a value may always differ from the band: what 64 problems or 500 leave open.
SLACK = {"accuracy": 0.03, "val_pass@1": 0.08, "pass@1": 0.03, "pass@8": 0.04, "greedy": 0.04, "finished": 0.05, "length": 2.0,
         "attempts": 0.15, "legal share": 0.03, "marks share": 0.02, "hits per attempt": 0.02, "entropy": 0.02, "kl": 0.05,
         "groups_with_variance": 0.05, "grad_norm": 0.03, "explained_variance": 0.1, "margin": 0.2, "implicit_accuracy": 0.1}
NOT_COMPARED = ("seed", "out", "init", "fresh", "device", "compile", "baselines", "eval_every", "eval_problems", "test_problems",
                "test_samples", "checkpoint_every", "steps", "token_budget", "micro_batch", "sft_micro_batch")


# ---------------------------------------------------------------------------------------------------- reading a run

def read(run):
    """A run folder -> config, lines of metrics.jsonl (a half-written last one left out), summary ({}: not there yet)."""
    run = pathlib.Path(run)
    try:
        config = json.loads((run / "config.json").read_text())
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()]
        summary = json.loads((run / "summary.json").read_text()) if (run / "summary.json").exists() else {}
        algo, task = config["algo"], config["task"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: is not a run folder ({type(error).__name__}); name the folder that --out or runs/ALGO-TASK-SEED made")
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
    if summary.get("before"):
        found["warm start (test)"] = shares(summary["before"])
    for first, last in WINDOWS:
        inside = [shares(line) for line in lines if first <= line["step"] <= last]
        if len(inside) == last - first + 1:
            found[f"steps {first} to {last}"] = {name: mean([line.get(name) for line in inside]) for name in SLACK}
    if summary.get("steps") and "after" in summary:
        found[f"after {summary['steps']} steps (test)"] = shares(summary["after"])
    return {phase: {name: values[name] for name in SLACK if values.get(name) is not None} for phase, values in found.items()}


# ------------------------------------------------------------------------------------------------------------ bands

def bands(runs):
    """Several seeds of one job -> what is kept as JSON. InputError if they are not seeds of one job."""
    read_in = [read(run) for run in runs]
    configs, seeds = [config for config, _, _ in read_in], sorted({config["seed"] for config, _, _ in read_in})
    apart = [name for name in configs[0] if name not in NOT_COMPARED and any(c.get(name) != configs[0][name] for c in configs)]
    if apart:
        raise InputError(f"these runs differ in {flag(apart[0])}: bands are of one job")
    if len(seeds) < len(runs) or len(runs) < 2:
        raise InputError(f"bands need two seeds at least, each once; these are {', '.join(map(str, seeds))}")
    each = [phases(run) for run in runs]
    both = [phase for phase in each[0] if all(phase in other for other in each)]
    band = lambda values: {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}
    rounded = lambda values: {name: float(f"{value:.4g}") for name, value in values.items()}
    return {"algo": configs[0]["algo"], "task": configs[0]["task"], "seeds": seeds,
            "settings": {name: value for name, value in configs[0].items() if name not in (*NOT_COMPARED, "algo", "task")},
            "bands": {phase: {name: rounded(band([run[phase][name] for run in each])) for name in each[0][phase]
                              if all(name in run[phase] for run in each)} for phase in both}}


def outside(value, band, slack, seeds=5):
    """How a value lies to a band: "" (as expected), "low" or "high". With five seeds the band may be left by its own width, with
    fewer by twice that; and always by `slack`.

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

def symptoms(run):
    """What is wrong whatever the job: list of (what is seen, likely causes, where to look), the first to be looked at first."""
    config, lines, summary = read(run)
    found, seen = [], lambda *what: found.append(what)
    get = lambda name, part: mean([shares(line).get(name) for line in part])
    early, late = lines[:5], lines[-5:]
    before, one_step = summary.get("before", {}), config.get("epochs", 1) * config.get("mini_batches", 1) == 1
    aggregate = config.get("loss_aggregation", config.get("aggregate"))
    limit = max([line.get("length") or 0 for line in lines] + [0])
    number = lambda value: "–" if value is None else f"{value:.3g}"

    # 1. Is the machinery whole? Nothing below means anything if it is not.
    if lines and lines[-1]["skipped"]:
        seen(f"{lines[-1]['skipped']} optimizer steps were skipped: their gradient was not finite",
             "a rate too high, an exp without masked_fill, a division by an empty mask", "optimize.py; --lr, --dtype float32")
    worst = max([line.get("max_log_ratio") or 0.0 for line in lines] + [0.0])
    if worst > (1e-3 if config.get("dtype", "float32") == "float32" else 0.5):
        seen(f"max_log_ratio is {number(worst)}: what is trained is not what was sampled",
             "a shift by one, a mask with a token too many, a temperature that one side forgets", "sample.score, sample.generate")
    if lines and not lines[-1]["updates"]:
        seen("updates is 0: no optimizer step was ever taken",
             "all groups have zero variance (accuracy 0 or 1?), or update returns before `optimize`", "GRPO.update, groups_with_variance")

    # 2. Was the beginning right? Reinforcement learning sharpens what is there.
    if before and before["finished"] < 0.9:
        seen(f"the warm start ends {number(before['finished'])} of its answers by itself", "EOS is left out of the loss, or the warm start was "
             "short", "sft.demonstrations (the mask), --sft-steps")
    if before and before["pass@1"] < 0.1 and config["task"] == "countdown":
        seen(f"the warm start is right in {number(before['pass@1'])} of its answers (default job: 0.22)",
             "a short warm start; the prompt in the loss; demonstrations that are false", "samples.txt, step 0; sft.py; --sft-steps")

    # 3. Has the policy fallen apart?
    if lines and config["algo"] not in ("orm", "prm", "rm"):
        accuracy, best = get("accuracy", late), max(get("accuracy", lines[i:i + 5]) for i in range(0, len(lines), 5))
        kl, entropy, first_entropy = get("kl", late), get("entropy", late), get("entropy", early)
        if best < 0.01:
            seen("fewer than one sample in a hundred was ever right", "nothing to compare: a longer warm start, easier problems, larger groups",
                 "docs/3-warm-start.md, --sft-steps, --group-size")
        elif accuracy < 0.2 * best:
            seen(f"accuracy has fallen from {number(best)} to {number(accuracy)}: collapse", "a rate too high; advantages with the wrong sign; an "
                 "old log-prob of the wrong token", "docs/failures.md, 1; --lr")
        if kl is not None and kl > 1.5:
            seen(f"kl is {number(kl)} nats per token", "a rate too high; k1 in the loss; several passes without a clip",
                 "docs/failures.md, 1 and 4; --lr, --kl-estimator, --epochs")
        if kl is not None and abs(kl) < 1e-6 and lines[-1]["updates"] > 5 and len(lines) > 5:
            seen("kl is 0 after many updates", "the reference is the policy itself (a copy was forgotten), or --lr 0", "GRPO.__init__: deepcopy")
        if len(lines) > 9 and entropy < 0.25 * first_entropy:
            seen(f"entropy has fallen from {number(first_entropy)} to {number(entropy)} nats per token", "too few problems; only successes are "
                 "trained; a rate too high", "docs/failures.md, 2; --train-problems, --entropy-bonus")

        # 4. Is the signal what it should be?
        groups, p, G = get("groups_with_variance", late), get("accuracy", late), config.get("group_size", 8)
        if groups is not None and groups < 0.05:
            seen(f"groups_with_variance is {number(groups)}: nothing left to learn from", "problems all too easy or all too hard; one problem over "
                 "and over", "docs/failures.md, 2")
        only_outcomes = not (config.get("step_penalty") or config.get("format_weight") or config.get("overlong") or config.get("length_weight"))
        if groups is not None and only_outcomes and len(lines) > 9:
            independent = 1 - p ** G - (1 - p) ** G
            if groups > independent - 0.02 and 0.05 < p < 0.95:
                seen(f"groups_with_variance is {number(groups)}, as for samples that have nothing but the accuracy in common "
                     f"({number(independent)})", "groups hold samples of different problems", "sample.collect: rows of a problem are neighbours")
        clip = max([line.get("clip_fraction") or 0.0 for line in lines])
        if one_step and clip > 1e-4:
            seen(f"clip_fraction reaches {number(clip)} with one optimizer step a batch: the ratio should be 1",
                 "old log-probs of another temperature, another model, another token", "grpo.actor")
        if config.get("clip_high", 1e6) < 10 and not one_step and len(lines) > 9 and clip == 0 and lines[-1]["updates"]:
            seen("clip_fraction is 0 throughout, with several optimizer steps a batch", "the old log-probs are overwritten, so the ratio is always "
                 "1", "grpo.actor")
        losses = [abs(line["loss"]) for line in lines if line.get("loss") is not None]
        if config["algo"] == "grpo" and aggregate == "sequence_mean" and one_step and losses and max(losses) > 1e-3 and not (
                config.get("beta") or config.get("entropy_bonus") or config.get("top_entropy", 1) < 1):
            seen(f"the loss reaches {number(max(losses))}; with sequence_mean and one optimizer step it is 0 to rounding",
                 "advantages of a group do not add up to 0, rows are left out, or weights are those of another batch",
                 "grpo.group_advantages, grpo.token_weights, GRPO.update")

        # 5. Is it learning the right thing?
        reward = get("reward", late)
        if config.get("format_weight") and reward > 0.8 * config["format_weight"] and p < 0.1:
            seen(f"reward {number(reward)}, accuracy {number(p)}", "the shape pays more than the answer", "docs/failures.md, 3; --format-weight")
        looks = [line for line in lines if "val_pass@1" in line]
        if looks and len(lines) > 9:
            near = get("accuracy", lines[max(0, looks[-1]["step"] - 5):looks[-1]["step"]])
            if near - looks[-1]["val_pass@1"] > 0.25:
                seen(f"accuracy {number(near)} on training problems, {number(looks[-1]['val_pass@1'])} on val", "the same few problems in every step: "
                     "learned by heart", "Run.draw, --train-problems")
        legal, first_legal = get("legal share", late), get("legal share", early)
        if legal is not None and legal < first_legal - 0.2:
            seen(f"legal attempts fell from {number(first_legal)} to {number(legal)}", "the rule does not read the thinking; some loss is normal (0.91 "
                 "to 0.82 in 200 steps)", "docs/7-rewards.md; --step-penalty")
        finished = get("finished", late)
        if finished < 0.4:
            seen(f"only {number(finished)} of the answers end by themselves (mean length up to {number(limit)})", "answers run into the limit: k1 in "
                 "the loss, advantages that favour length, a short --max-new-tokens; down to 0.6 is normal", "docs/failures.md, 4; --loss-aggregation")
        if len(lines) > 39 and before and accuracy < before["pass@1"] + 0.05 and best < before["pass@1"] + 0.1:
            seen("40 steps, and no better than the warm start", "a rate too low; a gradient cut by a detach; advantages all 0",
                 "grad_norm, --lr; grpo.policy_loss")
    return found


# --------------------------------------------------------------------------------------------------------- the report

def report(run, expected):
    """-> the text about one run, and whether it is as it should be. expected: the bands, or None."""
    config, lines, summary = read(run)
    text = [f"{run}: {config['algo']} on {config['task']}, seed {config['seed']}, {len(lines)} steps" + ("" if summary else ", not ended")]
    found, bad = symptoms(run), 0
    if expected:
        seeds = expected["seeds"]
        other = [f"{flag(name)} {config[name]} (there {value})" for name, value in expected["settings"].items()
                 if name in config and config[name] != value]
        rows = compare(run, expected)
        text.append(f"bands of {len(seeds)} seeds ({', '.join(map(str, seeds))})"
                    + (": fewer than the five that were meant, so the room around them is doubled" if len(seeds) < 5 else ""))
        if other:
            text.append("settings that differ from those of the bands, so some values will, too: " + ", ".join(other))
        out = [row for row in rows if row[-1]]
        bad = len(out) > max(2, math.ceil(0.15 * len(rows)))
        text.append(f"{len(rows) - len(out)} of {len(rows)} values are as expected" + (":" if out else "."))
        text += [f"  {phase}: {name} {value:.3g} is {side}; {band['mean']:.3g} ({band['low']:.3g} to {band['high']:.3g})"
                 for phase, name, value, band, side in out]
    else:
        text.append(f"there are no bands for {config['algo']} on {config['task']}; make some from runs of several seeds with --make")
    if found:
        text.append("what to look at, the first thing first:")
        text += [f"  {i}. {what}.\n     perhaps: {cause}.\n     look at: {where}" for i, (what, cause, where) in enumerate(found, 1)]
    fine = not found and not bad
    if fine:
        text.append("this run is what it should be." if expected else "nothing looks wrong.")
    elif not found:
        text.append("no known symptom. Look at the first phase in which something is outside: what came before was right. Another seed tells "
                    "whether it is chance.")
    return "\n".join(text), fine


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
