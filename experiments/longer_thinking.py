"""Does a policy learn by itself to think longer, and is it the longer thinking that makes it better?

    python experiments/longer_thinking.py            about 15 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/longer_thinking.py --quick    3 minutes, once the warm start is there

The claims: under a rule alone answers grow longer by themselves and accuracy grows with them (DeepSeek-R1-Zero, arXiv:2501.12948);
a price on length gives shorter answers of equal accuracy (Kimi k1.5, arXiv:2501.12599).

The setting: countdown, a warm start of 600 steps, else the defaults but for the room: at most 129 new tokens, enough for nine
attempts, where demonstrations hold at most three. Seeds 0, 1 and 2; GRPO, 45 steps, once as it is and twice with --length-weight 0.2 (the shortest answer of a group earns 0.1,
the longest -0.1, and wrong answers only lose): with advantages divided by the group's standard deviation, and without. Test: 500
problems, 16 samples each. Accuracy by allowed length counts an answer as right if it ended within so many tokens; that is what a
limit would have done to the same sample.
Results: docs/longer_thinking.{md,json,png}.
"""
from cells import main, metrics, spread, train

FULL = {"seeds": (0, 1, 2), "steps": 45, "problems": 500, "samples": 16, "policies": ("warm", "free", "priced", "priced-std")}
QUICK = {"seeds": (0,), "steps": 14, "problems": 100, "samples": 8, "policies": ("warm", "free", "priced")}
ROOM, LIMITS = 129, (16, 25, 38, 51, 64, 77, 90, 103, 129)  # 12 tokens of frame and answer, 13 for an attempt
FLAGS = {"free": [], "priced": ["--length-weight", "0.2", "--no-std"], "priced-std": ["--length-weight", "0.2"]}
NAMES = {"warm": "warm start", "free": "GRPO", "priced": "GRPO, length priced, --no-std", "priced-std": "GRPO, length priced"}


def cell(folder, plan, name, seed):
    import checkpoint, evaluate
    run = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed)
    if name != "warm":
        run = train(folder, f"{name}-{seed}", "--algo", "grpo", "--init", run, "--seed", seed, "--max-new-tokens", ROOM,
                    *FLAGS[name], steps=plan["steps"])
        log = metrics(run)
    # The warm start was made with a shorter context; what it has learned is the same weights in a longer one.
    model, task, _ = checkpoint.load_run(run)
    if model.config.block_size < task.max_prompt_tokens + ROOM:
        from model import GPT, GPTConfig
        c = model.config
        longer = GPT(GPTConfig(c.vocab_size, task.max_prompt_tokens + ROOM, c.n_layer, c.n_head, c.n_embd, c.n_kv_head))
        longer.load_state_dict(model.state_dict())
        model = longer
    judged = evaluate.sample_and_judge(model, task, evaluate.fixed_problems(task, "test", plan["problems"]), plan["samples"], ROOM)
    mean = lambda key: sum(j[key] for j in judged) / len(judged)
    done = [j for j in judged if j["finished"]]
    return {"accuracy": mean("right"), "length": mean("length"), "attempts": mean("attempts"), "finished": mean("finished"),
            "per attempt": sum(j["hits"] for j in judged) / max(1, sum(j["attempts"] for j in judged)),
            "length when right": sum(j["length"] for j in judged if j["right"]) / max(1, sum(j["right"] for j in judged)),
            "length when ended": sum(j["length"] for j in done) / max(1, len(done)),
            "limits": [[limit, sum(j["right"] and j["length"] <= limit for j in judged) / len(judged)] for limit in LIMITS],
            "curve": [] if name == "warm" else [[m["step"], m["length"], m["attempts"], m["accuracy"]] for m in log]}


def report(folder, plan, get):
    import plot
    seeds = plan["seeds"]
    get([("warm", seed) for seed in seeds])
    found = get([(name, seed) for name in plan["policies"] for seed in seeds])
    both = lambda name, key, form=".3f": spread((found[name, seed][key] for seed in seeds), form)
    lines = ["| policy | pass@1 | tokens | attempts | success per attempt | ended by themselves | tokens of right answers |",
             "|" + "---|" * 7]
    lines += [f"| {NAMES[name]} | {both(name, 'accuracy')} | {both(name, 'length', '.1f')} | {both(name, 'attempts', '.2f')} "
              f"| {both(name, 'per attempt')} | {both(name, 'finished')} | {both(name, 'length when right', '.1f')} |"
              for name in plan["policies"]]
    lines += ["", "| right within so many tokens | " + " | ".join(map(str, LIMITS)) + " |", "|" + "---|" * (len(LIMITS) + 1)]
    for name in plan["policies"]:
        cells = zip(*(found[name, seed]["limits"] for seed in seeds))
        lines.append(f"| {NAMES[name]} | " + " | ".join(" / ".join(f"{accuracy:.3f}" for _, accuracy in c) for c in cells) + " |")
    lines.append(f"\nSeeds {' / '.join(map(str, seeds))}; {plan['problems']} test problems, {plan['samples']} samples each, "
                 f"room for {ROOM} tokens.")
    panels = []
    for index, title, unit in ((1, "length", "tokens per answer"), (2, "attempts", "attempts per answer"),
                               (3, "accuracy", "share right")):
        curves = {}
        for name in plan["policies"][1:]:
            for seed in seeds:
                curve = found[name, seed]["curve"]
                curves[f"{name} {seed}"] = ([entry[0] for entry in curve], plot.smooth([entry[index] for entry in curve]))
        panels.append({"title": f"{title} over training", "x": "step", "y": unit, "curves": curves})
    panels.append({"title": f"accuracy by allowed length, seed {seeds[0]}", "x": "allowed tokens", "y": "share right",
                   "curves": {NAMES[name]: tuple(zip(*found[name, seeds[0]]["limits"])) for name in plan["policies"]}})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
