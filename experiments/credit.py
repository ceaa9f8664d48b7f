"""Who gets the blame? The credit that GRPO, PPO's critic and VinePPO give to each reasoning step, beside the truth.

    python experiments/credit.py            about 30 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/credit.py --quick    3 minutes, once the warm start is there

The claim (arXiv:2410.01679): a critic's values of the states on the way are poor, those of Monte Carlo rollouts are good, and GRPO
does not even try: all tokens of a completion get the same. Here the truth is known, twice:

    could it still succeed?   a step of an attempt after which the target can no longer be reached lost it (`still_possible`)
    will it?                  V(after) - V(before), each the mean of many rollouts of the policy itself

A step's credit is the mean advantage of its tokens; of a critic at lambda 0 their sum, which is V(after) - V(before).
  lost   how often a step that lost the target gets less than one that kept it (AUC: 0.5 is chance), where it could be reached before
  V      correlation with V(after) - V(before), over all steps; the noise of that truth alone keeps it below 1: see `again`,
         the same number of rollouts once more

The setting: countdown, 0.1 million parameters, a policy that does not move, the warm start and GRPO after 40 steps, seeds 0, 1 and 2; the critic is trained
with the policy held fixed. Results: docs/credit.{md,json,png}.
"""
from cells import main, spread, train
from gradient_variance import GROUP, SMALL, run_of

FULL = {"seeds": (0, 1, 2), "policies": ("warm start", "GRPO, 40 steps"), "problems": 24, "K": (1, 4, 9), "many": 32, "critic": 60}
QUICK = {"seeds": (0,), "policies": ("warm start",), "problems": 4, "K": (1, 4), "many": 8, "critic": 4}


def cell(folder, plan, policy, seed):
    import torch
    import checkpoint, evaluate, ppo, sample, verifier
    from grpo import group_advantages
    from methods.vineppo import VinePPO, VinePPOConfig
    from rewards import RewardConfig, rule_rewards
    if policy == "runs":  # first of all, one after the other: they share a warm start
        return {"made": [str(run_of(folder, plan, each, seed)) for each in plan["policies"]]}
    run = run_of(folder, plan, policy, seed)
    critic = checkpoint.load_verifier(train(folder, f"critic-{run.name}", "--algo", "ppo", "--init", run, "--seed", seed, "--prompts",
                                            "256", "--critic-warmup", plan["critic"], *SMALL, steps=plan["critic"]))
    model, task, _ = checkpoint.load_run(run)
    generator = torch.Generator().manual_seed(int(seed))
    rule = lambda rollout: rule_rewards(task, rollout.problems, rollout.completions(task.tokenizer), rollout.finished.tolist(),
                                        RewardConfig())[0]
    problems = evaluate.fixed_problems(task, "val", plan["problems"])
    rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=GROUP), generator)
    r, mask, ends = rule(rollout), rollout.mask, verifier.step_ends(rollout, task)
    with torch.no_grad():
        values = torch.cat([sample.values(critic, tokens) for tokens in rollout.tokens.split(64)])
    gae = lambda lam: ppo.gae(ppo.token_rewards(r, rollout.logprobs, rollout.logprobs, mask, beta=0.0), values, mask, 1.0, lam)[0]
    vine = lambda K: VinePPO(model, task, VinePPOConfig(rollouts=K), generator, rule).advantages(rollout, r)[0]
    whole = lambda A: A[:, None].expand(mask.shape)
    mean = {"grpo": whole(group_advantages(r, GROUP)), "critic, lambda 1": gae(1.0), "critic, lambda 0.95": gae(0.95),
            **{f"{K} rollouts a step": vine(K) for K in plan["K"]}, "again": vine(plan["many"])}
    credit = {name: of_steps(A, ends, mask, "mean") for name, A in mean.items()}
    credit["critic, lambda 0"] = of_steps(gae(0.0), ends, mask, "sum")
    truth, lost = of_steps(vine(plan["many"]), ends, mask, "mean"), losses(task, rollout, ends)
    judged = [i for i, each in enumerate(lost) if each is not None]
    kept = torch.tensor([not lost[i] for i in judged])
    return {name: {"lost": verifier.auc(A[judged], kept), "V": float(torch.corrcoef(torch.stack((A, truth)))[0, 1])}
            for name, A in credit.items()} | {"steps": [len(lost), len(judged), int((~kept).sum())]}


def of_steps(advantages, ends, mask, how):
    """Advantages (B, T) of tokens -> (S,), one number a step, its tokens' "sum" or "mean". ends (B, T): the last token of each step.

    >>> import torch
    >>> ends, mask = torch.tensor([[0, 0, 1, 0, 1, 0]]).bool(), torch.tensor([[0, 1, 1, 1, 1, 0]]).bool()
    >>> of_steps(torch.tensor([[9.0, 1.0, 2.0, 4.0, 5.0, 9.0]]), ends, mask, "sum").tolist()
    [3.0, 9.0]
    """
    before = ends.flatten().cumsum(0) - ends.flatten().long()  # how many steps were complete before each token, over all rows
    found = advantages.new_zeros(int(ends.sum())).scatter_reduce_(0, before[mask.flatten()], advantages[mask].float(), how, include_self=False)
    return found


def losses(task, rollout, ends):
    """Of every step, in the order of `ends`: did it lose the target? True or False; None where there was nothing to lose, or no step of
    an attempt (the answer, a mark)."""
    found, tokens, starts = [], rollout.tokens.tolist(), rollout.prompt_lengths.tolist()
    for b, t in ends.nonzero().tolist():
        text = task.tokenizer.decode(tokens[b][starts[b]:t + 1])
        attempt = text.split("<think>")[-1].split("\n")[-1]  # as far as it has come
        before = attempt.removesuffix(", ").rpartition(", ")
        inside = "</think>" not in text and text.endswith(", ")
        could = inside and task.still_possible(rollout.problems[b], before[0] + before[1])
        found.append(not task.still_possible(rollout.problems[b], attempt) if could else None)
    return found


def report(folder, plan, get):
    seeds, policies = plan["seeds"], plan["policies"]
    get([("runs", seed) for seed in seeds])
    found = get([(policy, seed) for policy in policies for seed in seeds])
    names = [name for name in found[policies[0], seeds[0]] if name != "steps"]
    lines = ["| credit | " + " | ".join(f"{p}: lost | V" for p in policies) + " |", "|---|" + "---|---|" * len(policies)]
    for name in names:
        cells = [spread(found[policy, seed][name][what] for seed in seeds) for policy in policies for what in ("lost", "V")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    steps = [found[policies[0], seed]["steps"] for seed in seeds]
    lines.append(f"\nSteps a cell (of the {policies[0]}, one number a seed): {', '.join(str(s) for s, _, _ in steps)}; of these "
                 f"{', '.join(str(j) for _, j, _ in steps)} from where the target could be reached, {', '.join(str(n) for *_, n in steps)} lost it.")
    places = list(range(1, len(names) + 1))
    lines.append("In the picture 1 is " + ", ".join(f"{k} {name}" if k > 1 else name for k, name in zip(places, names)) + ".")
    return "\n".join(lines), [{"title": policy, "x": "credit, in the order of the table", "y": "AUC: the step that lost it", "curves": {
        f"seed {seed}": (places, [found[policy, seed][name]["lost"] for name in names]) for seed in seeds}} for policy in policies]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
