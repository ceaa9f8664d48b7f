"""The sampling loop, and the scoring of what was sampled.

A policy gradient needs three things of a language model: completions (`generate`), the log-prob of
every sampled token at the time it was sampled (stored by `generate`), and the same log-probs with a
gradient (`score`). This file is about doing that fast without getting it wrong by one.

The loop, in the order of the code:
  1. prefill: all prompts at once, padded on the right; their keys and values go into a cache;
  2. per token: decode one step, choose a token for every row, store its log-prob, write it at the row's own position;
  3. rows that ended leave the batch: a finished row would cost as much as a live one;
  4. "who has finished?" is the only question asked of the device, on a GPU every few tokens and not at every one;
  5. on a GPU launching a step's hundred kernels would take longer than running them: it is captured once, as a CUDA graph, for
     each (number of rows, number of keys), and replayed for every token.

THE INDEXING RULE. Every per-token tensor is (B, T) and aligned with `tokens`: entry [b, t] describes
tokens[b, t], given tokens[b, :t]. What a network puts out is about the token *after* its input; only
this file turns "after" into "before".

    tokens    Use  3  ,  5  to make  8  .  <think>  ...  </answer>  EOS  pad  pad
    mask       0   0  0  0     0     0  0     1     ...      1       1    0    0      the policy chose it
    logprobs   0   0  0  0     0     0  0   -0.1    ...    -0.0    -0.2   0    0      log pi(tokens[b, t] | tokens[b, :t])

`stop`, `forbid` and `last_values` serve search alone. Rows are kept in buffers (plumbing/buffers.py):
`evict` takes finished ones out of the batch, and sizes are rounded up to buckets, of which each has a
graph.

What is simplified: no top-k, no top-p. The distribution that is sampled from must be the one that is
trained.
"""
from dataclasses import dataclass, field
from functools import partial

import torch

from config import setting
from plumbing import buffers
from plumbing.buffers import buffers_for, key_bucket, row_bucket


@dataclass
class Rollout:
    """What was sampled. As it is collected, row i belongs to prompt i // group_size."""
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
    temperature: float = setting(1.0, "sampling temperature; the same distribution is trained", low=0.01, high=10.0)
    max_new_tokens: int = setting(0, "longest completion; 0: what the task suggests", low=0, high=65536)


def completion_mask(starts, lengths, T):
    """Which tokens the policy chose: starts (B,), lengths of the prompts, and lengths (B,), of the whole
    rows, EOS included -> (B, T) bool.

    >>> completion_mask(torch.tensor([2, 1]), torch.tensor([4, 2]), 5).int().tolist()
    [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
    """
    place = torch.arange(T, device=starts.device)
    return (place >= starts[:, None]) & (place < lengths[:, None])


def choose(logits, temperature, generator=None, noise=None):
    """Sample from softmax(logits / temperature). logits (B, V) -> tokens (B,), their logprobs (B,).
    `noise` (B, V): numbers uniform in [0, 1), if they have been drawn already.

    The Gumbel trick: with independent u_v uniform and g_v = -log(-log u_v), argmax_v log p_v + g_v is v
    with probability p_v. Unlike torch.multinomial it needs no answer from the device. Temperature 0 takes the largest logit,
    with log-probs at 1.
    """
    logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    if temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        noise = torch.rand(logprobs.shape, generator=generator, device=logits.device) if noise is None else noise
        gumbel = noise.log().neg_().log_().neg_()
        tokens = (logprobs + gumbel).argmax(-1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


# --------------------------------------------------------------------------------------------------- the plain sampler

@torch.no_grad()
def generate_plainly(model, prompts, max_new_tokens, temperature=1.0, eos=None, pad=0, generator=None):
    """Sample one completion for each prompt: what `generate` does, to be read first. -> Rollout,
    without problems.

    No cache: every token reads everything before it again. No row leaves: it costs until the last one
    has ended. Arguments as for `generate`; equal tokens to generate(..., evict=False) on a CPU.
    """
    rows = torch.arange(len(prompts), device=model.device)
    starts = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    ends = starts + torch.as_tensor(max_new_tokens, device=model.device)  # a row may not be longer than this
    width = int(ends.max())
    tokens = torch.tensor([prompt + [pad] * (width - len(prompt)) for prompt in prompts], device=model.device)  # (B, T)
    logprobs, lengths, finished = torch.zeros(tokens.shape, device=model.device), starts.clone(), starts < 0

    while (lengths < ends)[~finished].any():
        # 1. read: rows are padded on the right, so the logits about a row's next token stand at its own last one
        logits = model(tokens[:, :int(lengths.max())])[rows, lengths - 1]  # (B, V)
        # 2. choose a token for every row, and remember how likely it was
        chosen, logprob = choose(logits, temperature, generator)
        # 3. write it behind the rows that are not done yet, each at its own position
        live = ~finished & (lengths < ends)
        tokens[rows[live], lengths[live]] = chosen[live]
        logprobs[rows[live], lengths[live]] = logprob[live]
        lengths = lengths + live
        # 4. a row is done when it has ended itself, or has no room left
        if eos is not None:
            finished = finished | (live & (chosen == eos))

    T = int(lengths.max())
    return Rollout(tokens[:, :T], starts, lengths, completion_mask(starts, lengths, T), logprobs[:, :T], finished)


# -------------------------------------------------------------------------------------- what was sampled, scored again

def score(model, tokens, temperature=1.0):
    """The log-prob of every token given those before it, with a gradient, and the entropy of the choice
    it was made from.

    tokens (B, T), not changed -> logprobs (B, T), entropies (B, T), float32, in nats; column 0 is 0,
    because nothing predicts the first token. Divide by the temperature *before* the softmax: sampling
    did. As there, 0 stands for greedy choices with log-probs at temperature 1.
    """
    logits = model(tokens[:, :-1]) / (temperature or 1.0)
    logp = torch.log_softmax(logits, dim=-1)  # (B, T-1, V): about the token after, hence aligned with tokens[:, 1:]
    logprobs = logp.gather(-1, tokens[:, 1:, None])[..., 0]
    entropies = -(logp.exp() * logp).sum(-1)
    zero = logprobs.new_zeros(len(tokens), 1)
    return torch.cat((zero, logprobs), dim=1), torch.cat((zero, entropies), dim=1)


def values(model, tokens):
    """What a ScalarModel thinks of the state just before each token, with a gradient.

    tokens (B, T) -> values (B, T) float32: entry [b, t] has seen tokens[b, :t] and nothing later;
    column 0 is 0.
    """
    after = model(tokens[:, :-1])
    return torch.cat((after.new_zeros(len(tokens), 1), after), dim=1)


@torch.no_grad()
def largest_log_ratio(model, rollout, temperature=1.0, batch=64):
    """The largest |stored - recomputed| log-prob over a rollout's sampled tokens, a float. Before the
    first update it must be rounding, below 1e-4 in float32: otherwise what is trained is not what was
    sampled."""
    apart = [(score(model, rollout.tokens[rows], temperature)[0] - rollout.logprobs[rows])[rollout.mask[rows]].abs()
             for rows in torch.arange(len(rollout.tokens)).split(batch)]
    return float(torch.cat(apart).max())  # nan if any is: Python's max(worst, nan) would lose it


# ---------------------------------------------------------------------------------------------------- the fast sampler

def write(buf, n, logits, temperature, eos, stop, generator=None, noise=None):
    """Choose the next token of the first n rows, from logits (n, V), and write it at their `positions`;
    a row that is done stays as it is."""
    chosen, logprob = choose(logits, temperature, generator, noise)
    positions, done = buf.positions[:n], buf.done[:n]
    place = buf.rows[:n], positions.clamp(max=buf.length - 1)  # only rows that are done may run beyond the end
    buf.tokens[place] = torch.where(done, buf.tokens[place], chosen)
    buf.logprobs[place] = torch.where(done, buf.logprobs[place], logprob)
    buf.chosen[:n] = chosen
    done |= positions + 1 >= buf.ends[:n]
    for token in (eos, stop):
        if token is not None:
            done |= chosen == token


def advance(model, buf, n, kv_length, *choice):
    """One step of the first n rows: read the token chosen last, choose the next. This is what becomes a
    graph: shapes follow from n and `kv_length` alone, every number lies in `buf`, and nothing is asked
    of the device."""
    logits = model.decode(buf.chosen[:n], buf.positions[:n].clamp(max=buf.length - 1), buf.cache, kv_length)
    buf.positions[:n].add_(1)
    write(buf, n, logits, *choice)


@torch.no_grad()
def generate(model, prompts, max_new_tokens, temperature=1.0, eos=None, pad=0, generator=None, evict=True, stop=None,
             forbid=None):
    """Sample one completion for each prompt.

    prompts: list of B non-empty lists of token ids, of any lengths; neighbours that are equal are read
    only once. max_new_tokens: a limit for all rows, or a list of B limits. eos: the token that ends a
    row (None: nothing does). stop: another token that ends a row, without finishing it: the end of a
    step. forbid: a token that may not come first. generator: torch.Generator on the model's device.
    evict=False keeps finished rows in the batch (for measuring only). -> Rollout, without problems.
    Raises ValueError if a prompt is empty or the longest row does not fit into block_size.
    """
    if not prompts or not all(prompts):
        raise ValueError("generate needs at least one prompt, and no prompt may be empty")
    device, B = model.device, len(prompts)
    starts = torch.tensor([len(p) for p in prompts])
    limits = torch.as_tensor(max_new_tokens).expand(B)
    longest, width, steps = int(starts.max()), int((starts + limits).max()), int(limits.max())
    if width > model.config.block_size:
        raise ValueError(f"a prompt and its new tokens, {width} together, do not fit into block_size {model.config.block_size}: "
                         "lower max_new_tokens, or raise block_size")
    width = min(longest + steps, model.config.block_size)
    n = row_bucket(B, device)  # so many rows are computed
    buf = buffers_for(model, n, key_bucket(width, device, model.config.block_size))
    prompt_tokens = torch.tensor([prompt + [pad] * (longest - len(prompt)) for prompt in prompts]).to(device)
    starts, limits = starts.to(device), limits.to(device)
    tokens, logprobs = buf.tokens[:B, :width].fill_(pad), buf.logprobs[:B, :width].zero_()
    tokens[:, :longest] = prompt_tokens
    buf.rows[:n] = torch.arange(n, device=device)
    buf.positions[:B], buf.ends[:B] = starts, starts + limits
    buf.done[:n] = True  # the idle rows beyond B
    buf.done[:B] = limits == 0

    first = [i for i in range(B) if i == 0 or prompts[i] != prompts[i - 1]]  # of each run of equal prompts
    logits = model.prefill(prompt_tokens[first], starts[first], buf.cache)
    if len(first) < B:
        copies = torch.tensor([b - a for a, b in zip(first, first[1:] + [B])])
        sources = torch.arange(len(first)).repeat_interleave(copies).to(device)
        buf.cache.copy_rows(sources, slice(B), longest)
        logits = logits[sources]
    if forbid is not None:
        logits[:, forbid] = float("-inf")
    write(buf, B, logits, temperature, eos, stop, generator)

    graphs = device.type in buffers.CAPTURE
    weights = tuple((w.data_ptr(), w.shape) for w in (*model.parameters(), *model.buffers())) if graphs else ()
    sync_interval = 1 if device.type == "cpu" else 8  # on a GPU the question costs more than a few wasted rows
    for step in range(1, steps):
        if evict and step % sync_interval == 0:
            live = (~buf.done[:n]).nonzero()[:, 0]
            if len(live) == 0:
                break
            if row_bucket(len(live), device) <= 0.95 * n:  # a few idle rows cost less than the change
                buf.evict(live, n, longest + step - 1)
                n = row_bucket(len(live), device)
        kv_length = key_bucket(min(longest + step, width), device, model.config.block_size)
        if graphs:  # random numbers are drawn outside of the graph: inside, a generator has to be known to it, or it repeats itself
            noise = buf.noise[:n].uniform_(generator=generator)
            buf.replay((weights, n, kv_length, temperature, eos, stop),
                       partial(advance, model, buf, n, kv_length, temperature, eos, stop, None, noise))
        else:
            advance(model, buf, n, kv_length, temperature, eos, stop, generator)

    sampled = completion_mask(starts, starts + limits, width)
    ended = torch.zeros_like(sampled)
    for token in (eos, stop):
        if token is not None:
            ended |= sampled & (tokens == token)
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, starts + limits)
    finished = tokens.gather(1, lengths[:, None] - 1)[:, 0] == eos if eos is not None else torch.zeros_like(ended[:, 0])
    T = int(lengths.max())
    return Rollout(tokens[:, :T].clone(), starts, lengths, completion_mask(starts, lengths, T), logprobs[:, :T].clone(), finished)


# ----------------------------------------------------------------------------------------------------------- around it

def collect(model, task, problems, config, generator=None):
    """Sample `config.group_size` completions of every problem -> Rollout, rows of one problem next to each other."""
    prompts = [task.tokenizer.encode(p.prompt) for p in problems]
    rollout = generate(model, [p for p in prompts for _ in range(config.group_size)],
                       config.max_new_tokens or task.max_new_tokens, config.temperature,
                       eos=task.tokenizer.eos, pad=task.tokenizer.pad, generator=generator)
    rollout.problems = [p for p in problems for _ in range(config.group_size)]
    return rollout


def join(rollouts):
    """Several rollouts of one policy -> one, padded to the longest."""
    T = max(rollout.tokens.shape[1] for rollout in rollouts)
    pad = lambda x: torch.nn.functional.pad(x, (0, T - x.shape[1])) if x.ndim == 2 else x
    names = [name for name, value in vars(rollouts[0]).items() if torch.is_tensor(value)]
    return Rollout(**{name: torch.cat([pad(getattr(r, name)) for r in rollouts]) for name in names},
                   problems=[problem for r in rollouts for problem in r.problems], discarded=sum(r.discarded for r in rollouts))


@torch.no_grad()
def last_values(model, beginnings, endings, batch=512):
    """What a ScalarModel says at the end of each row, where many rows begin alike: like `model(tokens)`
    at the last tokens, cheaper.

    beginnings, endings: lists of N non-empty lists of token ids; row i is beginnings[i] + endings[i].
    Neighbours with the same beginning share the reading of it. -> (N,) float32.
    """
    backbone, found = model.backbone, []
    for i in range(0, len(beginnings), batch):
        heads, tails = beginnings[i:i + batch], endings[i:i + batch]
        first = [k for k in range(len(heads)) if k == 0 or heads[k] != heads[k - 1]]
        of_head = torch.tensor([sum(k >= f for f in first) - 1 for k in range(len(heads))]) if len(first) < len(heads) else None
        block = lambda rows: torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], device=backbone.device)
        starts, ends = (torch.tensor([len(row) for row in rows], device=backbone.device) for rows in (heads, tails))
        shared, own = block([heads[k] for k in first]), block(tails)
        kv_length = int((starts + own.shape[1]).max())
        cache = buffers_for(backbone, len(heads), kv_length).cache
        with backbone.autocast():
            backbone.hidden(shared, cache)
            if of_head is not None:
                cache.copy_rows(of_head.to(backbone.device), slice(len(heads)), shared.shape[1])
            hidden = backbone.prefill_chunk(own, starts, cache, kv_length)
        found.append(model.scores(hidden[torch.arange(len(heads), device=backbone.device), ends - 1]))
    return torch.cat(found) if found else torch.zeros(0)
