"""How noisy is a policy gradient? The same policy, the same samples, other baselines.

    python experiments/gradient_variance.py            about 20 minutes of one core; goes on cell by cell where it was stopped
    python experiments/gradient_variance.py --quick    2 minutes, its warm start included

The claim: a baseline takes noise away and leaves the mean where it is; the better it knows what is to
come, the more. No baseline, the best constant (b* = E[r |s|^2] / E|s|^2, Greensmith et al. 2004), the mean of the others in the group (the group's own mean is the same times 7/8), a
critic (ppo.py, trained with the policy held fixed), and K rollouts from before each reasoning step (VinePPO).

    g = sum_t A_t s_t,  s_t = grad log pi(y_t)       E |g|^2 = sum_t E[A_t^2 |s_t|^2]       if the s_t are uncorrelated given A

So theory says: the variance goes as the mean of A_t^2 (1 - pi(y_t))^2, for (1 - pi(y_t)) is the size of the score of the chosen logit.
With A = r - b and a right share p it falls from p to p (1 - p) (1 + 1/7): little to gain where p is small.

The setting: countdown, 0.1 million parameters, a policy that does not move: the warm start, and the same after 40 steps of GRPO; seeds 0, 1
and 2. Many batches of 16 problems with 8 samples; each batch gives one gradient for every estimator, of the expected reward (sum over
tokens, constant scale, ratio 1). Variance: the trace of the covariance of these gradients. Noise: that over the squared length of their mean,
both without bias; halving it is worth twice as many samples. Variance times tokens: what counts if rollouts and samples cost the same.
Results: docs/gradient_variance.{md,json,png}.
"""
import math

from cells import main, spread, train

SMALL = ["--n-layer", "2", "--n-embd", "64"]
FULL = {"seeds": (0, 1, 2), "policies": ("warm start", "GRPO, 40 steps"), "batches": 24, "prompts": 16, "K": (1, 4), "critic": 20}
QUICK = {"seeds": (0,), "policies": ("warm start",), "batches": 6, "prompts": 8, "K": (1, 4), "critic": 10}
GROUP = 8


def run_of(folder, plan, policy, seed):
    """-> the run whose policy is held fixed."""
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed, *SMALL)
    return warm if policy == "warm start" else train(folder, f"grpo-{seed}", "--algo", "grpo", "--init", warm, "--seed", seed, *SMALL,
                                                     steps=40)


def cell(folder, plan, policy, seed):
    import random
    import torch
    import checkpoint, ppo, sample
    from grpo import group_advantages
    from methods.vineppo import VinePPO, VinePPOConfig
    from rewards import RewardConfig, rule_rewards
    if policy == "runs":  # first of all, one after the other: they share a warm start
        return {"made": [str(run_of(folder, plan, each, seed)) for each in plan["policies"]]}
    run = run_of(folder, plan, policy, seed)
    critic = checkpoint.load_verifier(train(folder, f"critic-{run.name}", "--algo", "ppo", "--init", run, "--seed", seed, "--prompts",
                                            "256", "--critic-warmup", plan["critic"], *SMALL, steps=plan["critic"]))
    model, task, _ = checkpoint.load_run(run)
    rng, generator = random.Random(f"variance {seed}"), torch.Generator().manual_seed(int(seed))
    rule = lambda rollout: rule_rewards(task, rollout.problems, rollout.completions(task.tokenizer), rollout.finished.tolist(),
                                        RewardConfig())[0]
    vine = {K: VinePPO(model, task, VinePPOConfig(rollouts=K), generator, rule) for K in plan["K"]}
    found, rewards, cross = {}, 0.0, 0.0
    for _ in range(plan["batches"]):
        problems = [task.sample_problem(rng, "train") for _ in range(plan["prompts"])]
        rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=GROUP), generator)
        r, mask = rule(rollout), rollout.mask
        with torch.no_grad():
            values = torch.cat([sample.values(critic, tokens) for tokens in rollout.tokens.split(64)])
        per_token = ppo.token_rewards(r, rollout.logprobs, rollout.logprobs, mask, beta=0.0)
        gae = lambda lam: ppo.gae(per_token, values, mask, 1.0, lam)[0]
        whole = lambda A: A[:, None].expand(mask.shape)
        advantages = {"no baseline": whole(r), "score": whole(torch.ones_like(r)),
                      "mean of the others": whole(group_advantages(r, GROUP, std=False, baseline="leave_one_out")),
                      "critic, lambda 1": gae(1.0), "critic, lambda 0.95 (biased)": gae(0.95)}
        cost = dict.fromkeys(advantages, rollout.sampled_tokens)
        for K, method in vine.items():
            rollout.discarded = 0
            name = f"{K} rollouts a step"
            advantages[name], _, _ = method.advantages(rollout, r)
            cost[name] = rollout.sampled_tokens + rollout.discarded
        surprise = mask * (1 - rollout.logprobs.exp()) ** 2  # |s_t|^2, by its largest part
        g = {name: gradient(model, rollout, A, task.max_new_tokens) for name, A in advantages.items()}
        for name, A in advantages.items():
            add(found.setdefault(name, [0, 0.0, 0.0, 0, 0.0]), g[name], cost[name], float((A ** 2 * surprise).sum()))
        rewards, cross = rewards + float(r.mean()), cross + float(g["no baseline"] @ g["score"])
    result = {name: {"variance": variance(*sums[:3]), "noise": noise(*sums[:3]), "tokens": sums[3] / sums[0], "theory": sums[4] / sums[0]}
              for name, sums in found.items()}
    # g(b) = g(0) - b g_score, so its variance is a parabola in b: one constant is best.
    n, total, score, none = plan["batches"], found["no baseline"][1], result.pop("score")["variance"], result["no baseline"]
    covariance = (cross - float(total @ found["score"][1]) / n) / (n - 1)
    best = none["variance"] - covariance ** 2 / score
    result["best constant"] = none | {"variance": best, "noise": none["noise"] * relative(best, none["variance"]), "theory": None}
    return result | {"constants": {"best": covariance / score, "mean reward": rewards / n}}


def gradient(model, rollout, advantages, limit):
    """The gradient of the expected reward, as one vector."""
    import torch
    from grpo import token_weights
    from sample import score
    weights = token_weights(rollout.mask, "constant", limit) * advantages
    model.zero_grad(set_to_none=True)
    for rows in torch.arange(len(weights)).split(64):
        (score(model, rollout.tokens[rows])[0] * weights[rows]).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def add(sums, g, tokens, theory):
    """How many, their sum, the sum of their squared lengths, tokens, what theory says: one gradient more."""
    for i, each in enumerate((1, g, float(g @ g), tokens, theory)):
        sums[i] = sums[i] + each


def variance(n, total, squares):
    """tr Cov(g), without bias; arguments as below."""
    return (squares - float(total @ total) / n) / (n - 1)


def noise(n, total, squares):
    """tr Cov(g) / |E g|^2 from n gradients: their sum (P,), and the sum of their squared lengths. nan if the mean drowns in the noise.

    >>> import torch
    >>> noise(2, torch.tensor([4.0, 0.0]), 10.0)                   # gradients (1, 0) and (3, 0): variance 2, mean 2
    0.6666666666666666
    """
    v = variance(n, total, squares)
    signal = float(total @ total) / n ** 2 - v / n  # the squared mean holds a share of the noise
    return v / signal if signal > 0 else float("nan")


def relative(x, to):
    return x / to if to else float("nan")  # no right answer, no gradient


def report(folder, plan, get):
    seeds, policies = plan["seeds"], plan["policies"]
    get([("runs", seed) for seed in seeds])
    found = get([(policy, seed) for policy in policies for seed in seeds])
    names, lines, panels = [name for name in found[policies[0], seeds[0]] if name != "constants"], [], []
    names.sort(key=lambda name: ("no baseline", "best constant").index(name) if name in ("no baseline", "best constant") else 2)
    places = list(range(1, len(names) + 1))
    for policy in policies:
        lines += [f"**{policy}**\n", "| estimator | variance | theory | tokens | variance × tokens | noise |", "|---|---|---|---|---|---|"]
        for name in names:
            pairs = [(found[policy, seed][name], found[policy, seed]["no baseline"]) for seed in seeds]
            ratio = lambda *keys: spread(math.prod(relative(e[key], none[key]) for key in keys) for e, none in pairs)
            theory = ratio("theory") if pairs[0][0]["theory"] is not None else "–"
            lines.append(f"| {name} | {ratio('variance')} | {theory} | {ratio('tokens')} | {ratio('variance', 'tokens')} | "
                         f"{spread((e['noise'] for e, _ in pairs), '.1f')} |")
        constant = lambda which: spread(found[policy, seed]["constants"][which] for seed in seeds)
        lines.append(f"\nThe best constant is {constant('best')}; the mean reward is {constant('mean reward')}.\n")
        panels.append({"title": policy, "x": "estimator, in the order of the table", "y": "variance, no baseline = 1", "curves": {
            f"seed {seed}": (places, [relative(found[policy, seed][name]["variance"], found[policy, seed]["no baseline"]["variance"])
                                      for name in names]) for seed in seeds}})
    return "\n".join(lines) + "\nAll but the noise: 1 is that of no baseline, on the same samples. [What it means](claims.md#baselines-and-their-noise).", panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
