"""rollouts.jsonl: whole groups of samples, token by token, for view.py and for whoever wants to look.

One line is a group, the samples of one problem:

    step, kind      "val": what the policy writes after this step, to the same few problems at every look;
                    "train": a group that this step learned from
    problem         the prompt
    clip            [clip_low, clip_high], if the method has them
    samples         a list; for each:
      tokens          what was sampled, as pieces of text, "<|eos|>" included
      reward, right, finished                     the run's reward; is the answer right; did it end by itself
      steps           [number of the last token, is it true, can the attempt still succeed] of each reasoning
                      step, null where that is not known; null in the place of the list: the task cannot tell
      logprobs        of the policy that sampled, nats      entropies     of the choice that the token was made from
      alternatives    [piece, probability] of the LIKELIEST tokens at this place
      ref_logprobs    if there is a reference               values        of the state before the token, with a critic
      advantages      train: as the algorithm used them     ratios        train: what the clip compares, after the update
      clipped         train: numbers of the tokens whose gradient the clip would remove now (cispo: whose weight it would change)

All of a token are aligned with `tokens`. With one optimizer step a batch the ratios are 1 while it is
taken; what stands here is where it has led, and what a second one would find.

Nothing here changes a run: what is sampled has a generator of its own, what is scored has no gradient.
When the file grows beyond LARGEST bytes, every second logged step is dropped.
"""
import contextlib
import json
import re

import torch

from evaluate import fixed_problems
from sample import SamplingConfig, collect, score, values
from tasks.tokenizer import EOS

LARGEST = 16_000_000       # bytes of the file
LOOK = 3, 8                # at a look: so many val problems, so many samples of each
LIKELIEST, RARE = 5, 1e-3  # alternatives of a token; those that are rarer than this are left out


# ------------------------------------------------------------------------------------------- what is known of a sample

@torch.no_grad()
def choices(model, tokens, temperature):
    """What the policy chose from at every place, aligned as by sample.score, which has the log-probs:
    tokens (B, T) -> entropies (B, T), and the probabilities and the ids of the likeliest, each (B, T,
    LIKELIEST). Nothing predicts the first token: 0."""
    logp = torch.log_softmax(model(tokens[:, :-1]) / temperature, dim=-1)
    p = logp.exp()
    found = -(p * logp).sum(-1), *p.topk(LIKELIEST, dim=-1)
    return [torch.cat((x.new_zeros(len(x), 1, *x.shape[2:]), x), dim=1) for x in found]


def step_truths(task, problem, pieces):
    """What is known of each reasoning step -> list of [number of its last token, is it true, can the
    attempt still succeed], or None. pieces: the tokens of a completion as texts.

    Known are the legal steps and the marks of a task with `numbers_left` and `still_possible`
    (countdown), and the steps of a task with one true `chain`. What follows from a false step: None.
    """
    found, text, broken, marks = [], "", False, 0
    if not (hasattr(task, "numbers_left") or hasattr(task, "chain")):
        return None
    for t, piece in enumerate(pieces):
        text += piece
        thought = text.removeprefix("<think>")
        if piece == "</think>":
            break
        if piece == task.step_token and broken:
            found.append([t, None, False])
        elif piece == task.step_token and hasattr(task, "numbers_left"):
            attempt = thought.rpartition("\n")[2].removesuffix(piece)
            broken = task.numbers_left(problem, attempt) is None
            found.append([t, not broken, task.still_possible(problem, text)])
        elif piece == task.step_token:
            broken = not task.chain(problem).startswith(thought)
            found.append([t, not broken, not broken])
        elif piece.endswith("\n") and hasattr(task, "numbers_left"):  # the mark of an attempt; the next one begins anew
            seen = task.describe(problem, text)["correct_marks"]
            found.append([t, seen > marks, None])
            broken, marks = False, seen
    return found


@torch.no_grad()
def other_models(method, rollout, temperature, names=("ref_logprobs", "values")):
    """What the other models of a method say of each token -> {name: (B, T)}, those of `names` that it has."""
    seen = {}
    if "ref_logprobs" in names and getattr(method, "reference", None) is not None:
        seen["ref_logprobs"] = score(method.reference, rollout.tokens, temperature)[0]
    if "values" in names and getattr(method, "critic", None) is not None:
        seen["values"] = values(method.critic, rollout.tokens)
    return seen


@torch.no_grad()
def before_update(method, rollout):
    """log pi_old (B, T) as the update compares with it: what was stored, or, where that was rounded or another policy's, computed anew."""
    stored = method.policy.compute_dtype == torch.float32 and getattr(method.config, "mismatch", "ratio") == "ratio"
    return rollout.logprobs if stored else score(method.policy, rollout.tokens, method.config.temperature)[0].detach()


@torch.no_grad()
def after_update(method, rollout, seen, old):
    """What the update did to each token -> {name: (B, T)}: ratios to exp(old), and which are clipped if there are advantages and a clip."""
    c, mask = method.config, rollout.mask
    log_rho = (score(method.policy, rollout.tokens, c.temperature)[0] - old).masked_fill(~mask, 0.0)
    if getattr(c, "ratio", "token") == "sequence":
        log_rho = (log_rho.sum(1, keepdim=True) / mask.sum(1, keepdim=True)).expand_as(mask)
    rho = log_rho.exp()
    if "advantages" not in seen or not hasattr(c, "clip_low"):
        return {"ratios": rho}
    A = seen["advantages"]
    high, low = rho > 1 + c.clip_high, rho < 1 - c.clip_low
    clipped = (A != 0) & (high | low) if getattr(c, "ratio", "") == "weight" else ((A > 0) & high) | ((A < 0) & low)
    return {"ratios": rho, "clipped": clipped & mask}


# ------------------------------------------------------------------------------------------------------------ the file

def write(run, step, kind, group_size, rollout, rewards, accuracy, seen, alternatives):
    """Append the groups of a rollout to rollouts.jsonl. seen, alternatives: see above."""
    task, config = run.task, run.configs["algorithm"]
    piece = {i: task.tokenizer.decode([i]) for i in range(task.tokenizer.n_vocab)} | {task.tokenizer.eos: EOS}
    rounded = lambda x: x.double().nan_to_num(0.0, 1e6, -1e6).round(decimals=4).tolist()
    clipped, seen = seen.get("clipped"), {name: rounded(x) for name, x in seen.items() if name != "clipped"}
    tokens, starts, ends = rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), rollout.lengths.tolist()
    probs, ids, samples = rounded(alternatives[0]), alternatives[1].tolist(), []
    for b, (start, end) in enumerate(zip(starts, ends)):
        here = slice(start, end)
        pieces = [piece[i] for i in tokens[b][here]]
        samples.append({"tokens": pieces, "reward": round(float(rewards[b]), 4), "right": bool(accuracy[b]),
                        "finished": bool(rollout.finished[b]), "steps": step_truths(task, rollout.problems[b], pieces),
                        **{name: x[b][here] for name, x in seen.items()},
                        **({} if clipped is None else {"clipped": clipped[b, here].nonzero()[:, 0].tolist()}),
                        "alternatives": [[[piece[i], p] for i, p in zip(*place) if p >= RARE]
                                         for place in zip(ids[b][here], probs[b][here])]})
    clip = {"clip": [config.clip_low, config.clip_high]} if hasattr(config, "clip_low") else {}
    run.append("rollouts.jsonl", "".join(
        json.dumps({"step": step, "kind": kind, "problem": rollout.problems[i].prompt, **clip, "samples": samples[i:i + group_size]}) + "\n"
        for i in range(0, len(samples), group_size)))
    if (run.folder / "rollouts.jsonl").stat().st_size > LARGEST:
        thin_out(run)


def place(line):
    """A line of the file -> its step and its kind, without reading the rest.

    >>> place('{"step": 20, "kind": "val", "problem": "Use 3')
    (20, 'val')
    """
    step, kind = re.match(r'\{"step": (\d+), "kind": "(\w+)"', line).groups()
    return int(step), kind


def thin_out(run):
    """Drop every second step that was logged, of the looks and of the training groups; the first of each stays."""
    lines = run.read("rollouts.jsonl").splitlines(keepends=True)
    kept = {step_kind for kind in ("val", "train") for step_kind in sorted({place(line) for line in lines if place(line)[1] == kind})[::2]}
    run.write("rollouts.jsonl", "".join(line for line in lines if place(line) in kept))


def cut_back(run):
    """A run goes on from a checkpoint: what it had logged beyond that will be logged again."""
    lines = run.read("rollouts.jsonl").splitlines(keepends=True)
    run.write("rollouts.jsonl", "".join(line for line in lines if line.endswith("\n") and place(line)[0] <= run.step))


# ----------------------------------------------------------------------------------------------------------- the hooks

def log_look(run):
    """At a look: what the policy writes to the first few val problems; they are the same each time, and so are the random numbers."""
    if f'{{"step": {run.step}, "kind": "val"' in run.read("rollouts.jsonl"):
        return  # the last step was a look already
    problems, group_size = LOOK
    generator = torch.Generator(run.device).manual_seed(0)
    rollout = collect(run.policy, run.task, fixed_problems(run.task, "val", problems),
                      SamplingConfig(group_size=group_size, temperature=run.temperature, max_new_tokens=run.max_new_tokens), generator)
    entropies, *alternatives = choices(run.policy, rollout.tokens, run.temperature)
    write(run, run.step, "val", group_size, rollout, *run.reward(rollout),
          {"logprobs": rollout.logprobs, "entropies": entropies, **other_models(run.method, rollout, run.temperature)}, alternatives)


@contextlib.contextmanager
def logged(run, rollout, rewards, accuracy):
    """Around an update of step run.step + 1: its first --log-rollouts groups, before it and after; of groups
    with fewer than 8 samples so many more that there are as many samples."""
    method, config = run.method, run.configs["algorithm"]
    size = sum(problem is rollout.problems[0] for problem in rollout.problems[:config.group_size])
    count = min(run.loop.log_rollouts * max(size, 8 // size * size), len(rollout.problems))
    if not count:
        yield
        return
    rows = torch.arange(count, device=rollout.tokens.device)
    part, method.seen = rollout.select(torch.arange(count, device=rollout.tokens.device)), {}
    T = int(part.lengths.max())  # nothing is computed behind the longest of them
    part.tokens, part.mask, part.logprobs = part.tokens[:, :T], part.mask[:, :T], part.logprobs[:, :T]
    entropies, *alternatives = choices(method.behavior, part.tokens, config.temperature)
    old = before_update(method, part)
    yield
    seen = {name: (x if x.ndim == 2 else x[:, None].expand_as(rollout.mask))[:count, :T] for name, x in method.seen.items() if len(x) >= count}
    seen |= other_models(method, part, config.temperature, {"ref_logprobs"} - seen.keys())  # a reference does not change; a critic has
    write(run, run.step + 1, "train", size, part, rewards, accuracy,
          {"logprobs": part.logprobs, "entropies": entropies, **seen, **after_update(method, part, seen, old)}, alternatives)
