"""The sampling loop, and the scoring of what was sampled.

A policy gradient needs three things of a language model: completions (`generate`), the log-prob of every sampled token at
the time it was sampled (stored by `generate`), and the same log-probs with a gradient (`score`). This file is about doing
that fast without getting it wrong by one.

The loop, in the order of the code:
  1. prefill: all prompts at once, padded on the right; their keys and values go into a cache;
  2. per token: choose a token for every row, store its log-prob, write it at the row's own position, decode one step;
  3. rows that ended leave the batch: a finished row would cost as much as a live one;
  4. "who has finished?" is the only question asked of the device, on a GPU every few tokens and not at every one.

THE INDEXING RULE. Every per-token tensor is (B, T) and aligned with `tokens`: entry [b, t] describes tokens[b, t], given
tokens[b, :t]. What a network puts out is about the token *after* its input; only this file turns "after" into "before".

    tokens    Use  3  ,  5  to make  8  .  <think>  ...  </answer>  EOS  pad  pad
    mask       0   0  0  0     0     0  0     1     ...      1       1    0    0      the policy chose it
    logprobs   0   0  0  0     0     0  0   -0.1    ...    -0.0    -0.2   0    0      log pi(tokens[b, t] | tokens[b, :t])

What is simplified: no top-k, no top-p. The distribution that is sampled from must be the one that is trained.
"""
from dataclasses import dataclass, field

import torch

from config import setting
from model import KVCache


@dataclass
class Rollout:
    """What was sampled. Row i belongs to prompt i // group_size."""
    tokens: torch.Tensor          # (B, T) int64, prompt then completion, padded on the right
    prompt_lengths: torch.Tensor  # (B,) int64
    lengths: torch.Tensor         # (B,) int64: prompt + sampled, EOS included
    mask: torch.Tensor            # (B, T) bool: the policy chose this token (EOS included; prompt and padding never)
    logprobs: torch.Tensor        # (B, T) float32, under the temperature that was sampled with; 0 outside of the mask
    finished: torch.Tensor        # (B,) bool: ended in EOS, not cut off by the limit
    problems: list = field(default_factory=list)  # one a row
    discarded: int = 0            # tokens that were sampled beside these and thrown away (search, labels): they cost too

    def completions(self, tokenizer):
        """-> list of B texts: what was sampled, without EOS."""
        tokens, starts = self.tokens.tolist(), self.prompt_lengths.tolist()
        ends = (self.lengths - self.finished.long()).tolist()
        return [tokenizer.decode(row[start:end]) for row, start, end in zip(tokens, starts, ends)]

    def right(self, task):
        """-> (B,) bool: ended by itself, and the rule accepts the answer."""
        texts, done = self.completions(task.tokenizer), self.finished.tolist()
        return torch.tensor([d and task.verify(problem, text) for problem, text, d in zip(self.problems, texts, done)],
                            device=self.tokens.device)

    def select(self, rows):
        """The given rows (N,) as a rollout of their own."""
        cut = {name: value[rows] for name, value in vars(self).items() if torch.is_tensor(value)}
        return Rollout(**cut, problems=[self.problems[row] for row in rows.tolist()] if self.problems else [])

    @property
    def sampled_tokens(self):
        """How many tokens the policy chose, over all rows: what a rollout costs."""
        return int((self.lengths - self.prompt_lengths).sum())


@dataclass
class SamplingConfig:
    """sampling"""
    prompts: int = setting(64, "problems per step", low=1, high=65536)
    group_size: int = setting(8, "samples per problem", low=1, high=65536)
    temperature: float = setting(1.0, "sampling temperature; 0 is greedy", low=0.0, high=10.0)
    max_new_tokens: int = setting(0, "longest completion; 0: what the task suggests", low=0, high=65536)


_cache = {}  # one buffer for each shape of model, kept between calls: allocating it anew costs more than a short rollout


def _cache_for(model, batch, length):
    c = model.config
    key = (c.n_layer, c.n_head, c.n_embd, model.device, model.compute_dtype)
    cache = _cache.get(key)
    if cache is None or cache.batch < batch or cache.length < length:
        batch, length = max(batch, cache.batch if cache else 0), max(length, cache.length if cache else 0)
        _cache.pop(key, None)  # free the old one first
        cache = _cache[key] = KVCache(c, batch, length, model.device, model.compute_dtype)
    for buffer in cache.keys + cache.values:  # masked keys count for nothing, unless a broken model left a nan: 0 * nan is nan
        buffer[:batch, :, :length].zero_()
    return cache


def choose(logits, temperature, generator):
    """Sample from softmax(logits / temperature). logits (B, V) -> tokens (B,), their logprobs (B,).

    The exponential race: with independent E_v ~ Exp(1), argmax_v p_v / E_v is v with probability p_v. Unlike
    torch.multinomial it needs no answer from the device. Temperature 0 takes the largest logit, with log-probs at 1.
    """
    logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    if temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        race = torch.rand(logprobs.shape, generator=generator, device=logits.device).log_().neg_()  # E = -log(uniform)
        tokens = (logprobs - race.log_()).argmax(-1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


@torch.no_grad()
def generate(model, prompts, max_new_tokens, temperature=1.0, eos=None, pad=0, generator=None, leave=True, stop=None,
             forbid=None):
    """Sample one completion for each prompt.

    prompts: list of B non-empty lists of token ids, of any lengths; neighbours that are equal are read only once.
    max_new_tokens: a limit for all rows, or a list of B limits. eos: the token that ends a row (None: nothing does). stop: another
    token that ends a row, without finishing it: the end of a step. forbid: a token that may not come first. generator:
    torch.Generator on the model's device. leave=False keeps finished rows in the batch (for measuring only).
    -> Rollout, without problems. Raises ValueError if a prompt is empty or the longest row does not fit into block_size.
    """
    if not prompts or not all(prompts):
        raise ValueError("generate needs at least one prompt, and no prompt may be empty")
    device, B = model.device, len(prompts)
    starts = torch.tensor([len(p) for p in prompts])
    limits = torch.as_tensor(max_new_tokens).expand(B)
    longest, width, steps = int(starts.max()), int((starts + limits).max()), int(limits.max())
    if width > model.config.block_size:
        raise ValueError(f"a prompt and its new tokens, {width} together, do not fit into block_size {model.config.block_size}")
    width = min(longest + steps, model.config.block_size)
    tokens = torch.full((B, width), pad)
    for i, prompt in enumerate(prompts):
        tokens[i, :len(prompt)] = torch.tensor(prompt)
    first = [i for i in range(B) if i == 0 or prompts[i] != prompts[i - 1]]  # of each run of equal prompts
    copies = torch.tensor([b - a for a, b in zip(first, first[1:] + [B])])
    tokens, starts, limits = tokens.to(device), starts.to(device), limits.to(device)
    logprobs = torch.zeros(tokens.shape, device=device)
    cache = _cache_for(model, B, width)

    # Rows leave, so from here on `rows[i]` says which row of `tokens` the i-th row of the batch is.
    rows, positions, ends = torch.arange(B, device=device), starts, starts + limits
    done = torch.zeros(B, dtype=torch.bool, device=device)
    patience = 1 if device.type == "cpu" else 8  # on a GPU the question costs more than a few wasted rows
    logits = model.prefill(tokens[first, :longest], starts[first], cache)
    if len(first) < B:
        sources = torch.arange(len(first)).repeat_interleave(copies).to(device)
        cache.keep(sources, longest)
        logits = logits[sources]
    if forbid is not None:
        logits[:, forbid] = float("-inf")
    for step in range(steps):
        chosen, logprob = choose(logits, temperature, generator)
        done = done | (positions >= ends)
        place = positions.clamp(max=width - 1)  # rows that are done may run beyond their end: there they only repeat it
        tokens[rows, place] = torch.where(done, tokens[rows, place], chosen)
        logprobs[rows, place] = torch.where(done, logprobs[rows, place], logprob)
        if eos is not None:
            done = done | (chosen == eos)
        if stop is not None:
            done = done | (chosen == stop)
        if step == steps - 1:
            break
        if leave and step % patience == 0:
            live = (~done).nonzero()[:, 0]
            if len(live) == 0:
                break
            if len(live) <= 0.9 * len(rows):  # moving the others costs about one step: wait until it pays
                cache.keep(live, longest + step)
                rows, positions, ends, done, chosen = (x[live] for x in (rows, positions, ends, done, chosen))
        logits = model.decode(chosen, positions.clamp(max=width - 1), cache, min(longest + step + 1, width))
        positions = positions + 1

    place = torch.arange(width, device=device)
    sampled = (place >= starts[:, None]) & (place < (starts + limits)[:, None])
    ended = torch.zeros_like(sampled)
    for token in (eos, stop):
        if token is not None:
            ended |= sampled & (tokens == token)
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, starts + limits)
    finished = tokens.gather(1, lengths[:, None] - 1)[:, 0] == eos if eos is not None else torch.zeros_like(ended[:, 0])
    T = int(lengths.max())
    return Rollout(tokens[:, :T], starts, lengths, (sampled & (place < lengths[:, None]))[:, :T], logprobs[:, :T], finished)


def collect(model, task, problems, config, generator=None):
    """Sample `config.group_size` completions of every problem -> Rollout, rows of one problem next to each other."""
    prompts = [task.tokenizer.encode(p.prompt) for p in problems]
    rollout = generate(model, [p for p in prompts for _ in range(config.group_size)],
                       config.max_new_tokens or task.max_new_tokens, config.temperature,
                       eos=task.tokenizer.eos, pad=task.tokenizer.pad, generator=generator)
    rollout.problems = [p for p in problems for _ in range(config.group_size)]
    return rollout


def score(model, tokens, temperature=1.0):
    """The log-prob of every token given those before it, with a gradient, and the entropy of the choice it was made from.

    tokens (B, T), not changed -> logprobs (B, T), entropies (B, T), float32, in nats; column 0 is 0, because nothing
    predicts the first token. Divide by the temperature *before* the softmax: sampling did.
    """
    logits = model(tokens[:, :-1]) / temperature
    logp = torch.log_softmax(logits, dim=-1)  # (B, T-1, V): about the token after, hence aligned with tokens[:, 1:]
    logprobs = logp.gather(-1, tokens[:, 1:, None])[..., 0]
    entropies = -(logp.exp() * logp).sum(-1)
    zero = logprobs.new_zeros(len(tokens), 1)
    return torch.cat((zero, logprobs), dim=1), torch.cat((zero, entropies), dim=1)


def values(model, tokens):
    """What a ScalarModel thinks of the state just before each token, with a gradient.

    tokens (B, T) -> values (B, T) float32: entry [b, t] has seen tokens[b, :t] and nothing later; column 0 is 0.
    """
    after = model(tokens[:, :-1])
    return torch.cat((after.new_zeros(len(tokens), 1), after), dim=1)


@torch.no_grad()
def last_values(model, beginnings, endings, batch=512):
    """What a ScalarModel says at the end of each row, where many rows begin alike: like `model(tokens)` at the last tokens,
    cheaper.

    beginnings, endings: lists of N non-empty lists of token ids; row i is beginnings[i] + endings[i]. Neighbours with the same
    beginning share the reading of it. -> (N,) float32.
    """
    trunk, found = model.trunk, []
    for i in range(0, len(beginnings), batch):
        heads, tails = beginnings[i:i + batch], endings[i:i + batch]
        first = [k for k in range(len(heads)) if k == 0 or heads[k] != heads[k - 1]]
        of_head = torch.tensor([sum(k >= f for f in first) - 1 for k in range(len(heads))]) if len(first) < len(heads) else None
        block = lambda rows: torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], device=trunk.device)
        starts, ends = (torch.tensor([len(row) for row in rows], device=trunk.device) for rows in (heads, tails))
        shared, own = block([heads[k] for k in first]), block(tails)
        bound = int((starts + own.shape[1]).max())
        cache = _cache_for(trunk, len(heads), bound)
        with trunk.autocast():
            trunk.hidden(shared, cache)
            if of_head is not None:
                cache.keep(of_head.to(trunk.device), shared.shape[1])
            hidden = trunk.extend(own, starts, cache, bound)
            found.append(model.head(hidden[torch.arange(len(heads), device=trunk.device), ends - 1])[:, 0].float())
    return torch.cat(found) if found else torch.zeros(0)


def join(rollouts):
    """Several rollouts of one policy -> one, padded to the longest."""
    T = max(rollout.tokens.shape[1] for rollout in rollouts)
    pad = lambda x: torch.nn.functional.pad(x, (0, T - x.shape[1])) if x.ndim == 2 else x
    names = [name for name, value in vars(rollouts[0]).items() if torch.is_tensor(value)]
    return Rollout(**{name: torch.cat([pad(getattr(r, name)) for r in rollouts]) for name in names},
                   problems=[problem for r in rollouts for problem in r.problems], discarded=sum(r.discarded for r in rollouts))


@torch.no_grad()
def largest_log_ratio(model, rollout, temperature=1.0, batch=64):
    """The largest |stored - recomputed| log-prob over a rollout's sampled tokens, a float. Before the first update it must be
    rounding, below 1e-4 in float32: otherwise what is trained is not what was sampled."""
    worst = 0.0
    for rows in torch.arange(len(rollout.tokens)).split(batch):
        logprobs, _ = score(model, rollout.tokens[rows], temperature)
        worst = max(worst, float(((logprobs - rollout.logprobs[rows]) * rollout.mask[rows]).abs().max()))
    return worst
