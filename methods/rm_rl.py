"""RL against a learned reward model: the proxy rises and rises; the truth rises, turns and falls.

The idea. Where no rule can judge, a network does (verifier.py). It was trained on samples of the policy
as it was; the more the policy is bent towards what it likes, the less it has seen anything like it, and
the more of what it likes are its mistakes (Goodhart). Here the rule is still there, and looks on: both
are logged, over the distance from the start.

The equations (Gao et al., arXiv:2210.10760; d = sqrt(KL(pi || pi_start)), KL per completion):

    proxy R(y)     orm: sigmoid(head at the end)     prm: min over steps of sigmoid(head)     rm: head at the end
    A_i            = (R_i - mean(R)) / std(R)        and then as in grpo.py
    true reward    d (alpha - beta log d) is their fit for reinforcement learning; d (alpha - beta d) for Best-of-N

The recipe:
  1. before the first step --judges judges are trained, each on samples of its own of the warm start, marked by the
     rule; or one is given (--judge-run RUN: a run of --algo orm, prm, rm, or ppo for its critic);
  2. sample (`collect`); the judges score (`proxy`); update as GRPO does, on the proxy alone.

Remedies: --beta, a KL in the loss; --judges 4 with --ensemble min, what the most critical one says
(arXiv:2310.02743); --fresh-judge 20, new judges every 20 steps, trained on what the policy writes now.

What is simplified: the judge's labels are the rule's, so it is wrong only where it has not learned; people are
wrong in their own ways. A completion that was cut off is scored like any other.
"""
import random
from dataclasses import dataclass

import torch

import checkpoint
from config import InputError, setting
from grpo import GRPO, GRPOConfig
from model import ScalarModel
from verifier import Verifier, VerifierConfig, auc, step_ends


@dataclass
class RMRLConfig(GRPOConfig):
    """learned reward"""
    judge_run: str = setting("", "run whose verifier or critic is the judge; empty: judges are trained at the start")
    judge_kind: str = setting("orm", "what kind of judge is trained, see verifier.py", choices=("orm", "prm", "rm"))
    judges: int = setting(1, "how many judges are trained", low=1, high=64)
    ensemble: str = setting("mean", "what several judges say together", choices=("mean", "min"))
    judge_steps: int = setting(20, "optimizer steps of each judge, on fresh samples", low=1, high=10**6)
    judge_lr: float = setting(1e-3, "AdamW's rate, judges", low=0.0, high=1.0)
    fresh_judge: int = setting(0, "steps after which the judges are trained anew; 0: never", low=0, high=10**7)


@torch.no_grad()
def judge_scores(judge, kind, rollout, task, batch=256):
    """R of the equations above: what a ScalarModel says of completions -> (B,)."""
    scores = torch.cat([judge(tokens) for tokens in rollout.tokens.split(batch)])  # (B, T), after each token
    if kind == "prm":
        return scores.sigmoid().masked_fill(~step_ends(rollout, task), 1.0).amin(1)
    place = rollout.lengths - 1 - (rollout.finished.long() if kind == "ppo" else 0)  # a critic: before EOS, see verifier.judged
    last = scores.gather(1, place[:, None])[:, 0]
    return last.sigmoid() if kind == "orm" else last


class RMRL(GRPO):
    """The algorithm as train.py sees it: see method.py. InputError if the given judge cannot be used."""
    Config, saved = RMRLConfig, (*GRPO.saved, "judges")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.kind, count = config.judge_kind, 0 if config.judge_run else config.judges
        self.judges = torch.nn.ModuleList(ScalarModel(policy) for _ in range(count)).requires_grad_(False)
        if config.judge_run:
            given = checkpoint.load_verifier(config.judge_run, policy.device)
            if given.vocabulary != task.tokenizer.vocabulary:
                raise InputError(f"--judge-run {config.judge_run}: its vocabulary is that of another task than {task.name}")
            if given.backbone.config.block_size < policy.config.block_size:
                raise InputError(f"--judge-run {config.judge_run}: its context is shorter than the {policy.config.block_size} tokens of this run")
            self.kind = given.kind
            self.judges.append(given)

    def train_judges(self):
        """New judges, on samples of the policy as it is -> how many tokens these were."""
        c, cost = self.config, 0
        config = VerifierConfig(kind=c.judge_kind, prompts=c.prompts, temperature=c.temperature, max_new_tokens=c.max_new_tokens,
                                lr=c.judge_lr)
        for k in range(len(self.judges)):
            rng = random.Random(int(torch.randint(2**31, (), generator=self.generator, device=self.policy.device)))
            verifier = Verifier(self.policy, self.task, config, self.generator)
            for _ in range(c.judge_steps):
                rollout = verifier.collect([self.task.sample_problem(rng, "train") for _ in range(c.prompts)])
                verifier.update(rollout, rollout.right(self.task).float())
                cost += rollout.sampled_tokens + rollout.discarded
            self.judges[k].load_state_dict(verifier.reward_model.state_dict())
        return cost

    def collect(self, problems):
        c, cost = self.config, 0
        if not c.judge_run and (self.steps == 0 or c.fresh_judge and self.steps % c.fresh_judge == 0):
            cost = self.train_judges()
        rollout = super().collect(problems)
        rollout.discarded += cost
        return rollout

    def proxy(self, rollout):
        """What the judges say together -> (B,)."""
        said = torch.stack([judge_scores(judge, self.kind, rollout, self.task) for judge in self.judges])
        return said.amin(0) if self.config.ensemble == "min" else said.mean(0)

    def update(self, rollout, rewards):
        """The rewards of the rule are only measured -> metrics, a dict of floats (see docs/glossary.md)."""
        proxy, right = self.proxy(rollout), rollout.right(self.task)
        metrics = {"proxy": float(proxy.mean()), "proxy_std": float(proxy.std(correction=0))}
        if 0 < int(right.sum()) < len(right):
            metrics["auc"] = auc(proxy, right)
        metrics |= super().update(rollout, proxy)
        return metrics | {"kl_completion": metrics["kl"] * float(rollout.mask.sum()) / len(right)}


# Exercises
# 1. Train for 200 steps and plot `accuracy` and `proxy` over sqrt(kl_completion). Where does the truth turn? Then --beta 0.05,
#    --judges 4 --ensemble min, --fresh-judge 20: which of them moves the turn, and which only slows the way to it?
# 2. Read samples.txt after the turn. What does the judge like? Is it the same thing with another --seed?
# 3. --judge-kind prm has a chance to be fooled at every step, and takes the worst. Replace the minimum by the product.
#    test_a_process_judge_says_what_its_worst_step_says fails: what does the policy do about the number of steps?
