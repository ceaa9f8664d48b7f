"""Does a chain of thought let a shallow network compute what it cannot compute at once?

    python experiments/serial.py            about 45 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/serial.py --quick    3 minutes

The claim (arXiv:2402.12875): a network of few layers does about as many steps, one after another, as it has layers. Where the
problem needs more of them (squaring again and again, composing permutations, evaluating a circuit) it fails without a chain of
thought and succeeds with one, even at one layer. Modular addition is different: it can be done in parallel.

The setting: imitation only, no reinforcement learning. The same number of training problems with and without chain and for every
depth (400 steps of 64, modular addition 1,200; the default optimizer, width 128), once with demonstrations that always show the
chain and once with the bare answer; 1, 2 and 4 layers; a short and a long problem of each task. One seed. Accuracy: 500 held-out
problems (split test), 4 samples each at temperature 1; in brackets the greedy answer. Chance: the more frequent answer of these
problems for the circuit, 1 / number of answers for the others. The sizes of modular addition were chosen after bare answers with
k = 5 and 8 had stayed at chance; among shorter sums the short lengths seem to help the longer ones.
Results: docs/serial.{md,json,png}.
"""
from cells import main

SIZES = {  # task: (name, options) of the short and the long size; chance (None: the data tell)
    "iterated_squaring": ([("k = 2", {"min_k": 2, "max_k": 2}), ("k = 8", {"min_k": 8, "max_k": 8})], 1 / 983),
    "permutation": ([("k = 2", {"k": 2}), ("k = 4", {"k": 4})], 1 / 120),
    "circuit": ([("3 gates", {"gates": 3}), ("6 gates", {"gates": 6})], None),
    "modular_addition": ([("k = 2 to 4", {"min_k": 2, "max_k": 4}), ("k = 2 to 8", {"min_k": 2, "max_k": 8})], 1 / 7),
}
FULL = {"tasks": tuple(SIZES), "depths": (1, 2, 4), "steps": 400, "problems": 500, "samples": 4}
QUICK = {"tasks": ("iterated_squaring", "modular_addition"), "depths": (1,), "steps": 150, "problems": 100, "samples": 2}
COLOURS = {"on": "with a chain", "off": "without"}


def cell(folder, plan, task_name, size, depth, cot):
    import time
    import torch
    import evaluate, sft, tasks
    from model import GPT, GPTConfig
    options = SIZES[task_name][0][int(size)][1]
    task = tasks.load(task_name, cot=cot, **options)
    torch.manual_seed(0)
    model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, int(depth)))
    started = time.process_time()
    steps = plan["steps"] * (3 if task_name == "modular_addition" else 1)
    losses = sft.warm_start(model, task, sft.SFTConfig(sft_steps=steps), f"serial {task_name} {size}")
    seconds = time.process_time() - started
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    result = evaluate.evaluate(model, task, problems, plan["samples"], (1,))
    answers = [problem.answer for problem in problems]
    constant = max(answers.count(answer) for answer in set(answers)) / len(answers)
    return {name: result[name] for name in ("pass@1", "pass@1_se", "greedy", "length")} | {
        "constant": constant, "loss": losses[-1], "seconds": seconds, "parameters": sum(p.numel() for p in model.parameters())}


def report(folder, plan, get):
    found = get([(name, size, depth, cot)
                 for depth in plan["depths"] for name in plan["tasks"] for size in (0, 1) for cot in ("on", "off")])
    lines = ["| task | size | chance |" + "".join(f" {d} layer{'s' * (d > 1)}: with chain | without |" for d in plan["depths"]),
             "|" + "---|" * (3 + 2 * len(plan["depths"]))]
    panels = []
    for name in plan["tasks"]:
        sizes, chance = SIZES[name]
        curves = {}
        for size, (title, _) in enumerate(sizes):
            floor = chance or found[name, size, plan["depths"][0], "on"]["constant"]
            results = [found[name, size, depth, cot] for depth in plan["depths"] for cot in ("on", "off")]
            row = [f"{r['pass@1']:.3f} ({r['greedy']:.3f})" for r in results]
            lines.append(f"| {name.replace('_', ' ')} | {title} | {floor:.3f} | {' | '.join(row)} |")
            for cot in ("on", "off"):
                curves[f"{COLOURS[cot]}, {title}"] = (plan["depths"], [found[name, size, d, cot]["pass@1"] for d in plan["depths"]])
        panels.append({"title": name.replace("_", " "), "x": "layers", "y": "share of right answers", "curves": curves, "log": 2})
    worst = max(r["pass@1_se"] for r in found.values())
    lines.append(f"\n{plan['steps'] * 64:,} training problems, modular addition three times as many; {plan['problems']} test problems, "
                 f"{plan['samples']} samples each, in brackets greedy; one standard error over the problems is at most {worst:.3f}.")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
