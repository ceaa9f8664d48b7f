"""Stream of Search's own problems once more: three seeds, eleven times as many demonstrations, DAgger, and test-time search on top.

    python experiments/stream_of_search_longer.py            half an hour a seed on a GPU; on 2 CPU cores about three hours a seed
    python experiments/stream_of_search_longer.py --quick    3 minutes: the same, far too short to learn the task

The claim: what kept 1.15 M parameters below the published models (stream_of_search.py) was how little they had imitated.
  1. 600,000 demonstrations, drawn once by all cores; 3,500 steps of imitation, the first six sevenths with batches of 512, where
     there is a GPU on it.
  2. 150 steps of GRPO, its rate falling to nothing.
  3. In its place 200 steps of DAgger (methods/dagger.py): the teacher, which knows the solutions, goes on where the policy's own attempts
     have failed.
  4. Both held-out sets as before; and search with the rule as its judge, up to 4,096 tokens, the context of the published models.

Results: docs/stream_of_search_longer.{md,json,png}.
"""
import functools
import json
import multiprocessing
import random

import stream_of_search as before
from cells import main, metrics, spread

FULL = before.FULL | {"seeds": (0, 1, 2), "imitation": 3500, "steps": 150, "stages": ("warm", "grpo", "dagger"), "batch": 512, "last": 64,
                      "kept": 600_000, "flags": ["--lr-schedule", "linear"], "search": 200, "budgets": (128, 256, 512, 1024, 2048, 4096),
                      "rebase": (128, 256, 384), "at_once": 3}  # REBASE aims at tokens of solutions: with its rollouts it samples ten times as many
QUICK = FULL | {"seeds": (0,), "imitation": 60, "every": 30, "steps": 3, "dagger": 3, "look": 3, "prompts": 4, "problems": 50, "kept": 2000, "search": 10,
                "batch": 64, "last": 32, "budgets": (256, 512), "rebase": (256,), "model": before.QUICK["model"]}
METHODS = {"sample": "sampling until the rule accepts", "rebase": "REBASE", "mcts": "MCTS"}


def draw(number):
    """A thousand demonstrations -> tokens (1000, T) uint8, padded to the longest there can be. All prompts are equally long."""
    import tasks, sft
    task = tasks.load("stream_of_search")
    tokens, _ = sft.demonstrations(task, 1000, random.Random(f"stream of search, thousand {number}"))
    longest = tokens.new_full((1000, task.max_prompt_tokens + task.max_new_tokens), task.tokenizer.pad)
    longest[:, :tokens.shape[1]] = tokens
    return longest.byte().numpy()


def kept_demonstrations(folder, plan):
    """plan["kept"] demonstrations, drawn by all cores and kept -> tokens (N, T) uint8."""
    import numpy
    import torch
    place = folder / "demonstrations.npz"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with multiprocessing.Pool() as pool:
            parts = pool.map(draw, range(plan["kept"] // 1000), chunksize=1)
        numpy.savez_compressed(place, tokens=numpy.concatenate(parts))
    return torch.from_numpy(numpy.load(place)["tokens"])


def batches(folder, plan, device, task, seed):
    """-> a function of a step: its demonstrations, tokens (B, T) and mask (B, T). It follows from the seed and the step alone.
    While the rate is constant or high, a batch has plan["batch"]; in the last seventh plan["last"] do: small steps average by themselves."""
    import torch
    from sample import completion_mask
    kept = kept_demonstrations(folder, plan).to(device)

    def batch(step):
        size = plan["batch"] if step < plan["imitation"] * 6 / 7 else plan["last"]
        rows = torch.randint(len(kept), (size,), generator=torch.Generator().manual_seed(10**6 * seed + step))
        tokens = kept[rows.to(kept.device)].long()
        ends = (tokens == task.tokenizer.eos).int().argmax(1) + 1
        return tokens, completion_mask(torch.full_like(ends, task.max_prompt_tokens), ends, tokens.shape[1])
    return batch


def think_longer(run, plan, method):
    """Test-time search, new numbers, the rule as its judge -> a list of [accuracy, tokens sampled a problem], one for each budget."""
    import checkpoint, evaluate
    from plumbing import search_command
    from search_context import SearchContext
    model, task, _ = checkpoint.load_run(run, evaluate.pick_device("auto"))
    problems, c = evaluate.fixed_problems(task, "test", plan["search"]), search_command.SearchConfig(method=method)
    typical = search_command.typical_length(SearchContext(model, task, problems[:1]))
    found = [search_command.measure(model, task, problems, method, budget, c, None, typical) for budget in plan.get(method, plan["budgets"])]
    return [[each["accuracy"], each["tokens"]] for each in found]


def luck(folder, plan, seed):
    """Random legal search on val, at every look with as many tokens as the policy needs for an answer then -> hours, share solved."""
    import evaluate, tasks
    task = tasks.load("stream_of_search")
    problems, attempt = evaluate.fixed_problems(task, "val", 100), 6 * (task.options.numbers - 1) + 1  # tokens of an attempt
    looks = [(line["cpu_seconds"], line["length"]) for line in map(json.loads, (folder / f"warm-{seed}" / "curve.jsonl").open())]
    lines, end = metrics(folder / f"grpo-{seed}"), looks[-1][0]
    looks += [(end + sum(each["seconds"] for each in lines[:m["step"]]), m["val_length"]) for m in lines if "val_pass@1" in m]
    at = lambda length: task.random_search(problems, max(1.0, (length - task.min_new_tokens) / attempt), searches=16)
    return [seconds / 3600 for seconds, _ in looks], [at(length) for _, length in looks]


def cell(folder, plan, stage, seed, which=""):
    """A stage: make it, or measure it on one of the two test sets, or with a method of search."""
    import torch
    import evaluate
    if stage == "search":
        return think_longer(folder / f"grpo-{seed}", plan, which)
    if stage == "warm" and not which:
        device = evaluate.pick_device("auto")
        if device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32: imitation may round
        run = before.imitate(folder, plan, int(seed), functools.partial(batches, folder, plan, device),
                             8 if device == "cpu" else plan["batch"], device)
        return {"curve": [[line["cpu_seconds"], line["pass@1"]] for line in map(json.loads, (run / "curve.jsonl").open())]}
    return before.cell(folder, plan, stage, seed, which)


def report(folder, plan, get):
    kept_demonstrations(folder, plan)  # once, before three processes want them
    text, panels = before.report(folder, plan, get)
    found = get([("search", seed, method) for method in METHODS for seed in plan["seeds"]])
    lines, curves = [f"| {plan['search']} problems, new numbers | tokens aimed at | solved | tokens sampled a problem |", "|---|---|---|---|"], {}
    for method, title in METHODS.items():
        budgets = list(zip(*(found["search", seed, method] for seed in plan["seeds"])))  # for each, [accuracy, tokens] of the seeds
        means = [[sum(x) / len(x) for x in zip(*seeds)] for seeds in budgets]
        for aim, seeds, (_, tokens) in zip(plan.get(method, plan["budgets"]), budgets, means):
            lines.append(f"| {title} | {aim} | {spread(accuracy for accuracy, _ in seeds)} | {tokens:.0f} |")
        curves[title] = tuple(zip(*sorted((tokens, accuracy) for accuracy, tokens in means)))
    panels[0]["curves"][f"random search, seed {plan['seeds'][0]}"] = luck(folder, plan, plan["seeds"][0])
    panels[0]["x"] = "hours: imitation, then GRPO or DAgger"
    return "\n".join([text, "", *lines]), [*panels, {"title": "test-time search, new numbers", "x": "tokens sampled per problem",
                                                     "y": "share solved", "log": 2, "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
