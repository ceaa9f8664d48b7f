"""The sampling loop, and the scoring of what was sampled.

A policy gradient needs three things of a language model: completions (`generate`), the log-prob of every sampled token at
the time it was sampled (stored by `generate`), and the same log-probs with a gradient (`score`). This file is about doing
that fast without getting it wrong by one.

The loop, in the order of the code:
  1. prefill: all prompts at once, padded on the right; their keys and values go into a cache;
  2. per token: decode one step, choose a token for every row, store its log-prob, write it at the row's own position;
  3. rows that ended leave the batch: a finished row would cost as much as a live one;
  4. "who has finished?" is the only question asked of the device, on a GPU every few tokens and not at every one;
  5. on a GPU launching a step's hundred kernels would take longer than running them: it is captured once, as a CUDA graph, for
     each (number of rows, number of keys), and replayed for every token.

THE INDEXING RULE. Every per-token tensor is (B, T) and aligned with `tokens`: entry [b, t] describes tokens[b, t], given
tokens[b, :t]. What a network puts out is about the token *after* its input; only this file turns "after" into "before".

    tokens    Use  3  ,  5  to make  8  .  <think>  ...  </answer>  EOS  pad  pad
    mask       0   0  0  0     0     0  0     1     ...      1       1    0    0      the policy chose it
    logprobs   0   0  0  0     0     0  0   -0.1    ...    -0.0    -0.2   0    0      log pi(tokens[b, t] | tokens[b, :t])

What is simplified: no top-k, no top-p. The distribution that is sampled from must be the one that is trained.
"""
from dataclasses import dataclass, field
from functools import partial

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
    temperature: float = setting(1.0, "sampling temperature; the same distribution is trained", low=0.01, high=10.0)
    max_new_tokens: int = setting(0, "longest completion; 0: what the task suggests", low=0, high=65536)


CAPTURE = ("cuda",)  # kinds of device on which steps become CUDA graphs; with () none do, which is slower and simpler


class Buffers:
    """All that a step of sampling reads and writes. It is kept between calls: allocating it anew costs more than a short rollout,
    and a graph looks for its numbers where they lay when it was captured.

    Rows leave, so `rows[i]` says which row of `tokens` the i-th of the batch is; `chosen[i]` is its last token, at `positions[i]`.
    """

    def __init__(self, config, batch, length, device, dtype):
        self.batch, self.length = batch, length
        self.cache = KVCache(config, batch, length, device, dtype)
        self.tokens = torch.zeros(batch, length, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(batch, length, device=device)
        self.rows, self.positions, self.ends, self.chosen = torch.zeros(4, batch, dtype=torch.long, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        if device.type in CAPTURE:
            self.noise = torch.zeros(batch, config.vocab_size, device=device)
            self.graphs = {}

    def leave(self, live, n, length):
        """Of the first n rows only `live` (N,) go on. Those that lie behind the first N change places with rows that are done;
        the others stay where they are: moving all, `length` keys and values of each, would cost as much as a step."""
        N = len(live)
        behind, free = live[live >= N], self.done[:N].nonzero()[:, 0]
        order = torch.arange(n, device=live.device)
        order[free], order[behind] = behind, free
        for x in (self.rows, self.positions, self.ends, self.chosen, self.done):
            x[:n] = x[order]
        self.cache.move(behind, free, length)

    def replay(self, key, step):
        """Do `step` as a graph. `key`: all that tells two steps apart and lies in no tensor, and where the weights lie: a graph
        reads them there, so an update in place is seen. The first time is not captured: it warms up what capturing needs."""
        graph = self.graphs.get(key)
        if key not in self.graphs:
            if len(self.graphs) == 256:
                self.graphs.clear()  # most are of models that are gone
            self.graphs[key] = None
            return step()
        if graph is None:
            memory = next((other.pool() for other in self.graphs.values() if other), None)  # shared: nothing in it outlives a step
            graph = self.graphs[key] = capture(step, memory)
        graph.replay()


def capture(step, memory):
    """Record what `step` does on the device, without doing it -> a graph; graph.replay() does it, in a single launch."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory):
        step()
    return graph


_buffers = {}  # for each shape of model


def _buffers_for(model, batch, length):
    key = (*vars(model.config).values(), model.device, model.compute_dtype)
    old = _buffers.get(key)
    if old is None or old.batch < batch or old.length < length:
        size = (max(batch, old.batch), max(length, old.length)) if old else (batch, length)
        _buffers.pop(key, None)
        del old  # free it first
        _buffers[key] = Buffers(model.config, *size, model.device, model.compute_dtype)
    for buffer in _buffers[key].cache.keys + _buffers[key].cache.values:
        buffer[:batch, :, :length].zero_()  # masked keys count for nothing, unless a broken model left a nan: 0 * nan is nan
    return _buffers[key]


def choose(logits, temperature, generator=None, noise=None):
    """Sample from softmax(logits / temperature). logits (B, V) -> tokens (B,), their logprobs (B,). `noise` (B, V): numbers
    uniform in [0, 1), if they have been drawn already.

    The exponential race: with independent E_v ~ Exp(1), argmax_v p_v / E_v is v with probability p_v. Unlike
    torch.multinomial it needs no answer from the device. Temperature 0 takes the largest logit, with log-probs at 1.
    """
    logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    if temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        noise = torch.rand(logprobs.shape, generator=generator, device=logits.device) if noise is None else noise
        race = noise.log().neg_()  # E = -log(uniform)
        tokens = (logprobs - race.log_()).argmax(-1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def write(buf, n, logits, temperature, eos, stop, generator=None, noise=None):
    """Choose the next token of the first n rows, from logits (n, V), and write it at their `positions`; a row that is done stays
    as it is."""
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


def advance(model, buf, n, bound, *choice):
    """One step of the first n rows: read the token chosen last, choose the next. This is what becomes a graph: shapes follow from
    n and `bound` alone, every number lies in `buf`, and nothing is asked of the device."""
    logits = model.decode(buf.chosen[:n], buf.positions[:n].clamp(max=buf.length - 1), buf.cache, bound)
    buf.positions[:n].add_(1)
    write(buf, n, logits, *choice)


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
        raise ValueError(f"a prompt and its new tokens, {width} together, do not fit into block_size {model.config.block_size}: "
                         "lower max_new_tokens, or raise block_size")
    width = min(longest + steps, model.config.block_size)
    # A graph has fixed shapes: there is one for each power of two of rows and 64 of keys, and sizes are rounded up to those.
    graphs = device.type in CAPTURE
    row_bucket = lambda rows: max(32, 1 << (rows - 1).bit_length()) if graphs else rows
    key_bucket = lambda keys: min(-(-keys // 64) * 64, model.config.block_size) if graphs else keys
    n = row_bucket(B)  # so many rows are computed
    buf = _buffers_for(model, n, key_bucket(width))
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
        buf.cache.move(sources, slice(B), longest)
        logits = logits[sources]
    if forbid is not None:
        logits[:, forbid] = float("-inf")
    write(buf, B, logits, temperature, eos, stop, generator)

    weights = tuple((w.data_ptr(), w.shape) for w in (*model.parameters(), *model.buffers())) if graphs else ()
    patience = 1 if device.type == "cpu" else 8  # on a GPU the question costs more than a few wasted rows
    for step in range(1, steps):
        if leave and step % patience == 0:
            live = (~buf.done[:n]).nonzero()[:, 0]
            if len(live) == 0:
                break
            if row_bucket(len(live)) <= 0.95 * n:  # a few idle rows cost less than the change
                buf.leave(live, n, longest + step - 1)
                n = row_bucket(len(live))
        bound = key_bucket(min(longest + step, width))
        if graphs:  # random numbers are drawn outside of the graph: inside, a generator has to be known to it, or it repeats itself
            noise = buf.noise[:n].uniform_(generator=generator)
            buf.replay((weights, n, bound, temperature, eos, stop),
                       partial(advance, model, buf, n, bound, temperature, eos, stop, None, noise))
        else:
            advance(model, buf, n, bound, temperature, eos, stop, generator)

    place = torch.arange(width, device=device)
    sampled = (place >= starts[:, None]) & (place < (starts + limits)[:, None])
    ended = torch.zeros_like(sampled)
    for token in (eos, stop):
        if token is not None:
            ended |= sampled & (tokens == token)
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, starts + limits)
    finished = tokens.gather(1, lengths[:, None] - 1)[:, 0] == eos if eos is not None else torch.zeros_like(ended[:, 0])
    T = int(lengths.max())
    mask = (sampled & (place < lengths[:, None]))[:, :T]
    return Rollout(tokens[:, :T].clone(), starts, lengths, mask, logprobs[:, :T].clone(), finished)


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
    predicts the first token. Divide by the temperature *before* the softmax: sampling did. As there, 0 stands for greedy choices
    with log-probs at temperature 1.
    """
    logits = model(tokens[:, :-1]) / (temperature or 1.0)
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
        cache = _buffers_for(trunk, len(heads), bound).cache
        with trunk.autocast():
            trunk.hidden(shared, cache)
            if of_head is not None:
                cache.move(of_head.to(trunk.device), slice(len(heads)), shared.shape[1])
            hidden = trunk.extend(own, starts, cache, bound)
        found.append(model.scores(hidden[torch.arange(len(heads), device=trunk.device), ends - 1]))
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
    apart = [(score(model, rollout.tokens[rows], temperature)[0] - rollout.logprobs[rows])[rollout.mask[rows]].abs()
             for rows in torch.arange(len(rollout.tokens)).split(batch)]
    return float(torch.cat(apart).max())  # nan if any is: Python's max(worst, nan) would lose it
