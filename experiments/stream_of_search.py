"""Stream of Search's own problems, with less than 1 % of its parameters, on a laptop.

    python experiments/stream_of_search.py            about two hours a seed on one core; goes on where it was stopped
    python experiments/stream_of_search.py --quick    3 minutes: the same, far too short to learn the task

More demonstrations and three seeds: stream_of_search_longer.py.

The published figures, on one distribution (tasks/stream_of_search.py): of the held-out problems a model of 250 M parameters
solves 25.7 % when it imitates optimal paths and 51.3 % when it imitates 500,000 traces of search (arXiv:2404.03683); after
reinforcement learning 56.5 % (new numbers) and 54.2 % (new targets); with more data and GRPO 60.0 %, and 83.4 % with parallel
threads (arXiv:2504.15466, 228 M). All of them count every problem.

What is tried here: 1.15 M parameters, four layers 160 wide, one key-value head, nothing pretrained.
  1. The warm start imitates legal attempts that end near the target, the last one at it: arithmetic first, aiming later.
  2. GRPO, with room for ten attempts, pays for the right answer; in a second run 0.3 less if a step is false. Apart from these, with
     --cell warm 0 and then --cell dagger 0: DAgger in its place (methods/dagger.py), 45 minutes of one core for both.
  3. 1,000 problems with new numbers and 1,000 with new targets, greedy and sampled, beside random legal search with as
     many attempts. Every right answer is checked by a second judge that shares no code with the first.

Left out: their traces of search are texts with heuristics and backtracking, ours are lists of attempts from the beginning.
Results: docs/stream_of_search.{md,json,png}.
"""
import ast
import json
import random
import time
from fractions import Fraction

from cells import main, metrics, spread, train

MODEL = ["--n-layer", 4, "--n-embd", 160, "--n-kv-head", 1]
FULL = {"seeds": (0,), "imitation": 5000, "every": 500, "steps": 90, "dagger": 200, "look": 10, "prompts": 32,
        "problems": 1000, "samples": 4, "stages": ("warm", "grpo", "penalty"), "model": MODEL}
QUICK = FULL | {"seeds": (0,), "imitation": 60, "every": 30, "steps": 3, "dagger": 3, "look": 3, "prompts": 4,
         "problems": 50, "model": ["--n-layer", 1, "--n-embd", 32]}
STAGES = {"warm": ("warm start", []), "grpo": ("GRPO", []), "penalty": ("GRPO, false steps cost 0.3", ["--step-penalty", 0.3]),
          "dagger": ("DAgger", ["--algo", "dagger", "--prompts", 128, "--attempts", 9, "--lr-schedule", "linear"])}  # with the teacher's ten: the room
BATCH, MICRO, MUON, ADAMW = 32, 8, 0.006, 0.012


def drawn(task, seed):
    """-> a function of a step: its demonstrations, tokens and mask, from a seed of its own."""
    import sft
    return lambda step: sft.demonstrations(task, BATCH, random.Random(f"stream of search {seed} {step}"))


def imitate(folder, plan, seed, batches=drawn, micro=MICRO, device="cpu"):
    """The warm start, kept every few hundred steps so that it can go on -> its folder. curve.jsonl: val, now and then."""
    import checkpoint, evaluate, model, sft, tasks
    from plumbing import run, start
    folder, task = folder / f"warm-{seed}", tasks.load("stream_of_search")
    config = start.configure("sft", "stream_of_search", {name[2:].replace("-", "_"): n for name, n in zip(*[iter(plan["model"])] * 2)}
                             | {"seed": seed})["loop"]
    policy = run.new_model(task, config, run.block_size(task, config, 0), device)
    optimizer, losses, done, seconds = model.make_optimizer(policy, ADAMW, MUON), [], 0, 0.0
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "checkpoint.pt").exists():
        kept = checkpoint.load(folder)
        policy.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done, seconds = kept["done"], kept["seconds"]
    looks, batch = evaluate.fixed_problems(task, "val", 100), batches(task, seed)
    now = time.process_time if device == "cpu" else time.time
    for step in range(done, plan["imitation"]):
        began = now()
        losses.append(sft.sft_step(policy, optimizer, *batch(step), micro, sft.schedule(step / plan["imitation"]))[0])
        seconds += now() - began
        if (step + 1) % plan["every"] == 0 or step + 1 == plan["imitation"]:
            found = evaluate.evaluate(policy, task, looks, n=8)
            line = {"step": step + 1, "cpu_seconds": round(seconds), "loss": sum(losses[-100:]) / len(losses[-100:]), **found}
            with open(folder / "curve.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            checkpoint.save(folder / "checkpoint.pt", policy, task,
                            {"algo": "sft", "task": task.name, "max_new_tokens": 0, "dtype": "float32"},
                            optimizer=optimizer.state_dict(), done=step + 1, seconds=seconds)
    return folder


def reinforce(folder, plan, stage, seed):
    """GRPO, or DAgger, on the warm start -> its run folder."""
    return train(folder, f"{stage}-{seed}", "--algo", "grpo", "--task", "stream_of_search", *plan["model"], "--init",
                 folder / f"warm-{seed}", "--seed", seed, "--prompts", plan["prompts"], "--eval-every", plan["look"],
                 "--checkpoint-every", 10, *STAGES[stage][1], *plan.get("flags", ()), steps=plan.get(stage, plan["steps"]))


def second_opinion(prompt, answer):
    """The rule once more, written apart: Python's own parser, and fractions. -> bool"""
    used = []

    def value(node):
        if isinstance(node, ast.Constant):
            used.append(node.value)
            return Fraction(node.value)
        a, b = value(node.left), value(node.right)
        return a + b if isinstance(node.op, ast.Add) else a - b if isinstance(node.op, ast.Sub) else a * b if isinstance(
            node.op, ast.Mult) else a / b

    given, target = prompt.removeprefix("Use ").removesuffix(".\n").split(" to make ")
    return value(ast.parse(answer, mode="eval").body) == int(target) and sorted(used) == sorted(map(int, given.split(", ")))


def measure(run, plan, held_out):
    """A stage on 1,000 problems of the test split -> what `evaluate` says, and random search with as many attempts; `checked`: right
    answers of which the second judge says so too."""
    import torch
    import checkpoint, evaluate, sample, tasks
    model, task, config = checkpoint.load_run(run, evaluate.pick_device("auto"))
    task = tasks.load("stream_of_search", held_out=held_out)
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    result = evaluate.evaluate(model, task, problems, plan["samples"], (1, plan["samples"]))
    rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=1), torch.Generator(model.device).manual_seed(1))
    right = [(problem.prompt, text) for problem, text, done in
             zip(problems, rollout.completions(task.tokenizer), rollout.finished.tolist()) if done and task.verify(problem, text)]
    agreed = sum(second_opinion(prompt, text.split("<answer>")[1].removesuffix("</answer>")) for prompt, text in right)
    return result | {"random": task.random_search(problems, result["attempts"]), "right": len(right), "checked": agreed}


def cell(folder, plan, stage, seed, held_out=""):
    """A stage: make it, or measure it on one of the two test sets."""
    seed = int(seed)
    if held_out:
        return measure(folder / f"{stage}-{seed}", plan, held_out)
    if stage == "warm":
        run = imitate(folder, plan, seed)
        return {"curve": [[line["cpu_seconds"], line["pass@1"]] for line in map(json.loads, (run / "curve.jsonl").open())]}
    run = reinforce(folder, plan, stage, seed)
    lines = metrics(run)
    return {"curve": [[sum(each["seconds"] for each in lines[:m["step"]]), m["val_pass@1"]] for m in lines if "val_pass@1" in m]}


def report(folder, plan, get):
    seeds, sets = plan["seeds"], ("inputs", "targets")
    made = get([("warm", seed) for seed in seeds])
    made |= get([(stage, seed) for stage in plan["stages"][1:] for seed in seeds])
    found = get([(stage, seed, held_out) for stage in plan["stages"] for seed in seeds for held_out in sets])
    most = f"pass@{plan['samples']}"
    names = {"greedy": "greedy", "pass@1": "pass@1", most: most, "random": "random search", "attempts": "attempts",
             "length": "tokens", "legal": "legal"}
    lines = ["| stage | new | " + " | ".join(names.values()) + " |", "|---|---|" + "---|" * len(names)]
    for stage in plan["stages"]:
        title = STAGES[stage][0]
        for held_out in sets:
            cells = [spread([found[stage, seed, held_out][name] for seed in seeds]) for name in names]
            lines.append(f"| {title} | {held_out} | " + " | ".join(cells) + " |")
    checks = [sum(found[key][name] for key in found) for name in ("checked", "right")]
    lines.append(f"\n{plan['problems']} problems of each kind, {plan['samples']} samples each; seeds {', '.join(map(str, seeds))}. Random search: "
                 f"with as many attempts, on the same problems. The second judge agrees on {checks[0]} of {checks[1]} right answers. "
                 "The problems: [stream_of_search.py](../tasks/stream_of_search.py).")
    curves = {}
    for seed in seeds:
        warm = made["warm", seed]["curve"]
        curves[f"warm start, seed {seed}"] = tuple(zip(*((x / 3600, y) for x, y in warm)))
        for stage in plan["stages"][1:]:
            curves[f"{STAGES[stage][0]}, seed {seed}"] = tuple(zip(*(((warm[-1][0] + x) / 3600, y) for x, y in made[stage, seed]["curve"])))
    return "\n".join(lines), [{"title": "held-out numbers (val)", "x": "hours of one core", "y": "pass@1", "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
