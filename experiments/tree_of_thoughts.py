"""May a policy judge its own half-finished thoughts, and search by that?

    python experiments/tree_of_thoughts.py            a quarter of an hour of one core; goes on cell by cell where it was stopped
    python experiments/tree_of_thoughts.py --quick    under 3 minutes: one seed, a short warm start, fewer problems

The claim (Tree of Thoughts, arXiv:2305.10601, on the game of 24): a language model that proposes several next steps, says of each
whether the target can still be reached ("sure", "maybe", "impossible") and goes on with the best, solves far more than by sampling.

The search. A thought is the first step of an attempt ("5 * 3 = 15, "). In rounds:
  1. sample `width` thoughts; those that are new are valued, and join the pool of the problem
  2. take the thought with the highest value / (1 + n), n: how often it was taken before, in vain; of equal ones the first
  3. write it on, until the attempt is marked as failed or the answer has ended; the rule accepts it, or not (countdown is
     checkable); 2 and 3 are done `keep` times a round, until something is accepted, or the tokens are spent

Who says what a thought is worth:
  chance     nobody: what is gained by giving up after one attempt, and by not repeating it, is gained here, too
  own        the policy, asked "Value: <problem> <thought>": P(sure) + P(maybe)/20, the paper's weights 20, 1, 0.001. A word that is
             asked for is paid as one token; the prompt is read, and reading is not paid
  taught     the same, asked of a copy that has seen `taught` batches more of the same teacher's values, and nothing else
  prm        a process verifier trained on samples of the same policy (verifier.py): reads
  rollouts   the share of two rollouts from there that are right: pays for every token; a right one ends the search
  truth      task.still_possible: the value that a perfect judge gives
Beside them sampling whole solutions, one after the other. The curve: the share of problems that are solved within T tokens.
AUC: how often a thought that can still succeed is valued above one that cannot, ties half; first round: the same for all who value.

The setting: warm starts with a dialogue (a teacher who is right in 80 %), and the same after GRPO, which never asks for a value.
Width and keep: one of four pairs that were about equal for `truth` on val, seed 0. Results: docs/tree_of_thoughts.{md,json,png}.
"""
from cells import main, spread, train

WAYS = ("sampling", "chance", "own", "taught", "prm", "rollouts", "truth")
FULL = {"seeds": (0, 1, 2), "ways": {"warm": WAYS, "grpo": ("sampling", "chance", "own", "truth")}, "problems": 200, "tokens": 256,
        "width": 5, "keep": 4, "sft": 1000, "size": (), "rl_tokens": 200_000, "prm_steps": 20, "taught": 200}
QUICK = {"seeds": (0,), "ways": {"warm": ("sampling", "chance", "own", "truth")}, "problems": 60, "tokens": 128,
         "width": 5, "keep": 4, "sft": 900, "size": ("--n-layer", 2, "--n-embd", 64), "rl_tokens": 0, "prm_steps": 0, "taught": 0}
WEIGHTS = (1.0, 0.05, 0.00005)  # of sure, maybe, impossible: section 4.1 of the paper, divided by 20


def policy_run(folder, plan, policy, seed):
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed, "--dialogue", 0.6, "--sft-steps", plan["sft"], *plan["size"])
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
    said = ask(context.judge, context.task, [value + row for row in rows], ["sure", "maybe", "impossible"])
    return (said @ torch.tensor(WEIGHTS)).tolist()


def truth(context, problem_index, rows):
    return [float(context.task.still_possible(context.problems[i], context.text(i, row))) for i, row in zip(problem_index, rows)]


def taught(model, task, steps, seed):
    """-> a copy of the policy, after so many batches of nothing but the teacher's values."""
    import copy
    import sft
    from tasks.dialogue import value
    judge, school = copy.deepcopy(model), copy.copy(task)
    school.example = lambda problem, rng: value(task, problem, rng)
    sft.warm_start(judge, school, sft.SFTConfig(sft_steps=steps), f"values {seed}")
    return judge


def think(context, unsolved, value, plan):
    """Steps 1 to 3 of the search, one round -> {problem: its token cost when a right solution was found}; (value, truth) of each new
    thought. context.pool[i]: {thought: [value, how often it was written on]}."""
    index, new = [i for i in unsolved for _ in range(plan["width"])], {}
    for i, row in zip(index, context.sample(index, [context.prompts[i] for i in index], stop=context.step_token)):
        if row[-1] == context.step_token and tuple(row) not in context.pool[i]:
            new[i, *row] = i
    index, rows = list(new.values()), [list(row) for _, *row in new]
    values = value(context, index, rows) if rows else []
    for i, row, v in zip(index, rows, values):
        context.pool[i][tuple(row)] = [v, 0]
    solved = {i: context.token_cost[i] for i in unsolved if any(context.right(i, row) for row in context.finished[i])}  # by a rollout
    [failed] = context.task.tokenizer.encode("failed\n")
    for _ in range(plan["keep"]):  # the best one first: if it is right, the next is not paid for
        go_on = {i: max(pool, key=lambda row: pool[row][0] / (1 + pool[row][1])) for i, pool in context.pool.items()
                 if i in unsolved and i not in solved and pool}
        for i, row in go_on.items():
            context.pool[i][row][1] += 1
        if go_on:
            ends = context.sample(list(go_on), [list(row) for row in go_on.values()], stop=failed)
            solved |= {i: context.token_cost[i] for i, row in zip(go_on, ends) if context.right(i, row)}
    return solved, list(zip(values, truth(context, index, rows)))


def whole(context, unsolved):
    """No search: one whole solution of each problem. -> as `think`."""
    rows = context.sample(unsolved, [context.prompts[i] for i in unsolved])
    return {i: context.token_cost[i] for i, row in zip(unsolved, rows) if context.right(i, row)}, []


def cell(folder, plan, policy, way, seed):
    import checkpoint, evaluate, verifier
    import torch
    from search_context import SearchContext
    run = policy_run(folder, plan, policy, seed)
    if way == "policy":
        return {"run": str(run)}
    model, task, _ = checkpoint.load_run(run)
    critic = None if way != "prm" else checkpoint.load_verifier(train(folder, f"prm-{policy}-{seed}", "--algo", "prm", "--dialogue", 0.6,
                                                                      "--init", run, "--seed", seed, steps=plan["prm_steps"]))
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    context = SearchContext(model, task, problems, generator=torch.Generator().manual_seed(int(seed)), verifier=critic, rollouts=2)
    context.pool = {i: {} for i in range(len(problems))}
    context.judge = taught(model, task, plan["taught"], seed) if way == "taught" else model
    says = {"chance": lambda context, index, rows: [1.0] * len(rows), "own": own, "taught": own, "truth": truth,
            "prm": SearchContext.verifier_score, "rollouts": SearchContext.from_rollouts}
    solved, first = {}, []
    while unsolved := [i for i in range(len(problems)) if i not in solved and context.token_cost[i] < plan["tokens"]]:
        now, thoughts = whole(context, unsolved) if way == "sampling" else think(context, unsolved, says[way], plan)
        solved, first = solved | now, first or thoughts  # the first round is about all problems, and the same for every way to value
    found = {"solved": [sum(cost <= T for cost in solved.values()) / len(problems) for T in range(32, plan["tokens"] + 1, 32)]}
    if first:
        values, possible = (torch.tensor(x) for x in zip(*first))
        found |= {"possible": float(possible.mean()), "auc": verifier.auc(values, possible.bool())}
    return found


def report(folder, plan, get):
    seeds, Ts, panels = plan["seeds"], list(range(32, plan["tokens"] + 1, 32)), []
    get([(policy, "policy", seed) for policy in plan["ways"] for seed in seeds])
    found = get([(policy, way, seed) for policy, ways in plan["ways"].items() for way in ways for seed in seeds])
    shown = [T for T in (64, 128, 256) if T in Ts]
    lines = ["| policy | who values | " + " | ".join(f"solved within {T} tokens" for T in shown) + " | AUC of the values |",
             "|---|---|" + "---|" * (len(shown) + 1)]
    for policy, ways in plan["ways"].items():
        for way in ways:
            each = [found[policy, way, seed] for seed in seeds]
            solved = " | ".join(spread(x["solved"][Ts.index(T)] for x in each) for T in shown)
            auc = "" if way in ("sampling", "chance") else spread(x["auc"] for x in each)
            lines.append(f"| {policy} | {'sampling, no search' if way == 'sampling' else way} | {solved} | {auc} |")
        each = {way: list(zip(*(found[policy, way, seed]["solved"] for seed in seeds))) for way in ways}
        panels.append({"title": f"{policy}: problems solved", "x": "tokens spent on a problem", "y": "share, mean over the seeds",
                       "curves": {way: (Ts, [sum(x) / len(x) for x in all_], list(map(min, all_)), list(map(max, all_)))
                                  for way, all_ in each.items()}})
    possible = [f"{policy} {spread((found[policy, 'chance', seed]['possible'] for seed in seeds), '.2f')}" for policy in plan["ways"]]
    lines.append(f"\n{plan['problems']} test problems; seeds {', '.join(map(str, seeds))}, lowest to highest in brackets; "
                 f"{plan['width']} thoughts and {plan['keep']} continuations a round. Thoughts that can still succeed: {', '.join(possible)}.")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
