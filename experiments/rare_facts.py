"""What is met often is answered at once, what is rare only by steps?

    python experiments/rare_facts.py            about 6 minutes on 2 cores
    python experiments/rare_facts.py --quick    1 minute

The claim (after arXiv:2304.03843, where steps help just for those pairs that were hardly seen together): a frequent relation is known by
heart, a rare one has to be put together from known pieces. What a policy should do about it under a price c for every token:

    answer at once  iff  p_direct > p_steps - c * (tokens of the steps)

The setting: 48 people, two relations, each a random function of them. A question names three relations and a person, "aba7?", and is
answered at once, " 31", or by steps, " via 12 via 5 31": four tokens more. The 8 * 48 questions come with Zipf's frequencies, 1 / rank, in
the demonstrations (half of them with steps, whatever the question; all of them true) and in RL; a quarter of the demonstrations are
questions of one relation, "a7?", so every piece is met often. RL: right 1, minus c for every token beyond the two of a direct answer.
Chances are exact: of answering at once, p_direct and p_steps (the product over the true chain; p_steps counts that chain only).
Bins of rank: 1-8, 9-64, 65-384. "By the rule": the share of questions, weighed by frequency, where the policy's more
likely way after RL is the one that the line above asks for, with the p_direct and p_steps that it has then.
Results: docs/rare_facts.{md,json,png}.
"""
from cells import main, spread

BINS = [(0, 8), (8, 64), (64, 384)]
PRICES = (0.0, 0.02, 0.1)
FULL = {"seeds": (0, 1, 2), "prices": PRICES, "people": 48, "sft": 400, "steps": 100, "prompts": 64}
QUICK = {"seeds": (0,), "prices": (0.02,), "people": 48, "sft": 400, "steps": 60, "prompts": 64}
VIA = " via"


def direct_pays(p_direct, p_steps, price):
    """What the price asks for. Four tokens more are two people and two times " via".

    >>> direct_pays(0.9, 1.0, 0.02), direct_pays(0.9, 1.0, 0.05)
    (False, True)
    """
    return p_direct > p_steps - 4 * price


def reward(price, answer, text, tokens):
    """What one completion earns; two tokens, an answer and the end, cost nothing."""
    return float(bool(text) and text.split()[-1] == answer.strip()) - price * (tokens - 2)


def relations(people, seed):
    """-> the task; task.questions in the order of their rank."""
    import itertools
    import random
    from facts import Table
    from tasks import Problem

    class Relations(Table):
        def __init__(self):
            rng = random.Random(f"relations {seed}")
            self.maps = {name: [rng.randrange(people) for _ in range(people)] for name in "ab"}
            self.questions = [(*names, person) for names in itertools.product("ab", repeat=3) for person in range(people)]
            rng.shuffle(self.questions)
            self.weights = [1 / (rank + 1) for rank in range(len(self.questions))]
            self.pieces = False  # whether questions of one relation are drawn too: in the warm start
            super().__init__(["a", "b", *(f"{i}?" for i in range(people)), *(f" {i}" for i in range(people)), VIA], 4, 6)

        def problem(self, key):
            return Problem(f"{''.join(key[:-1])}{key[-1]}?", self.way(key)[-1], key)

        def way(self, key):
            """-> the people on the way, as tokens: the last one is the answer. The relation next to the person comes first."""
            person, found = key[-1], []
            for name in reversed(key[:-1]):
                person = self.maps[name][person]
                found.append(f" {person}")
            return found

        def draw(self, rng):
            if self.pieces and rng.random() < 0.25:
                return self.problem((rng.choice("ab"), rng.randrange(people)))
            return self.problem(rng.choices(self.questions, self.weights)[0])

        def demonstration(self, problem, rng):
            *between, answer = self.way(problem.key)
            return "".join(VIA + person for person in between) + answer if rng.random() < 0.5 else answer

    return Relations()


def exact(model, task):
    """For every question: the chance to answer at once, that this answer is right, and that the true steps follow a first " via"."""
    import torch
    from sample import score
    encode, ways = task.tokenizer.encode, [task.way(key) for key in task.questions]
    prompts = [encode(task.problem(key).prompt) for key in task.questions]
    with torch.no_grad():
        first = model(torch.tensor(prompts))[:, -1].softmax(-1)
        stepped = torch.tensor([p + encode("".join(VIA + x for x in way[:-1]) + way[-1]) + [task.tokenizer.eos] for p, way in zip(prompts, ways)])
        steps = score(model, stepped)[0][:, 5:].sum(1).exp()  # after the four tokens of the question and the first " via"
    at_once = 1 - first[:, encode(VIA)[0]]
    answer = first[torch.arange(len(ways)), [encode(way[-1])[0] for way in ways]]
    return at_once, answer / at_once.clamp(min=1e-9), steps


def look(model, task, price):
    """-> what is reported of a policy: the chances of all questions, and their means, weighed by frequency."""
    import torch
    at_once, direct, steps = exact(model, task)
    weights = torch.tensor(task.weights) / sum(task.weights)
    pays = torch.tensor([direct_pays(d, s, price) for d, s in zip(direct.tolist(), steps.tolist())])
    return {"at_once": at_once.tolist(), "direct": direct.tolist(), "steps": steps.tolist(),
            "by the rule": float((((at_once > 0.5) == pays) * weights).sum()), "tokens": float(((6 - 4 * at_once) * weights).sum()),
            "right": float(((at_once * direct + (1 - at_once) * steps) * weights).sum())}


def cell(folder, plan, seed):
    """One warm start, and RL from it with every price."""
    import copy
    import facts
    task = relations(plan["people"], seed)
    task.pieces = True
    start = facts.warm_start(task, plan["sft"], seed)
    task.pieces, found = False, {"warm start": look(start, task, 0.0)}
    for price in plan["prices"]:
        model = copy.deepcopy(start)
        facts.reinforce(model, task, lambda problem, text, tokens: reward(price, problem.answer, text, tokens), plan["steps"], seed,
                        prompts=plan["prompts"], lr=1e-3)
        found[str(price)] = look(model, task, price)
    return found


def report(folder, plan, get):
    seeds = plan["seeds"]
    found = get([(seed,) for seed in seeds])
    mean = lambda values: sum(values) / len(values)
    lines = ["| | c |" + "".join(f" rank {low + 1} to {high}: at once | p_direct | p_steps |" for low, high in BINS)
             + " right | tokens | by the rule |", "|" + "---|" * (5 + 3 * len(BINS))]
    rows = [("warm start", "–", [found[seed,]["warm start"] for seed in seeds])]
    rows += [("RL", price, [found[seed,][str(price)] for seed in seeds]) for price in plan["prices"]]
    for name, price, runs in rows:
        bins = [spread((mean(run[what][low:high]) for run in runs), ".2f") for low, high in BINS for what in ("at_once", "direct", "steps")]
        ends = [spread((run[what] for run in runs), form) for what, form in (("right", ".3f"), ("tokens", ".2f"), ("by the rule", ".2f"))]
        lines.append(f"| {name} | {price} | {' | '.join(bins)} | {ends[0]} | {ends[1]} | {'–' if name == 'warm start' else ends[2]} |")
    edges, panels = [2 ** i - 1 for i in range(9)] + [8 * plan["people"]], []
    for what, title in (("at_once", "answered at once"), ("direct", "p_direct")):
        panels.append({"title": title, "x": "rank of the question (its frequency is 1 / rank)", "y": "mean chance", "log": 2, "curves": {
            name if name == "warm start" else f"RL, c = {price}": (
                [low + 1 for low in edges[:-1]], [mean([mean(run[what][low:high]) for run in runs]) for low, high in zip(edges, edges[1:])])
            for name, price, runs in rows}})
    lines.append(f"\n{8 * plan['people']} questions, {plan['sft']} steps of 64 demonstrations, {plan['steps']} steps of RL (dr_grpo) with "
                 f"{8 * plan['prompts']} samples; seeds {', '.join(map(str, seeds))}: mean (lowest to highest). right, tokens: weighed by "
                 "frequency, with EOS.")
    return "\n".join([*lines, "[What it means](claims.md#often-at-once-rarely-by-steps)"]), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
