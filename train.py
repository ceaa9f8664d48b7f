"""Train a small GPT to reason: warm start, reinforcement learning, evaluation.

    python train.py --algo grpo --task countdown          minutes on 2 CPU cores
    python train.py --algo sft --task countdown           the warm start alone
    python train.py --resume runs/grpo-countdown-0        go on after a stop, exactly where the last checkpoint was
    python train.py --algo grpo --task countdown --help   every setting

The recipe:
  1. warm start: imitate demonstrations (sft.py); cached under runs/, so that the next algorithm starts at once;
  2. measure the test split, before;
  3. the loop: draw problems, have samples collected, reward them by rule, let the algorithm update;
  4. measure the test split, after, beside three baselines: random search, the demonstrations themselves, continued SFT.

This file is the loop. Its `run` (plumbing/run.py) holds the pieces: `policy`, `task`, `method` (the
algorithm; None: the warm start alone), `loop` (the settings of `Config` there), counters, and the files
of the run's folder. What an algorithm is: method.py. The command line, and what is checked before the
work begins: plumbing/start.py. The folder that a run leaves: plumbing/run.py. Settings that are not
given are those of the algorithm's row (grpo.TABLE), then those of the task, then the general defaults.
"""
import json
import math
import random
import signal
import sys
import time

from tqdm import tqdm

from config import InputError
from evaluate import by_chain, evaluate, fixed_problems
from plumbing.report import duration, report
from plumbing.rollouts import logged
from plumbing.run import new_model
from plumbing.start import start
from plumbing.track import Tracker
from plumbing.warm_starts import init_from
from sample import largest_log_ratio
from sft import warm_start

BAD_STEPS = 5  # so many steps in a row without a finite gradient, and the run stops


def main(argv=None):
    """A whole run -> its summary, or None if it was stopped (and saved)."""
    run = start(argv)  # the warm start, or the last checkpoint
    if run.before is None:
        run.before = look(run, "test")
        run.write_samples()
        run.save()
    print(f"\nwhat the warm start writes:\n{''.join(run.pages(0)).partition(chr(10))[2]}")

    def stop(*_):  # Ctrl-C: finish the step, save, say how to go on; a second Ctrl-C ends at once
        run.stop_asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        completed = run.method is None or train(run)
    finally:
        signal.signal(signal.SIGINT, previous)
    if not completed:
        print(f"stopped and saved after step {run.step}; go on with: python train.py --resume {run.folder}")
        return None
    run.save()
    if run.step:
        print(f"\nwhat the policy writes after step {run.step}:\n{run.write_samples().partition(chr(10))[2]}")
    summary = finish(run)
    print(report(summary))
    run.draw_curves()
    print(f"everything is in {run.folder}; pass@k at other k: python evaluate.py {run.folder} --k 1,8,64")
    return summary


# --------------------------------------------------------------------------------------------------------- the loop

def train(run):
    """Steps until --steps or --token-budget is reached. -> False if it was interrupted (and saved)."""
    loop, watch, track, first = run.loop, Watch(run), Tracker(run.loop.track, run), run.step
    bar = tqdm(total=loop.steps, initial=run.step, desc=run.algo, unit="step", dynamic_ncols=True)
    while run.step < loop.steps and not 0 < loop.token_budget <= run.tokens:
        line = step(run)
        watch(line)
        if loop.eval_every and run.step % loop.eval_every == 0:
            result = look(run, "val")
            line |= {f"val_{name}": value for name, value in result.items() if not name.endswith("_se")}
            line["val_random_search"] = random_search(run, "val", result, searches=16)
            run.write_samples()
        run.append("metrics.jsonl", json.dumps(line) + "\n")
        track(line)
        bar.update()
        bar.set_postfix(accuracy=f"{line['accuracy']:.2f}", length=f"{line['length']:.0f}", entropy=f"{line['entropy']:.2f}")
        if run.step == first + 3:
            tqdm.write(f"about {duration(seconds_left(run, line['seconds']))} left; "
                       f"{line['tokens_per_second']:,.0f} tokens/s in sampling and training together")
        if run.step % loop.checkpoint_every == 0 or run.stop_asked:
            run.save()
        if run.stop_asked:
            break
    bar.close()
    track.finish()
    return not run.stop_asked


def step(run):
    """One step of the run -> its line in metrics.jsonl."""
    started, method = time.time(), run.method
    run.set_rates()                                            # --lr-schedule
    rollout = method.collect(run.draw(method.config.prompts))  # the policy writes
    rewards, accuracy = run.reward(rollout)                    # the rule reads
    run.remember(rollout.problems, accuracy)                   # --curriculum
    if run.step == 0:
        started += check_log_probs(run, rollout)
    with logged(run, rollout, rewards, accuracy):              # and rollouts.jsonl keeps some of it
        metrics = method.update(rollout, rewards)              # the policy learns
    return count(run, rollout, metrics, time.time() - started) | describe(run.task, rollout, rewards, accuracy)


def count(run, rollout, metrics, seconds):
    """Add a step to the counters of the run -> the metrics, with the counters."""
    if not isinstance(metrics, dict) or "updates" not in metrics:
        raise InputError(f"--algo {run.algo}: update must return a dict of numbers with `updates`, the optimizer steps it took")
    sampled, metrics = rollout.sampled_tokens + rollout.discarded, dict(metrics)
    run.step += 1
    run.tokens += sampled
    run.updates += metrics.pop("updates")
    run.skipped += metrics.pop("skipped", int(not all(math.isfinite(value) for value in metrics.values())))
    run.seconds["rl"] += seconds
    return {"step": run.step, **{name: value if math.isfinite(value) else None for name, value in metrics.items()},  # JSON has no nan
            "updates": run.updates, "skipped": run.skipped, "tokens": run.tokens, "tokens_per_second": sampled / seconds,
            "seconds": seconds}


def describe(task, rollout, rewards, accuracy):
    """What was written, and how it was judged -> dict of means over the completions."""
    texts = rollout.completions(task.tokenizer)
    described = [task.describe(problem, text) for problem, text in zip(rollout.problems, texts)]
    judged = [{"right": right, **d} for right, d in zip(accuracy.tolist(), described)]
    return {"reward": float(rewards.mean()), "accuracy": float(accuracy.mean()),
            "finished": float(rollout.finished.float().mean()), "length": rollout.sampled_tokens / len(texts),
            **{name: sum(d[name] for d in described) / len(described) for name in described[0]}, **by_chain(judged),
            # -log pi of what was sampled is an unbiased estimate of the policy's entropy, and costs nothing.
            "entropy": float(-rollout.logprobs.sum() / rollout.mask.sum())}


# ----------------------------------------------------------------------------------------------- measures and watches

def look(run, split):
    """Measure the policy on val, during the run, or on test, before and after -> dict, see evaluate.py."""
    started, loop = time.time(), run.loop
    problems, n = (loop.test_problems, loop.test_samples) if split == "test" else (loop.eval_problems, 8)
    result = evaluate(run.policy, run.task, fixed_problems(run.task, split, problems), n, (1, 8), run.max_new_tokens, run.temperature)
    run.seconds["evaluation"] += time.time() - started
    return result


def random_search(run, split, result, searches=64):
    """The baseline of all thinking: random legal search with as many attempts as the policy makes, on the same problems."""
    problems = fixed_problems(run.task, split, run.loop.test_problems if split == "test" else run.loop.eval_problems)
    attempts = max(1.0, result.get("attempts", 0))  # an answer without any thinking is an attempt too
    return run.task.random_search(problems, attempts, searches=searches)


def check_log_probs(run, rollout):
    """Is what was sampled what will be trained? Said once, before the first update -> the seconds it took."""
    started = time.time()
    worst = largest_log_ratio(run.method.behavior, rollout, run.method.config.temperature)
    tqdm.write(f"stored against recomputed log-probs before the first update: largest difference {worst:.1e}")
    low = "bfloat16" in (run.loop.dtype, getattr(run.method.config, "sampler_dtype", ""))
    if not worst < (0.5 if low else 1e-3):  # also if it is nan
        tqdm.write("warning: what is sampled is not what is trained; the model, or the sampling loop, is broken")
    return time.time() - started


def seconds_left(run, step_seconds):
    """A guess: the steps, the looks at val and the last look at test, all at the pace seen so far."""
    loop, left = run.loop, run.loop.steps - run.step
    if loop.token_budget:
        left = min(left, -(-(loop.token_budget - run.tokens) * run.step // run.tokens))
    pace = run.seconds["evaluation"] / (loop.test_problems * (loop.test_samples + 1))  # "before" is done
    looks = left // loop.eval_every * loop.eval_problems * 9 if loop.eval_every else 0
    return left * step_seconds * (2 if loop.baselines else 1) + pace * looks + run.seconds["evaluation"]


class Watch:
    """Says in one line when a run goes wrong, once for each way; ends it when gradients stay broken."""

    def __init__(self, run):
        self.run, self.bad, self.skipped, self.warned = run, 0, run.skipped, set()
        self.history = [json.loads(line) for line in run.read("metrics.jsonl").splitlines()]

    def __call__(self, line):
        self.bad = self.bad + 1 if line["skipped"] > self.skipped else 0
        self.skipped = line["skipped"]
        if self.bad == BAD_STEPS:
            raise InputError(f"the gradients of {self.bad} steps in a row were not finite, up to step {line['step']}: try a lower --lr, "
                             f"a lower --max-grad-norm or --dtype float32; the last checkpoint is in {self.run.folder}")
        self.history.append(line)
        for warning in set(collapse(self.history)) - self.warned:
            tqdm.write(f"step {line['step']}: {warning}")
            self.warned.add(warning)


def collapse(history, width=5):
    """Has the policy fallen apart, or never known anything? Lines of metrics, one a step -> list of
    warnings. Means over `width` steps are compared.

    >>> collapse([{"accuracy": 0.3, "reward": 0.3, "entropy": 0.2}] * 5 + [{"accuracy": 0.0, "reward": 0.0, "entropy": 0.2}] * 5)
    ['the reward has fallen to less than a fifth of what it was: the policy has collapsed; go back, and lower --lr']
    """
    if len(history) < 2 * width:
        return []
    mean = lambda name, lines: sum(line[name] for line in lines) / width
    early, late, warnings = history[:width], history[-width:], []
    best = lambda name: max(mean(name, history[i:i + width]) for i in range(0, len(history) - width + 1, width))
    if best("accuracy") < 0.01:
        warnings.append("fewer than one sample in a hundred has ever been right, so there is hardly anything to compare: a longer warm "
                        "start (--sft-steps), a larger --group-size or easier problems")
    elif mean("reward", late) < 0.2 * best("reward") and best("reward") > 0:
        warnings.append("the reward has fallen to less than a fifth of what it was: the policy has collapsed; go back, and "
                        "lower --lr")
    if mean("entropy", late) < 0.05 * mean("entropy", early) and mean("accuracy", late) < 0.9:
        warnings.append("the entropy is gone: all samples of a problem are alike, and nothing can be learned from them; "
                        "lower --lr, or add --entropy-bonus")
    return warnings


# ---------------------------------------------------------------------------------------------------------- the end

def finish(run):
    """Measure the test split again, put the baselines beside it -> the summary, also in summary.json."""
    loop, after = run.loop, look(run, "test") if run.step else run.before
    problems, rng = fixed_problems(run.task, "test", loop.test_problems), random.Random("demonstrations")
    right = [run.task.verify(p, run.task.demonstration(p, rng)) for p in problems for _ in range(8)]
    baselines = {"random_search": random_search(run, "test", after), "demonstrations": sum(right) / len(right), "continued_sft": None}
    summary = {"before": run.before, "after": after, "baselines": baselines,
               "seconds": run.seconds | {"total": sum(run.seconds.values())},
               "steps": run.step, "tokens": run.tokens, "updates": run.updates, "warm_start": run.warm_start}
    run.write("summary.json", json.dumps(summary, indent=2) + "\n")  # before the slow baseline, so that nothing can be lost
    if loop.baselines and run.step:
        baselines["continued_sft"] = continued_sft(run)["pass@1"]
        run.write("summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def continued_sft(run):
    """The baseline of all reinforcement learning: imitation, for as many seconds more as RL took -> dict, see evaluate.py."""
    model, loop = new_model(run.task, run.loop, run.policy.config.block_size, run.device), run.loop
    init_from(run.warm_start, model, run.task)
    print(f"baseline: {run.seconds['rl']:.0f} s more of imitation", flush=True)
    warm_start(model, run.task, run.configs["sft"], f"{loop.seed} more", seconds=run.seconds["rl"])
    return evaluate(model, run.task, fixed_problems(run.task, "test", loop.test_problems), loop.test_samples, (1, 8), run.max_new_tokens,
                    run.temperature)


if __name__ == "__main__":
    try:
        sys.exit(130 if main() is None else 0)  # 130: stopped by Ctrl-C
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in ("out of memory", "can't allocate memory")):
            raise
        sys.exit(print("error: not enough memory: lower --prompts, --group-size, --max-new-tokens, --micro-batch, --sft-micro-batch "
                       "or, if the algorithm has it, --rollouts; a run goes on from its last checkpoint with --resume", file=sys.stderr) or 2)
    except KeyboardInterrupt:  # outside of the loop of steps: a warm start or an evaluation begins again
        sys.exit(print("\nstopped; python train.py --resume RUN goes on from the run's last checkpoint", file=sys.stderr) or 130)
