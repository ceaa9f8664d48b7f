"""What a dialogue needs of the model: to be asked for a word, and to speak a second time.

The idea. The policy that solves a problem can be asked about a solution (tasks/dialogue.py has the texts): the
chance that it gives to "yes" is a verdict, and the mean of the scores it gives a grade. So a model can be its own judge.

    P(w | x) = pi(w | x) / sum_v pi(v | x)          over the words that may stand there: yes and no, 1 to 10, ...

The second turn. A row may hold two answers, with words between that nobody chose:

    x  y1  "Try again."  y2          mask: y1 and y2; never x, never the words between

The end of the first answer is not told to the second turn: the words between take the place of y1's EOS, which gets no gradient.

Used by methods/ and experiments/; nothing else in the core needs it. Source of the verdict as a probability:
generative verifiers (arXiv:2408.15240), of its mean: d-RLAIF (arXiv:2309.00267).
"""
import dataclasses

import torch

from config import InputError
from sample import generate
from tasks.dialogue import AGAIN


def needed(task):
    """InputError if the task has no other prompts than its problems."""
    if not getattr(task.options, "dialogue", 0.0):
        raise InputError("this method asks the model about its own answers: it needs --task countdown, and --dialogue above 0")


@torch.no_grad()
def ask(model, task, prompts, words, batch=512):
    """The chance of each word to come next, among these words: prompts, a list of N lists of token ids -> (N, len(words)) float32.

    words: texts of a single token each, else ValueError.
    """
    ids = [task.tokenizer.encode(word) for word in words]
    if any(len(word) != 1 for word in ids):
        raise ValueError(f"every word must be a single token of task {task.name}: {words}")
    ids, found = torch.tensor(ids, device=model.device)[:, 0], []
    for i in range(0, len(prompts), batch):
        some = prompts[i:i + batch]
        longest = max(map(len, some))
        block = torch.tensor([prompt + [task.tokenizer.pad] * (longest - len(prompt)) for prompt in some], device=model.device)
        last = torch.tensor([len(prompt) - 1 for prompt in some], device=model.device)
        logits = model(block)[torch.arange(len(some), device=model.device), last]
        found.append(logits[:, ids].float().softmax(-1))
    return torch.cat(found) if found else torch.zeros(0, len(words))


def answers(rollout, task):
    """The answer block of every row, its tags included, as token ids -> list of B lists; empty where there is not exactly one.

    Ids and not text: what was sampled is never encoded a second time.
    """
    (start,), (end,) = task.tokenizer.encode("<answer>"), task.tokenizer.encode("</answer>")
    found = []
    for row, first, length in zip(rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), rollout.lengths.tolist()):
        row = row[first:length]
        one = row.count(start) == row.count(end) == 1 and row.index(start) < row.index(end)
        found.append(row[row.index(start):row.index(end) + 1] if one else [])
    return found


def readable(rollout, task):
    """(B,) bool: ended by itself, with one answer block. Of the rest everybody can see that it is wrong, without asking."""
    return rollout.finished & torch.tensor([bool(answer) for answer in answers(rollout, task)], device=rollout.finished.device)


def about(kind, task, rollout):
    """The prompts that ask `kind` ("Check: ", "Score: ", "Critique: ") about every row's answer -> list of B lists of ids."""
    encode = task.tokenizer.encode
    return [encode(kind + problem.prompt) + answer for problem, answer in zip(rollout.problems, answers(rollout, task))]


def second_turn(model, task, rollout, config, generator=None, words=AGAIN):
    """Let `model` answer once more, behind its first answer and `words` -> (second, both), two Rollouts over the same tokens.

    second: the first answer and the words belong to the prompt, so `completions` and `right` are those of the second answer.
    both: the mask holds the tokens of both answers (the EOS of the first is gone), logprobs as they were sampled.
    config: SamplingConfig (temperature, max_new_tokens).
    """
    between, ends = task.tokenizer.encode(words), rollout.lengths - rollout.finished.long()
    prompts = [row[:end] + between for row, end in zip(rollout.tokens.tolist(), ends.tolist())]
    limit, block = config.max_new_tokens or task.max_new_tokens, model.config.block_size
    second = generate(model, prompts, [min(limit, block - len(prompt)) for prompt in prompts], config.temperature,  # one that was cut off is long
                      eos=task.tokenizer.eos, pad=task.tokenizer.pad, generator=generator)
    second.problems = rollout.problems
    T = second.tokens.shape[1]
    fit = lambda x: torch.nn.functional.pad(x, (0, max(0, T - x.shape[1])))[:, :T]
    first = fit(rollout.mask) & (torch.arange(T, device=ends.device) < ends[:, None])
    both = dataclasses.replace(second, mask=second.mask | first, prompt_lengths=rollout.prompt_lengths,
                               logprobs=torch.where(first, fit(rollout.logprobs), second.logprobs))
    return second, both
