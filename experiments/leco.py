"""Which step is the wrong one, from probabilities alone, and does it pay to begin again before it?

    python experiments/leco.py            about five minutes on one core; goes on where it was stopped
    python experiments/leco.py --quick    two minutes: one seed

The claim (LeCo, arXiv:2403.19094): a model is unsure where it errs. Score every step, keep what comes
before the least confident one, write the rest anew, until two answers in a row agree: more right answers
than by sampling again, for fewer tokens; and no step is ever judged.

    s = mean_t p_t + mean_{t <= 3} p_t - ln(D^0.3 + 1)    p_t: the probability of token t of the step
    D = KL(p_t / sum p || uniform)                        how unevenly they are spread

The setting, two tasks and a GPT of two layers, width 64, after imitation alone:
  squaring    iterated squaring mod 227, 3 to 6 times, every step shown: one true chain, an error is a slip
  countdown   three numbers up to 9, one attempt: a step is a choice, an error often a dead end
Truth: the first step behind which no legal way leads to the right answer. "hit": the least confident
step is that one; "in time": it is that one or one before it, so that beginning again there can help;
both over wrong solutions alone, beside a step drawn at random. AUC: steps up to which all is well
against first false ones, by their scores. Rivals at equal tokens: sampling from the start until two
answers agree, beginning again at a random step, a vote; and, with the rule's help, beginning again
before the first false step (a right answer stays). Seeds 0, 1 and 2.
Results: docs/leco.{md,json,png}.
"""
from cells import main, spread, train

FULL = {"seeds": (0, 1, 2), "sft": {"squaring": 170, "countdown": 400}, "problems": 150, "samples": 4, "rounds": 6}
QUICK = {"seeds": (0,), "sft": {"squaring": 170, "countdown": 250}, "problems": 60, "samples": 2, "rounds": 4}
SMALL = ["--n-layer", 2, "--n-embd", 64]
TASKS = {"squaring": ["--task", "iterated_squaring", "--p", 227, "--min-k", 3, "--max-k", 6, "--cot", "on", *SMALL],
         "countdown": ["--task", "countdown", "--max-number", 9, "--attempts", 1, *SMALL]}
SCORES = ("all three", "mean", "first three", "divergence")
WAYS = {"leco": "LeCo", "random": "begin again at a random step", "again": "sample again",
        "oracle": "begin again before the false step (rule)"}


def step_scores(p, first=3, tau=0.3):
    """Probabilities of a step's tokens, a list -> (s, mean, mean of the first three, divergence).

    >>> [round(x, 3) for x in step_scores([0.5, 0.5, 0.5, 0.5])]
    [1.0, 0.5, 0.5, 0.0]
    """
    import math
    mean, transition, total = sum(p) / len(p), sum(p[:first]) / len(p[:first]), sum(p)
    D = max(0.0, sum(x / total * math.log(max(x / total, 1e-12) * len(p)) for x in p))
    divergence = math.log(D ** tau + 1)
    return mean + transition - divergence, mean, transition, divergence


def sound(task, problem, text):
    """Can what is written so far (it ends with a step) still become a right solution, by the rules?"""
    if task.name == "countdown":
        return task.still_possible(problem, text)
    return task.chain(problem).startswith(text.removeprefix("<think>"))


def steps(context, rows):
    """-> for every row (where its steps begin, their scores, the number of the first false one: None if the
    answer is right). The last step is all that comes behind the last comma, the answer included."""
    import torch
    from sample import score
    task, longest, found = context.task, max(map(len, rows)), []
    with torch.no_grad():
        p = score(context.model, torch.tensor([row + [context.pad] * (longest - len(row)) for row in rows]))[0].exp().tolist()
    for i, row in enumerate(rows):
        ends = [t + 1 for t in context.step_positions(i, row)]
        begins, problem = [len(context.prompts[i]), *ends[:-1]], context.problems[i]
        text = lambda end: task.tokenizer.decode(row[begins[0]:end])
        false = next((j for j, end in enumerate(ends[:-1]) if not sound(task, problem, text(end))), len(ends) - 1)
        found.append((begins, [step_scores(p[i][a:b]) for a, b in zip(begins, ends)], None if context.right(i, row) else false))
    return found


def least_confident(scores):
    return min(range(len(scores)), key=lambda j: scores[j][0])


def again(context, rows, way, rounds, rng):
    """Begin again, up to `rounds` times, until two answers in a row agree -> list of (share right, tokens)."""
    rows, live, curve, first = [*rows], range(len(rows)), [], sum(len(row) - len(x) for row, x in zip(rows, context.prompts))
    answer = lambda i: context.task.canonical_answer(context.text(i, rows[i])) if context.ended(i, rows[i]) else None
    for _ in range(rounds + 1):
        right = [context.right(i, row) for i, row in enumerate(rows)]
        curve.append((sum(right) / len(rows), (first + sum(context.token_cost)) / len(rows)))
        live = [i for i in live if not (way == "oracle" and right[i])]
        if not live or len(curve) > rounds:
            continue
        seen, cuts = steps(context, rows), []
        for begins, scores, false in (seen[i] for i in live):
            where = {"leco": least_confident(scores), "random": rng.randrange(len(begins)), "again": 0, "oracle": false}
            cuts.append(begins[where[way]])
        before = [answer(i) for i in live]
        for i, row in zip(live, context.sample(live, [rows[i][:cut] for i, cut in zip(live, cuts)])):
            rows[i] = row
        live = [i for i, old in zip(live, before) if way == "oracle" or old is None or answer(i) != old]
    return curve


def cell(folder, plan, name, seed):
    import random, checkpoint, evaluate, torch
    from search import majority_vote
    from search_context import SearchContext
    from verifier import auc
    run = train(folder, f"{name}-{seed}", "--algo", "sft", *TASKS[name], "--sft-steps", plan["sft"][name], "--seed", seed)
    model, task, _ = checkpoint.load_run(run)
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    context = lambda copies, seed: SearchContext(model, task, [p for p in problems for _ in range(copies)],
                                                 generator=torch.Generator().manual_seed(seed))
    start, good, bad, sums = context(plan["samples"], 0), [], [], torch.zeros(4)
    _, rows = start.candidates(1)
    for begins, scores, false in steps(start, rows):
        good += scores[:false]  # all of them, if the answer is right
        if false is not None:
            bad.append(scores[false])
            worst, J = least_confident(scores), len(begins)
            sums += torch.tensor([worst == false, 1 / J, worst <= false, (false + 1) / J])
    hit, chance, in_time, in_time_chance = (sums / max(1, len(bad))).tolist()
    truth, sign = torch.arange(len(good + bad)) < len(good), (1, 1, 1, -1)
    result = {"right": 1 - len(bad) / len(rows), "hit": hit, "hit by chance": chance, "in time": in_time,
              "in time by chance": in_time_chance, "problems": len(problems), "vote": [],
              "auc": [auc(torch.tensor([sign[k] * s[k] for s in good + bad]), truth) for k in range(4)]}
    for k in (1, 2, 3, 4, 6, 8):
        desk = context(1, k)
        chosen = majority_vote(desk, k)
        result["vote"].append((sum(desk.rule(range(len(chosen)), chosen)) / len(chosen), sum(desk.token_cost) / len(chosen)))
    return result | {way: again(context(plan["samples"], 1), rows, way, plan["rounds"], random.Random(1)) for way in WAYS}


def report(folder, plan, get):
    import numpy
    seeds, panels = plan["seeds"], []
    found = get([(name, seed) for name in TASKS for seed in seeds])
    keys = ("right", "hit", "hit by chance", "in time", "in time by chance")
    lines = ["| task | right | hit | by chance | in time | by chance | " + " | ".join(f"AUC, {name}" for name in SCORES) + " |",
             "|" + "---|" * 10]
    for name in TASKS:
        cells = [spread((found[name, seed][key] for seed in seeds), ".2f") for key in keys]
        cells += [spread((found[name, seed]["auc"][k] for seed in seeds), ".2f") for k in range(4)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| task | tokens | " + " | ".join(WAYS.values()) + " | vote |", "|" + "---|" * (len(WAYS) + 3)]
    for name in TASKS:
        budget = {seed: found[name, seed]["leco"][-1][1] for seed in seeds}
        at = lambda curve, tokens: float(numpy.interp(tokens, [t for _, t in curve], [share for share, _ in curve]))
        shares = [spread((at(found[name, seed][way], budget[seed]) for seed in seeds), ".3f") for way in (*WAYS, "vote")]
        lines.append(f"| {name} | {spread(budget.values(), '.1f')} | {' | '.join(shares)} |")
        curves = {}
        for way, title in {**WAYS, "vote": "vote"}.items():
            curve = numpy.array([found[name, seed][way] for seed in seeds]).mean(0)
            curves[title.split(" (")[0]] = (curve[:, 1], curve[:, 0])
        panels.append({"title": f"{name}, mean of {len(seeds)} seeds", "x": "sampled tokens per problem", "y": "share right",
                       "curves": curves})
    counts = " and ".join(str(found[name, seeds[0]]["problems"]) for name in TASKS)
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}: mean (lowest to highest). {counts} test problems, {plan['samples']} first "
                 f"solutions each; accuracies at the tokens that LeCo has used after {plan['rounds']} rounds. [What it shows](judge.md#critique-and-second-turns).")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
