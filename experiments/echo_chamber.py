"""Which way of writing does reinforcement learning keep, when the warm start knows several?

    python experiments/echo_chamber.py            about 5 minutes of one core; goes on cell by cell where it was stopped
    python experiments/echo_chamber.py --quick    3 minutes, its warm starts included: one seed

The claim (arXiv:2504.07912): reinforcement learning lets one of the formats of the pretraining win
within few steps, mostly the one that is most often right before it, and which one that is depends on
the size of the model. With shares s_f, accuracies a_f and a policy that can move nothing but the
shares, the natural policy gradient is

    d log s_f / dt = a_f - sum_g s_g a_g             the replicator equation: what is above the mean grows, equal ones stay

The setting: iterated squaring modulo 227, two, four or six times; demonstrations in equal shares of

    direct   <think></think><answer>175</answer>                       5, squared four times
    halves   <think>171, 175, </think><answer>175</answer>             every second square
    full     <think>25, 171, 185, 175, </think><answer>175</answer>    every square
    twin     <think>25; 171; 185; 175; </think><answer>175</answer>    the same with another comma: two formats that are equally good

Worlds: "three" (direct, halves, full) and "twins" (full, twin). Sizes: 1 layer of width 32 and 2 layers
of width 64 (small.py). GRPO.
Results: docs/echo_chamber.{md,json,png}.
"""
import re

from cells import main, spread

WORLDS = {"three": ("direct", "halves", "full"), "twins": ("full", "twin")}
SIZES = {"small": (1, 32), "large": (2, 64)}
FULL = {"seeds": (0, 1, 2), "worlds": tuple(WORLDS), "sizes": tuple(SIZES), "sft": 300, "steps": 40, "prompts": 32,
        "problems": 50, "n": 16}
QUICK = FULL | {"seeds": (0,)}


def make_task(formats):
    """Iterated squaring whose demonstrations are written in one of `formats`, drawn anew for each."""
    from tasks.iterated_squaring import IteratedSquaring, IteratedSquaringOptions
    from tasks.tokenizer import Tokenizer

    class Formats(IteratedSquaring):
        def draw(self, rng):
            problem = super().draw(rng)
            while problem.key[-1] % 2:  # halves need an even number of squarings
                problem = super().draw(rng)
            return problem

        def demonstration(self, problem, rng):
            return f"<think>{written(rng.choice(formats), self.chain(problem))}</think><answer>{problem.answer}</answer>"

        def describe(self, problem, completion):
            return {name: float(format_of(completion, problem.key[-1]) == name) for name in formats}

    task = Formats(IteratedSquaringOptions(p=227, min_k=2, max_k=6, cot="on"))
    task.name, task.tokenizer = "iterated_squaring", Tokenizer("formats", [*sorted(task.tokenizer.vocabulary), "; "])
    return task


def written(name, chain):
    """The chain of the task, "25, 90, ", in another format.

    >>> [written(name, "25, 90, 75, 61, ") for name in ("direct", "halves", "full", "twin")]
    ['', '90, 61, ', '25, 90, 75, 61, ', '25; 90; 75; 61; ']
    """
    halves = "".join(f"{square}, " for square in chain.split(", ")[1::2])
    return {"direct": "", "halves": halves, "full": chain, "twin": chain.replace(", ", "; ")}[name]


def format_of(text, k):
    """The format of a completion for k squarings, right or wrong, by the number of its steps; None: none of them, or a mixture."""
    thinking = re.match("<think>((?:[0-9]+[,;] )*)</think>", text)
    if not thinking or {",", ";"} <= set(thinking[1]):
        return None
    formats = {(0, False): "direct", (k // 2, False): "halves", (k, False): "full", (k, True): "twin"}
    return formats.get((len(thinking[1].split()), ";" in thinking[1]))


def cell(folder, plan, world, size, seed):
    import evaluate, small
    formats, (layers, width) = WORLDS[world], SIZES[size]
    task = make_task(formats)
    shape = {"n_layer": layers, "n_embd": width}
    name = f"formats-{world}-{size}-{plan['sft']}"
    warm, _ = small.kept(name, task, small.imitate(task, seed, plan["sft"]), seed, **shape)

    def look(rollout, right):
        found = [format_of(text, p.key[-1]) for p, text in zip(rollout.problems, rollout.completions(task.tokenizer))]
        return {"shares": {f: found.count(f) / len(found) for f in formats}}

    policy, lines = small.kept(f"{name}-grpo-{plan['steps']}", task, small.reinforce(
        task, seed, warm, steps=plan["steps"], prompts=plan["prompts"], look=look), seed, **shape)
    result = {"curve": [line["shares"] for line in lines]}
    for when, model in (("before", warm), ("after", policy)):
        problems = {split: evaluate.fixed_problems(task, split, plan["problems"]) for split in ("train", "test")}
        judged = {split: evaluate.sample_and_judge(model, task, problems[split], plan["n"], batch=1024) for split in problems}
        of = {f: [j["right"] for j in judged["train"] if j[f]] for f in formats}
        result[when] = {"pass@1": sum(j["right"] for j in judged["test"]) / len(judged["test"]),
                        "shares": {f: len(of[f]) / len(judged["train"]) for f in formats},
                        "right": {f: sum(of[f]) / len(of[f]) if of[f] else None for f in formats}}
    return result


def best(result):
    """The format that was most often right before reinforcement learning."""
    return max(result["before"]["right"], key=lambda f: result["before"]["right"][f] or 0)


def report(folder, plan, get):
    import small
    found = get([(world, size, seed) for world in plan["worlds"] for size in plan["sizes"] for seed in plan["seeds"]])
    lines = ["| world | size | format | right before | share before | share after | won in | pass@1 before | after |",
             "|---" * 9 + "|"]
    panels, best_won, cases = [], 0, 0
    for world in plan["worlds"]:
        for size in plan["sizes"]:
            each = [found[world, size, seed] for seed in plan["seeds"]]
            winners = [max(e["after"]["shares"], key=e["after"]["shares"].get) for e in each]
            if world == "three":
                best_won += sum(winner == best(e) for winner, e in zip(winners, each))
                cases += len(each)
            for i, f in enumerate(WORLDS[world]):
                cells = [spread((e[when][what][f] or 0 for e in each), ".2f")
                         for when, what in (("before", "right"), ("before", "shares"), ("after", "shares"))]
                cells += [f"{winners.count(f)} of {len(each)}"]
                cells += ["" if i else spread((e[when]["pass@1"] for e in each), ".2f") for when in ("before", "after")]
                lines.append(f"| {world} | {size} | {f} | {' | '.join(cells)} |")
            steps = list(range(1, len(each[0]["curve"]) + 1))
            shares = lambda f: [[shares[f] for shares in e["curve"]] for e in each]  # a list for each seed
            curves = {f: small.band(steps, zip(*shares(f))) for f in WORLDS[world]}
            if world == "twins":  # the mean would hide that each seed goes its own way
                curves = {f"full, seed {seed}": (steps, of) for seed, of in zip(plan["seeds"], shares("full"))}
            panels.append({"title": f"{world}, {size} model; bands: lowest to highest seed", "x": "step of GRPO",
                           "y": "share of the samples", "curves": curves})
    lines.append(f"\nSeeds {', '.join(map(str, plan['seeds']))}, mean (lowest to highest); {plan['problems']} problems, "
                 f"{plan['n']} samples each: of the training split, on which the policy gradient acts, and for pass@1 of the test "
                 f"split. In the world of three the format that was most often right before won in {best_won} of {cases} runs. "
                 "[What it means](claims.md).")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
