"""What becomes of a model that is trained on what it wrote itself, generation after generation?

    python experiments/model_collapse.py            some minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/model_collapse.py --quick    under 2 minutes: one seed, three arms, five generations

The claim (arXiv:2305.17493): imitating one's own samples forgets the data that came first, the rare things before the common ones;
a tenth of the first data, kept, slows this down. What arXiv:2406.07515 adds: if somebody verifies the samples, the loop need not
collapse.

    pi_g+1 = argmin over pi  - 1/N sum over the tokens of N samples of pi_g  log pi(y_t | x, y_<t)

In expectation a sample of pi_g says nothing new: the mean of grad log pi_g over pi_g is 0. What drives the loop is that N is finite, and
that a few epochs learn these N by heart: what happened not to be drawn is gone for good. So N is small here, and there are
several epochs. Temperature is 1, and the problems are always new ones of the train split: only the completions are the model's.

The arms, each with N completions a generation:
  own               samples of the last generation
  own, 10 % real    a tenth of them are demonstrations in their place, always the same ones
  own, 10 % new     the same, but drawn anew for each generation, as in the paper
  own, right        samples that the rule accepts (it is asked until there are N)
  real              fresh demonstrations of the teacher: does the training itself do harm?

What is simplified: a generation goes on from the weights of the last one, where the paper begins again from the pretrained model.
The setting: countdown with two numbers up to 30, 2 layers, width 64. Test problems, 8 samples each.
Results: docs/model_collapse.{md,json,png}.
"""
import math
import random

from cells import main, spread, train

ARMS = {  # samples are verified; share of real demonstrations; these are kept
    "own": (False, 0.0, False), "own, 10 % real": (False, 0.1, True), "own, 10 % new": (False, 0.1, False),
    "own, right": (True, 0.0, False), "real": (False, 1.0, False)}
TINY = ["--numbers", 2, "--max-number", 30, "--n-layer", 2, "--n-embd", 64]
FULL = {"seeds": (0, 1, 2), "arms": tuple(ARMS), "generations": 10, "N": 256, "epochs": 5, "sft": 400, "problems": 200}
QUICK = {"seeds": (0,), "arms": ("own", "own, right", "real"), "generations": 5, "N": 128, "epochs": 5, "sft": 300, "problems": 60}
MEASURES = {"accuracy": "share of right answers", "distinct": "different answers among 8", "entropy": "entropy, nats per token",
            "perplexity": "perplexity of real demonstrations", "attempts": "attempts per answer"}


def own_samples(model, task, count, verified, rng, generator):
    """`count` completions of the model to new training problems -> list of (row of ids, where the completion begins)."""
    from sample import SamplingConfig, collect
    kept = []
    while len(kept) < count:
        problems = [task.sample_problem(rng, "train") for _ in range(count)]
        rollout = collect(model, task, problems, SamplingConfig(group_size=1), generator)
        wanted = rollout.right(task) if verified else rollout.lengths > 0
        for row, start, end, yes in zip(*(x.tolist() for x in (rollout.tokens, rollout.prompt_lengths, rollout.lengths, wanted))):
            if yes:
                kept.append((row[:end], start))
    return kept[:count]


def imitate(model, rows, epochs, rng, pad, batch=64):
    """Train `model` in place on rows as `own_samples` makes them, as the warm start does: the rate falls to nothing at the end."""
    import torch
    from model import make_optimizer
    from sample import completion_mask
    from sft import SFTConfig, schedule, sft_step
    c = SFTConfig()
    optimizer, rows, steps = make_optimizer(model, c.sft_lr, c.sft_muon_lr), list(rows), epochs * math.ceil(len(rows) / batch)
    for step in range(steps):
        k = step % math.ceil(len(rows) / batch)
        if k == 0:
            rng.shuffle(rows)
        some = rows[k * batch:(k + 1) * batch]
        T = max(len(row) for row, _ in some)
        tokens = torch.tensor([row + [pad] * (T - len(row)) for row, _ in some])
        mask = completion_mask(torch.tensor([start for _, start in some]), torch.tensor([len(row) for row, _ in some]), T)
        sft_step(model, optimizer, tokens, mask, c.sft_micro_batch, schedule(step / steps))


def measure(model, task, problems):
    """-> {measure: a number}, on test problems and on demonstrations of them."""
    import torch
    import sft
    from sample import SamplingConfig, collect, score
    rollout = collect(model, task, problems, SamplingConfig(group_size=8), torch.Generator().manual_seed(0))
    texts = rollout.completions(task.tokenizer)
    answers = [text.partition("</think>")[2] for text in texts]
    tokens, mask = sft.demonstrations(task, 500, random.Random("real demonstrations"), "test")
    with torch.no_grad():
        logprobs, _ = score(model, tokens)
    return {"accuracy": float(rollout.right(task).float().mean()),
            "distinct": sum(len(set(answers[i:i + 8])) for i in range(0, len(answers), 8)) / len(problems),
            "entropy": float(-rollout.logprobs.sum() / rollout.mask.sum()), "perplexity": math.exp(-float(logprobs[mask].mean())),
            "attempts": sum(task.describe(p, text)["attempts"] for p, text in zip(rollout.problems, texts)) / len(texts)}


def cell(folder, plan, arm, seed):
    import torch
    import checkpoint, evaluate
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed, *TINY, "--sft-steps", plan["sft"])
    if arm == "warm":
        return {"made": str(warm)}
    (verified, real, keep), (model, task, _), N = ARMS[arm], checkpoint.load_run(warm), plan["N"]
    rng, generator = random.Random(f"{arm} {seed}"), torch.Generator().manual_seed(int(seed))
    encode, problems = task.tokenizer.encode, evaluate.fixed_problems(task, "test", plan["problems"])

    def demonstrations(count):
        drawn = [task.sample_problem(rng, "train") for _ in range(count)]
        return [(encode(p.prompt) + encode(task.demonstration(p, rng)) + [task.tokenizer.eos], len(encode(p.prompt))) for p in drawn]

    count, found = int(N * real), [measure(model, task, problems)]
    kept = demonstrations(count)
    for _ in range(plan["generations"]):
        rows = (kept if keep else demonstrations(count)) + own_samples(model, task, N - count, verified, rng, generator)
        imitate(model, rows, plan["epochs"], rng, task.tokenizer.pad)
        found.append(measure(model, task, problems))
    return {name: [each[name] for each in found] for name in MEASURES}


def report(folder, plan, get):
    seeds, last = plan["seeds"], plan["generations"]
    get([("warm", seed) for seed in seeds])
    runs = get([(arm, seed) for arm in plan["arms"] for seed in seeds])
    lines = ["| imitated | after | " + " | ".join(MEASURES.values()) + " |", "|---|---|" + "---|" * len(MEASURES)]
    row = lambda name, g, arm: lines.append(f"| {name} | {g} | " + " | ".join(
        spread(runs[arm, seed][measure][g] for seed in seeds) for measure in MEASURES) + " |")
    row("warm start", 0, plan["arms"][0])
    for arm in plan["arms"]:
        for g in (1, last):
            row(arm, g, arm)
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}, lowest to highest in brackets; {plan['N']} completions a generation, "
                 f"{plan['epochs']} epochs; {plan['problems']} test problems, 8 samples each; 500 demonstrations of test problems.")
    mean = lambda arm, name: [sum(x) / len(seeds) for x in zip(*(runs[arm, seed][name] for seed in seeds))]
    panels = [{"title": title, "x": "generation", "y": "mean over the seeds",
               "curves": {arm: (list(range(last + 1)), mean(arm, name), *([f(x) for x in zip(*(runs[arm, seed][name] for seed in seeds))]
                                                                          for f in (min, max))) for arm in plan["arms"]}}
              for name, title in list(MEASURES.items())[:4]]
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
