"""May a policy judge its own half-finished thoughts, and search by that?

    python experiments/tree_of_thoughts.py            some minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/tree_of_thoughts.py --quick    under 3 minutes: one seed, fewer problems, no learned verifier

The claim (Tree of Thoughts, arXiv:2305.10601, on the game of 24): a language model that proposes several next steps, says of each whether
the target can still be reached ("sure", "maybe", "impossible") and goes on with the best ones, solves far more problems than by sampling.

The search, breadth first. A thought is the first step of an attempt ("5 * 3 = 15, "):
  1. sample `width` thoughts of a problem; of those that differ
  2. keep the `keep` best by value / (1 + n), n: how often it was kept before, in vain; equal ones in the order in which they came
  3. write each on, until the attempt is marked as failed, or the answer has ended; the rule accepts it, or not (countdown is checkable)
  4. nothing accepted: begin again, until the tokens are spent.

Who says what a thought is worth:
  chance     nobody: as many are kept. What is gained by giving up after one attempt, and by not repeating it, is gained here, too
  own        the policy, asked "Value: <problem> <thought>": P(sure) + P(maybe)/20, the paper's weights 20, 1, 0.001. A word that is asked
             for is paid as one token; the prompt is read, and reading is not paid
  taught     the same, asked of a copy that has seen `taught` batches more of the same teacher's values, and nothing else
  prm        a process verifier trained on samples of the same policy (verifier.py): reads
  rollouts   the share of two rollouts from there that are right: pays for every token; a right one ends the search
  truth      task.still_possible: the value that a perfect judge gives
Beside them sampling whole solutions, one after the other. The curve: the share of problems that are solved once a problem has cost T
tokens. AUC: how often a thought that can still succeed is valued above one that cannot, ties counting half;
the thoughts of the first round, which are the same whoever values them.

The setting: warm starts with a dialogue (--dialogue 0.6, a teacher who is right in 80 %), and the same after GRPO, which never asks for a
value. Results: docs/tree_of_thoughts.{md,json,png}.
"""
from collections import Counter

from cells import main, spread, train

VALUES = ("chance", "own", "taught", "prm", "rollouts", "truth")
FULL = {"seeds": (0, 1, 2), "policies": ("warm", "grpo"), "values": VALUES, "problems": 200, "tokens": 256, "width": 5, "keep": 1,
        "sft": 1000, "rl_tokens": 400_000, "prm_steps": 20, "taught": 200}
QUICK = {"seeds": (0,), "policies": ("warm",), "values": ("chance", "own", "truth"), "problems": 60, "tokens": 128, "width": 5, "keep": 1,
         "sft": 300, "rl_tokens": 0, "prm_steps": 0, "taught": 0}
WEIGHTS = (1.0, 0.05, 0.00005)  # of sure, maybe, impossible: section 4.1 of the paper, divided by 20


def policy_run(folder, plan, policy, seed):
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed, "--dialogue", 0.6, "--sft-steps", plan["sft"])
    if policy == "warm":
        return warm
    return train(folder, f"grpo-{seed}", "--algo", "grpo", "--dialogue", 0.6, "--init", warm, "--seed", seed, "--steps", 10**6,
                 "--token-budget", plan["rl_tokens"])


# ---- what a thought is worth: (context, problem_index, rows) -> list of floats, as in search_context.py

def own(context, problem_index, rows):
    """What `context.judge` says of the attempts that the rows are in; each word that is asked for is paid as a token."""
    import torch
    from dialogue import ask
    value = context.task.tokenizer.encode("Value: ")
    for i in problem_index:
        context.token_cost[i] += 1
    return (ask(context.judge, context.task, [value + row for row in rows], ["sure", "maybe", "impossible"]) @ torch.tensor(WEIGHTS)).tolist()


def truth(context, problem_index, rows):
    return [float(context.task.still_possible(context.problems[i], context.text(i, row))) for i, row in zip(problem_index, rows)]


def chance(context, problem_index, rows):
    return [1.0] * len(rows)


def taught(model, task, steps, seed):
    """-> a copy of the policy, after so many batches of nothing but the teacher's values."""
    import copy
    import sft
    from tasks.dialogue import value
    judge, school = copy.deepcopy(model), copy.copy(task)
    school.example = lambda problem, rng: value(task, problem, rng)
    sft.warm_start(judge, school, sft.SFTConfig(sft_steps=steps), f"values {seed}")
    return judge


def best(values, keep):
    """The places of the `keep` highest values; of equal ones the first.

    >>> best([0.1, 0.9, 0.1, 0.9, 0.5], 3)
    [1, 3, 4]
    """
    return sorted(range(len(values)), key=lambda k: -values[k])[:keep]


def think(context, unsolved, value, plan):
    """Steps 1 to 3 of the search -> {problem: its token cost when a right solution was found}; (value, truth) of every thought."""
    index = [i for i in unsolved for _ in range(plan["width"])]
    thoughts = {i: [] for i in unsolved}
    for i, row in zip(index, context.sample(index, [context.prompts[i] for i in index], stop=context.step_token)):
        if row[-1] == context.step_token and row not in thoughts[i]:
            thoughts[i].append(row)
    index, rows = [i for i in unsolved for _ in thoughts[i]], [row for i in unsolved for row in thoughts[i]]
    values, valued = value(context, index, rows), {i: [] for i in unsolved}
    pairs = list(zip(values, truth(context, index, rows)))
    for i, row, v in zip(index, rows, values):
        valued[i].append(v / (1 + context.tried[i, *row]))
    solved = {i: context.token_cost[i] for i in unsolved if any(context.right(i, row) for row in context.finished[i])}  # by a rollout
    [failed] = context.task.tokenizer.encode("failed\n")
    order = {i: best(valued[i], plan["keep"]) for i in unsolved}
    for k in range(plan["keep"]):  # the best one first: if it is right, the next is not paid for
        index = [i for i in unsolved if i not in solved and k < len(order[i])]
        rows = [thoughts[i][order[i][k]] for i in index]
        context.tried.update((i, *row) for i, row in zip(index, rows))
        if index:
            ends = context.sample(index, rows, stop=failed)
            solved |= {i: context.token_cost[i] for i, row in zip(index, ends) if context.right(i, row)}
    return solved, pairs


def whole(context, unsolved):
    """No search: one whole solution of each problem. -> as `think`."""
    rows = context.sample(unsolved, [context.prompts[i] for i in unsolved])
    return {i: context.token_cost[i] for i, row in zip(unsolved, rows) if context.right(i, row)}, []


# ---- the cells

def cell(folder, plan, policy, value, seed):
    import checkpoint, evaluate, verifier
    import torch
    from search_context import SearchContext
    run = policy_run(folder, plan, policy, seed)
    if value == "policy":
        return {"run": str(run)}
    model, task, _ = checkpoint.load_run(run)
    judge = None
    if value == "prm":
        judge = checkpoint.load_verifier(train(folder, f"prm-{policy}-{seed}", "--algo", "prm", "--dialogue", 0.6, "--init", run, "--seed", seed,
                                               "--log-rollouts", 0, steps=plan["prm_steps"]))
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    context = SearchContext(model, task, problems, generator=torch.Generator().manual_seed(int(seed)), verifier=judge, rollouts=2)
    context.tried, context.judge = Counter(), taught(model, task, plan["taught"], seed) if value == "taught" else model
    says = {"chance": chance, "own": own, "taught": own, "truth": truth, "prm": SearchContext.verifier_score, "rollouts": SearchContext.from_rollouts}
    solved, first = {}, []
    while unsolved := [i for i in range(len(problems)) if i not in solved and context.token_cost[i] < plan["tokens"]]:
        now, thoughts = whole(context, unsolved) if value == "sampling" else think(context, unsolved, says[value], plan)
        solved, first = solved | now, first or thoughts  # the first round is about all problems, and the same for every way to value
    found = {"solved": [sum(cost <= T for cost in solved.values()) / len(problems) for T in grid(plan)]}
    if first:
        values, possible = (torch.tensor(x) for x in zip(*first))
        found |= {"possible": float(possible.mean()), "auc": verifier.auc(values, possible.bool())}
    return found


def grid(plan):
    return list(range(32, plan["tokens"] + 1, 32))


def report(folder, plan, get):
    seeds, Ts = plan["seeds"], grid(plan)
    for policy in plan["policies"]:
        get([(policy, "policy", seed) for seed in seeds])
    ways = ("sampling", *plan["values"])
    found = get([(policy, way, seed) for policy in plan["policies"] for way in ways for seed in seeds])
    shown = [T for T in (64, 128, 256) if T in Ts]
    lines = ["| policy | who values | " + " | ".join(f"solved within {T} tokens" for T in shown) + " | AUC of the values |",
             "|---|---|" + "---|" * (len(shown) + 1)]
    panels = []
    for policy in plan["policies"]:
        for way in ways:
            each = [found[policy, way, seed] for seed in seeds]
            lines.append(f"| {policy} | {way if way != 'sampling' else 'no search: sampling'} | " + " | ".join(
                spread(x["solved"][Ts.index(T)] for x in each) for T in shown) +
                f" | {spread(x['auc'] for x in each) if 'auc' in each[0] and way != 'chance' else '–'} |")
        panels.append({"title": f"{policy}: problems solved", "x": "tokens spent on a problem", "y": "share of test problems, mean over the seeds",
                       "curves": {way: (Ts, *([f(x) for x in zip(*(found[policy, way, seed]["solved"] for seed in seeds))]
                                              for f in (lambda x: sum(x) / len(x), min, max))) for way in ways}})
    possible = ", ".join(f"{policy} {spread((found[policy, 'chance', seed]['possible'] for seed in seeds), '.2f')}" for policy in plan["policies"])
    lines.append(f"\n{plan['problems']} test problems; seeds {', '.join(map(str, seeds))}, lowest to highest in brackets; {plan['width']} thoughts, "
                 f"{plan['keep']} kept. Thoughts that can still succeed, of all that differ: {possible}.")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
