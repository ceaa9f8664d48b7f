"""Can a model think without words, its last hidden state as the next input?

    python experiments/coconut.py            about 20 minutes on 2 cores
    python experiments/coconut.py --quick    3 minutes

The claim (Coconut, arXiv:2412.06769): a continuous thought h is the last hidden state, fed back in the place of a token's embedding. Learned
by a curriculum, thoughts replace written steps, and do better than no chain and than pause tokens, with fewer tokens than a chain.

    question <think> h_0 h_1 ... h_(n-1) </think> answer        h_0: the state after <think>; h_j: the state after reading h_(j-1)

The recipe: stage 0 writes all steps; stage k replaces the first k by k thoughts; the last stage writes none. The loss covers what is written
and never a thought; its gradient flows through the thoughts, which are computed one after the other.

At equal depth of computation, for a problem of n steps and L layers: a chain reads its own words, L layers for each; n thoughts make
(n + 1) L layers one after the other; pause tokens, as many and with the same curriculum, are all read at once: L. So what thoughts have
beyond pauses is depth. At once: thoughts without the curriculum. The same number of problems for all, two layers, width 64. The number
of thoughts says how many steps there are; so the chain, too, is told when to stop.

What a thought says: a linear probe (logistic regression) for the value of step j from h_(j-1), fitted on train problems, tried on test
problems; beside it the same for pause tokens, and from h_0 alone (of the model with thoughts). The lens: the likeliest token at h_(j-1).
Simplified: one thought a step; the optimizer is not begun anew at a stage; 30 % of the rows come from an earlier stage. Accuracy is greedy.
Results: docs/coconut.{md,json,png}.
"""
from cells import main, spread

SIZES = {"iterated_squaring": {"p": 347, "min_k": 2, "max_k": 5}, "circuit": {"inputs": 3, "gates": 4}}
TITLES = {"chain": "chain of thought", "none": "no chain", "pause": "pause tokens", "at once": "thoughts at once", "thoughts": "thoughts"}
FULL = {"seeds": (0, 1, 2), "tasks": tuple(SIZES), "kinds": tuple(TITLES), "steps": 700, "batch": 32, "problems": 300, "probe": 150}
QUICK = {"seeds": (0,), "tasks": ("iterated_squaring",), "kinds": ("none", "pause", "thoughts"), "steps": 400, "batch": 32, "problems": 300, "probe": 150}


def stage_of(done, last):
    """The stage at a share `done` of the training: 0 up to 0.3, the last one from 0.7 on.

    >>> [stage_of(done, 4) for done in (0.0, 0.3, 0.41, 0.69, 0.7, 1.0)]
    [0, 1, 2, 4, 4, 4]
    """
    return 0 if done < 0.3 else min(last, 1 + int((done - 0.3) / 0.4 * last))


def train(task, kind, steps, batch, seed, last):
    """-> a model; `last`: the last stage."""
    import random
    import latent, torch
    from model import GPT, GPTConfig, make_optimizer
    torch.manual_seed(seed)
    model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, n_layer=2, n_head=2, n_embd=64))
    optimizer, rng = make_optimizer(model, 0.012, 0.006), random.Random(f"coconut {seed}")
    for step in range(steps):
        now = {"chain": 0, "none": last, "at once": last}.get(kind, stage_of(step / steps, last))
        stages = [rng.randrange(now + 1) if kind in ("pause", "thoughts") and rng.random() < 0.3 else now for _ in range(batch)]
        rows = [latent.row(task, task.sample_problem(rng), stage, kind != "none") for stage in stages]
        logprobs, ids, mask, _ = latent.run(model, rows, kind != "pause")
        optimizer.zero_grad()
        (-(logprobs.gather(-1, ids[..., None])[..., 0] * mask).sum() / mask.sum()).backward()
        optimizer.step(min(1.0, (1 - step / steps) / 0.3), 1.0)
    return model.requires_grad_(False)


def values(task, problem):
    """The value of every step: the number behind the last sign of each."""
    return [int(step.split()[-1][-1] if "=" in step else step) for step in task.chain(problem).split(", ")[:-1]]


def no_mirror(problem):
    """Iterated squaring: r and p - r have the same squares. Whether this problem's answer cannot be known by heart from the other's."""
    from tasks import split_of
    name, p, r, k = problem.key if problem.key[0] == "iterated_squaring" else (None,) * 4
    return name is None or split_of((name, p, p - r, k)) != "train"


def told(model, task, problem):
    """Whether the greedy answer is right after a chain that does not stop before its time: the number of thoughts says how many steps there
    are, so the chain is told as well. At each of its places stands the likeliest token but </think>."""
    import torch
    encode = task.tokenizer.encode
    ids, [stop] = encode(problem.prompt + "<think>"), encode("</think>")
    for _ in encode(task.chain(problem)):
        logits = model(torch.tensor([ids]))[0, -1]
        logits[stop] = float("-inf")
        ids.append(int(logits.argmax()))
    logits = model(torch.tensor([ids + encode("</think><answer>")]))[0, -1]
    return task.tokenizer.decode([int(logits.argmax())]) == problem.answer


def cell(folder, plan, name, kind, seed):
    import random
    import evaluate, latent, tasks
    task = tasks.load(name, cot="on", **SIZES[name])
    last = SIZES[name].get("max_k") or SIZES[name]["gates"]
    model = train(task, kind, plan["steps"], plan["batch"], int(seed), last)
    problems, rng = list(filter(no_mirror, evaluate.fixed_problems(task, "test", plan["problems"]))), random.Random("probe")
    steps = [len(values(task, problem)) for problem in problems]
    if kind == "chain":
        right, tokens = [told(model, task, problem) for problem in problems], 6 + sum(
            len(task.tokenizer.encode(task.chain(problem))) for problem in problems) / len(problems)
    else:
        logprobs, ids, mask, states = latent.run(model, [latent.row(task, p, last, kind != "none") for p in problems], kind != "pause")
        right = ((logprobs.argmax(-1) == ids) | ~mask).all(1).tolist()
        tokens = float(mask.sum(1).float().mean() + 1) + (kind != "none") * sum(steps) / len(steps)  # <think> is one too
    result = {"right": sum(right) / len(right), "tokens": tokens, "problems": len(problems), "by steps": {
        n: sum(r for r, m in zip(right, steps) if m == n) / steps.count(n) for n in sorted(set(steps))}}
    if kind in ("chain", "none"):
        return result
    known = [task.sample_problem(rng) for _ in range(5 * plan["problems"])]
    before = latent.run(model, [latent.row(task, p, last) for p in known], kind != "pause")[3]
    truths = [[values(task, p) for p in some] for some in (known, problems)]
    return result | read_thoughts(task, model, (before, truths[0]), (states, truths[1]), plan["probe"])


def read_thoughts(task, model, train, test, steps):
    """train, test: states (N, n + 1, C), and a list of values a problem -> for every step j: the accuracy of the probe from h_(j-1), of that
    from h_0, of a constant guess, and of the nearest token (None if values are no tokens by themselves)."""
    import latent, torch
    found = {name: [] for name in ("probe", "question", "constant", "lens")}
    for j in range(max(map(len, test[1]))):
        rows = [torch.tensor([i for i, v in enumerate(vs) if len(v) > j]) for _, vs in (train, test)]
        labels, truth = (torch.tensor([vs[i][j] for i in at.tolist()]) for (_, vs), at in zip((train, test), rows))
        for title, state in (("probe", j), ("question", 0)):
            found[title].append(latent.probe(train[0][rows[0], state], labels, test[0][rows[1], state], truth, steps))
        found["constant"].append(float((truth == labels.mode().values).float().mean()))
        nearest = task.tokenizer.decode_batch(model.logits(test[0][rows[1], j]).argmax(-1)[:, None].tolist())
        squaring = task.name == "iterated_squaring"
        found["lens"].append(sum(text == str(v) for text, v in zip(nearest, truth.tolist())) / len(nearest) if squaring else None)
    return found


def report(folder, plan, get):
    seeds, kinds = plan["seeds"], plan["kinds"]
    found = get([(name, kind, seed) for name in plan["tasks"] for seed in seeds for kind in kinds])
    mean = lambda runs: [sum(values) / len(values) for values in zip(*runs)]
    lines, panels = ["| task | | right | by number of steps | tokens, with thoughts |", "|" + "---|" * 5], []
    for name in plan["tasks"]:
        curves = {}
        for kind in kinds:
            runs = [found[name, kind, seed] for seed in seeds]
            by_steps = {n: [run["by steps"][n] for run in runs] for n in runs[0]["by steps"]}
            cells = [spread((run["right"] for run in runs)), ", ".join(f"{n}: {spread(v, '.2f')}" for n, v in by_steps.items())]
            lines.append(f"| {name.replace('_', ' ')} | {TITLES[kind]} | {' | '.join(cells)} | {runs[0]['tokens']:.1f} |")
            curves[TITLES[kind]] = ([int(n) for n in by_steps], mean(zip(*by_steps.values())))
        panels += [{"title": name.replace("_", " "), "x": "steps of the chain", "y": "share of right answers", "curves": curves}] * (len(by_steps) > 1)
    lines += ["", "| task | step | constant | probe on h_0 | probe on pause tokens | probe on thoughts | lens on pause tokens | lens on thoughts |", "|" + "---|" * 8]
    for name in plan["tasks"]:
        of = lambda kind, what: [found[name, kind, seed][what] for seed in seeds]
        columns = [of("thoughts", "constant"), of("thoughts", "question"), of("pause", "probe"), of("thoughts", "probe"),
                   of("pause", "lens"), of("thoughts", "lens")]
        for j in range(len(columns[0][0])):
            cells = [spread((run[j] for run in runs), ".2f") if runs[0][j] is not None else "–" for runs in columns]
            lines.append(f"| {name.replace('_', ' ')} | {j + 1} | {' | '.join(cells)} |")
        panels.append({"title": f"{name.replace('_', ' ')}: value of a step", "x": "step", "y": "accuracy on test problems", "curves": {
            title: (list(range(1, len(runs[0]) + 1)), mean(runs)) for title, runs in zip(
                ("constant", "probe: h_0", "probe: pause", "probe: thoughts", "lens: pause", "lens: thoughts"), columns) if runs[0][0] is not None}})
    problems = " and ".join(str(found[name, kinds[0], seeds[0]]["problems"]) for name in plan["tasks"])
    lines.append(f"\n{plan['steps']} steps of {plan['batch']} problems; {problems} test problems; mean (lowest to highest) of {len(seeds)} seeds.")
    return "\n".join([*lines, "[What it means](claims.md#thoughts-without-words)"]), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
