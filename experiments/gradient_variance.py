"""How noisy is a policy gradient? The same policy, the same samples, other baselines.

    python experiments/gradient_variance.py            about 40 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/gradient_variance.py --quick    3 minutes, once the warm start is there

The claim: a baseline takes noise away and leaves the mean where it is; the better it knows what is to
come, the more. No baseline, the group's mean, the mean of the others, a critic (ppo.py, trained with
the policy held fixed), and K rollouts from before each reasoning step (VinePPO).

The setting: countdown, a policy that does not move: the warm start, and the same after 20 steps of GRPO; seeds 0, 1 and 2. Many
batches of 16 problems with 8 samples; each batch gives one gradient for every estimator, of the expected reward (sum over tokens, constant
scale, ratio 1). Noise: the trace of the covariance of these gradients over the squared length of their mean, both without bias; halving it is worth
twice as many samples. Noise times tokens: what counts if rollouts and samples cost the same. Results: docs/gradient_variance.{md,json,png}.
"""
from cells import main, spread, train

FULL = {"seeds": (0, 1, 2), "policies": ("warm start", "GRPO, 20 steps"), "batches": 60, "prompts": 16, "K": (1, 4, 9), "critic": 60}
QUICK = {"seeds": (0,), "policies": ("warm start",), "batches": 4, "prompts": 4, "K": (1, 4), "critic": 4}
GROUP = 8


def run_of(folder, plan, policy, seed):
    """-> the run whose policy is held fixed."""
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed)
    return warm if policy == "warm start" else train(folder, f"grpo-{seed}", "--algo", "grpo", "--init", warm, "--seed", seed, steps=20)


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
                                            "256", "--critic-warmup", plan["critic"], steps=plan["critic"]))
    model, task, _ = checkpoint.load_run(run)
    rng, generator = random.Random(f"variance {seed}"), torch.Generator().manual_seed(int(seed))
    rule = lambda rollout: rule_rewards(task, rollout.problems, rollout.completions(task.tokenizer), rollout.finished.tolist(),
                                        RewardConfig())[0]
    vine = {K: VinePPO(model, task, VinePPOConfig(rollouts=K), generator, rule) for K in plan["K"]}
    found = {}
    for _ in range(plan["batches"]):
        problems = [task.sample_problem(rng, "train") for _ in range(plan["prompts"])]
        rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=GROUP), generator)
        r, mask = rule(rollout), rollout.mask
        with torch.no_grad():
            values = torch.cat([sample.values(critic, tokens) for tokens in rollout.tokens.split(64)])
        per_token = ppo.token_rewards(r, rollout.logprobs, rollout.logprobs, mask, beta=0.0)
        gae = lambda lam: ppo.gae(per_token, values, mask, 1.0, lam)[0]
        whole = lambda A: A[:, None].expand(mask.shape)
        advantages = {"no baseline": whole(r), "group's mean": whole(group_advantages(r, GROUP, std=False)),
                      "leave-one-out": whole(group_advantages(r, GROUP, std=False, baseline="leave_one_out")),
                      "critic, lambda 1": gae(1.0), "critic, lambda 0.95": gae(0.95)}
        cost = dict.fromkeys(advantages, rollout.sampled_tokens)
        for K, method in vine.items():
            rollout.discarded = 0
            name = f"{K} rollouts a step"
            advantages[name], _, _ = method.advantages(rollout, r)
            cost[name] = rollout.sampled_tokens + rollout.discarded
        for name, A in advantages.items():
            add(found.setdefault(name, [0, 0.0, 0.0, 0]), gradient(model, rollout, A, task.max_new_tokens), cost[name])
    return {name: {"noise": noise(n, total, squares), "tokens": tokens / n} for name, (n, total, squares, tokens) in found.items()}


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


def add(sums, g, tokens):
    """How many, their sum, the sum of their squared lengths, tokens: one gradient more."""
    sums[0], sums[1], sums[2], sums[3] = sums[0] + 1, sums[1] + g, sums[2] + float(g @ g), sums[3] + tokens


def noise(n, total, squares):
    """tr Cov(g) / |E g|^2 from n gradients: their sum (P,), and the sum of their squared lengths. nan if the mean drowns in the noise.

    >>> import torch
    >>> noise(2, torch.tensor([4.0, 0.0]), 10.0)                   # gradients (1, 0) and (3, 0): variance 2, mean 2
    0.6666666666666666
    """
    mean = total / n
    variance = (squares - n * float(mean @ mean)) / (n - 1)
    signal = float(mean @ mean) - variance / n  # the squared mean holds a share of the noise
    return variance / signal if signal > 0 else float("nan")


def report(folder, plan, get):
    seeds, policies = plan["seeds"], plan["policies"]
    get([("runs", seed) for seed in seeds])
    found = get([(policy, seed) for policy in policies for seed in seeds])
    names = list(found[policies[0], seeds[0]])
    lines = ["| estimator | " + " | ".join(f"{p}: noise | tokens | noise × tokens, in thousands" for p in policies) + " |",
             "|---|" + "---|---|---|" * len(policies)]
    for name in names:
        row = []
        for policy in policies:
            each = [found[policy, seed][name] for seed in seeds]
            row += [spread((e["noise"] for e in each), ".1f"), spread((e["tokens"] for e in each), "d"),
                    spread((e["noise"] * e["tokens"] / 1000 for e in each), ".0f")]
        lines.append(f"| {name} | {' | '.join(row)} |")
    places = list(range(1, len(names) + 1))
    lines.append("\nIn the picture 1 is " + ", ".join(f"{k} {name}" if k > 1 else name for k, name in zip(places, names)) + ".")
    return "\n".join(lines), [{"title": f"{policy}", "x": "estimator, in the order of the table", "y": "noise", "curves": {
        f"seed {seed}": (places, [found[policy, seed][name]["noise"] for name in names]) for seed in seeds}} for policy in policies]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
