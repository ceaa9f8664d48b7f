"""A small GPT in the Llama layout, its key-value cache, and its optimizer.

    x   = embed(tokens)                                               (B, T, C)
    x  += attention(norm(x))          RoPE on queries and keys
    x  += mlp(norm(x))                down(silu(gate(x)) * up(x)): SwiGLU
    logits = norm(x) @ embed.T        tied embeddings                 (B, T, V)

RMSNorm, rotary positions (RoPE), SwiGLU, no biases: the architecture of Llama (arXiv:2302.13971), so
that what is learned here carries over to the models that people use. The embeddings are tied, as in
GPT-2: fewer parameters.

One model, three ways to run it, and a test that they agree:
  model(tokens)                       all positions at once: training, scoring
  model.prefill(tokens, ..., cache)   the same, and the keys and values are kept in a cache: the prompt
  model.decode(token, ..., cache)     one token per row, everything earlier is read from the cache: sampling

What is simplified: no dropout (data is drawn fresh, hardly anything is seen twice).
"""
import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class GPTConfig:
    vocab_size: int
    block_size: int    # the longest sequence, prompt and completion together
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 128    # a multiple of 2 * n_head: RoPE turns pairs of channels
    n_kv_head: int = 0   # heads of keys and values, a divisor of n_head; 0: as many as n_head


class KVCache:
    """Keys and values of every layer for a batch of rows. It belongs to the sampler, which allocates it
    once.

    keys, values: one (B, n_kv_head, T, head_dim) tensor a layer, B and T the largest batch and length so far.
    """

    def __init__(self, config, batch, length, device, dtype):
        shape = (batch, config.n_kv_head or config.n_head, length, config.n_embd // config.n_head)
        self.batch, self.length = batch, length
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]

    def copy_rows(self, sources, targets, length):
        """The rows `sources` (N,) are copied to `targets`, N row numbers or a slice, up to `length` positions of each."""
        for buffer in self.keys + self.values:
            buffer[targets, :, :length] = buffer[sources, :, :length]


def rotate(x, rope):
    """RoPE: turn each pair of neighbouring channels by an angle that grows with the position.

    x (B, T, H, D) float; rope, complex numbers of length 1, broadcasts to (B, T, 1, D/2). A pair of
    channels is read as one complex number, so turning it is one product. The score of a turned query
    and a turned key depends on their distance alone. Source: RoFormer, arXiv:2104.09864, section 3.2.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rope).flatten(-2).to(x.dtype)


class Block(nn.Module):
    """One layer: attention, then a SwiGLU MLP, each on the normalised residual stream and added back to it.

    Grouped queries (arXiv:2305.13245): query head h reads key-value head h // (n_head / n_kv_head). A
    smaller cache, and so quicker sampling, which is bound by reading it.
    """

    def __init__(self, config):
        super().__init__()
        C, self.head_dim = config.n_embd, config.n_embd // config.n_head
        kv = self.head_dim * (config.n_kv_head or config.n_head)
        hidden = -(-8 * C // 3 // 32) * 32  # 8/3 C as in Llama, rounded up to a multiple of 32
        self.attention_norm, self.mlp_norm = nn.RMSNorm(C, eps=1e-5), nn.RMSNorm(C, eps=1e-5)
        self.q, self.k, self.v, self.out = (nn.Linear(C, width, bias=False) for width in (C, kv, kv, C))
        self.gate, self.up = (nn.Linear(C, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, C, bias=False)

    def forward(self, x, rope, attend):
        """x (B, T, C) -> (B, T, C). `attend(q, k, v)` is the one thing in which training and sampling differ."""
        y = self.attention_norm(x)
        q, k, v = (project(y).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.k, self.v))  # (B, T, H, D)
        y = attend(rotate(q, rope).transpose(1, 2), rotate(k, rope).transpose(1, 2), v.transpose(1, 2))  # (B, H, T, D)
        x = x + self.out(y.transpose(1, 2).flatten(-2))
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class GPT(nn.Module):
    """The language model. `model.compute_dtype = torch.bfloat16` makes it compute in bfloat16; weights stay float32."""
    compute_dtype = torch.float32

    def __init__(self, config):
        super().__init__()
        if config.n_embd % (2 * config.n_head):
            raise ValueError(f"n_embd {config.n_embd} must be a multiple of 2 * n_head = {2 * config.n_head}")
        if config.n_head % (config.n_kv_head or config.n_head):
            raise ValueError(f"n_head {config.n_head} must be a multiple of n_kv_head {config.n_kv_head}")
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=1e-5)
        for name, p in self.named_parameters():
            if p.ndim == 2:  # GPT-2's initialisation: what is added to the residual stream 2 * n_layer times starts smaller
                scale = (2 * config.n_layer) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(p, std=0.02 * scale)
        half = config.n_embd // config.n_head // 2
        angles = torch.outer(torch.arange(config.block_size), 10_000.0 ** (-torch.arange(half) / half))
        self.register_buffer("rope", torch.polar(torch.ones_like(angles), angles), persistent=False)  # (block_size, D/2)

    @property
    def device(self):
        return self.embed.weight.device

    def autocast(self):
        """Low precision where it is safe. Without autocast's own cache of cast weights: inside a CUDA graph it goes stale."""
        if self.compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype, cache_enabled=torch.is_grad_enabled())

    def hidden(self, tokens, cache=None):
        """tokens (B, T) -> the normalised residual stream (B, T, C): what a head reads. Fills the cache if one is given."""
        B, T = tokens.shape
        if T > self.config.block_size:
            raise ValueError(f"{T} tokens do not fit into block_size {self.config.block_size}: lower max_new_tokens, or raise block_size")
        x = self.embed(tokens)
        for i, block in enumerate(self.blocks):
            def attend(q, k, v):
                if cache is not None:
                    cache.keys[i][:B, :, :T], cache.values[i][:B, :, :T] = k, v
                # Rows are padded on the right, so the plain causal mask is enough: no real token ever
                # sees padding.
                k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) if x.shape[1] < q.shape[1] else x for x in (k, v))
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = block(x, self.rope[:T, None], attend)
        return self.norm(x)

    def logits(self, hidden):
        """(..., C) -> (..., V), computed in float32 whatever the rest is computed in: log-probs need
        the precision. Inside of autocast the product would be rounded to bfloat16, and widening it
        afterwards brings nothing back."""
        with torch.autocast(self.device.type, enabled=False):
            return F.linear(hidden.float(), self.embed.weight)

    def forward(self, tokens):
        """tokens (B, T) int64 -> logits (B, T, V) float32. logits[b, t] is about the token *after* tokens[b, t]."""
        with self.autocast():
            return self.logits(self.hidden(tokens))

    def prefill(self, tokens, lengths, cache):
        """Read right-padded prompts tokens (B, T) of the given lengths (B,) into the cache -> logits (B, V) at their ends."""
        with self.autocast():
            x = self.hidden(tokens, cache)
            return self.logits(x[torch.arange(len(x), device=x.device), lengths - 1])

    def decode(self, tokens, positions, cache, kv_length):
        """One step: tokens (B,) at positions (B,), one a row -> logits (B, V). See `prefill_chunk`."""
        with self.autocast():
            return self.logits(self.prefill_chunk(tokens[:, None], positions, cache, kv_length))[:, 0]

    def prefill_chunk(self, tokens, starts, cache, kv_length):
        """Read on: tokens (B, S), padded on the right, follow what the cache holds of each row, starts
        (B,) positions -> (B, S, C).

        `kv_length` is a number the host knows, above every position: only that many keys are read. Keys
        beyond a token's own position belong to padding; they are masked. Shapes depend on B, S and
        `kv_length` alone, and nothing is asked of the device: one step for each of them can be captured
        as a CUDA graph.
        """
        B, S = tokens.shape
        H, D = self.config.n_kv_head or self.config.n_head, self.config.n_embd // self.config.n_head
        G = self.config.n_head // H  # queries that share a key-value head
        positions = starts[:, None] + torch.arange(S, device=tokens.device) if S > 1 else starts[:, None]  # (B, S)
        rope = self.rope[positions.clamp(max=len(self.rope) - 1)][:, :, None]  # (B, S, 1, D/2); only padding can be beyond
        hidden = torch.arange(kv_length, device=tokens.device) > positions[..., None]  # (B, S, kv_length)
        bias = torch.zeros(hidden.shape, device=tokens.device).masked_fill(hidden, float("-inf"))[:, None].repeat(1, 1, G, 1)
        heads = torch.arange(B * H, device=tokens.device).view(B, H, 1)
        slots = (heads * cache.length + positions[:, None]).flatten()  # (B * H * S): where in a buffer, seen as (B * H * T, D)
        x = self.embed(tokens)
        for i, block in enumerate(self.blocks):
            def attend(q, k, v):
                keys, values = cache.keys[i], cache.values[i]
                for buffer, new in ((keys, k), (values, v)):
                    buffer.view(-1, D).index_copy_(0, slots, new.reshape(-1, D).to(buffer))
                keys, values = keys[:B, :, :kv_length], values[:B, :, :kv_length]
                q = q.reshape(B, H, G * S, D)  # the queries of a group lie below each other: one product for all of them
                # Not the fused kernel: for the one query of a row these two products are quicker, on a GPU too.
                scores = q @ keys.transpose(-1, -2) * D ** -0.5 + bias  # (B, H, G * S, kv_length)
                y = scores.softmax(-1).to(values) @ values
                return y.reshape(B, G * H, S, D)
            x = block(x, rope, attend)
        return self.norm(x)


class ScalarModel(nn.Module):
    """A GPT that says one number per token instead of logits: the critic of PPO, or a learned verifier of
    solutions.

    It starts as a copy of `backbone`, a GPT, whose knowledge of the task it keeps; the head starts at
    zero, so that its first opinion is 0 everywhere and not noise.
    """

    def __init__(self, backbone):
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(True)
        self.head = nn.Linear(backbone.config.n_embd, 1, device=backbone.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens):
        """tokens (B, T) int64 -> (B, T) float32. Entry [b, t] is about the state *after* tokens[b, t]."""
        with self.backbone.autocast():
            hidden = self.backbone.hidden(tokens)
        return self.scores(hidden)

    def scores(self, hidden):
        """(..., C) -> (...), in float32 like the logits of a GPT: call it outside of autocast."""
        return self.head(hidden.float())[..., 0]


# --------------------------------------------------------------------------------------------------------- optimizer

def orthogonal(X, steps=5):
    """Nearly the nearest orthogonal matrix: all singular values go towards 1. X (n, rows, columns) ->
    the same shape.

    Newton-Schulz: X <- a X + b (X X^T) X + c (X X^T)^2 X, with the coefficients of Jordan et al. 2024,
    which are quick. Values that are not small beside the norm come to lie between about 0.7 and 1.2; a very
    small one grows some 500-fold (3.4445^5) and stays below.

    >>> X = orthogonal(torch.tensor([[[3.0, 0.0], [0.0, -0.1]]]))
    >>> bool((X.abs().diagonal(dim1=1, dim2=2) - 1).abs().max() < 0.35)
    True
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = X.shape[1] > X.shape[2]
    X = X.mT if tall else X
    X = X / X.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = X @ X.mT
        X = a * X + (b * gram + c * gram @ gram) @ X
    return X.mT if tall else X


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, so that all but the weakest directions of a matrix are
    learned about equally fast (Jordan et al. 2024).

    As torch.optim.Muon, without weight decay, but in float32: that one multiplies in bfloat16, which a
    processor without instructions for it does 13 times as slowly (AVX2), and then two thirds of the
    warm start are spent there. Equal shapes go together.
    """

    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        [group] = self.param_groups
        by_shape = {}
        for p in group["params"]:
            buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
            buffer.lerp_(p.grad, 1 - group["momentum"])
            by_shape.setdefault(p.shape, []).append((p, p.grad.lerp(buffer, group["momentum"])))  # Nesterov: a look ahead
        for (rows, columns), pairs in by_shape.items():
            steps = orthogonal(torch.stack([step for _, step in pairs]))
            for (p, _), step in zip(pairs, steps):
                p.add_(step, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


class Optimizers:
    """Several optimizers behind the interface of one."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers
        self.rates = [o.param_groups[0]["lr"] for o in optimizers]

    def step(self, schedule=1.0, max_norm=math.inf):
        """One step of each, with its learning rate times `schedule` and gradients scaled down to
        `max_norm`.

        -> the norm of the gradient before, a float. If it is not finite no weight is touched: one bad
        batch shall not end a run.
        """
        parameters = [p for o in self.optimizers for p in o.param_groups[0]["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
        if math.isfinite(norm):
            for optimizer, rate in zip(self.optimizers, self.rates):
                optimizer.param_groups[0]["lr"] = rate * schedule
                optimizer.step()
        return norm

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self):
        return {"optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state):
        for optimizer, s in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(s)


def make_optimizer(model, lr, muon_lr=0.0, betas=(0.9, 0.95)):
    """AdamW on everything or, with muon_lr > 0, Muon on the hidden matrices and AdamW on the rest
    (embedding, norms).

    Muon wants a rate of its own, see sft.py. No weight decay.
    """
    hidden = [p for block in model.blocks for p in block.parameters() if p.ndim == 2] if muon_lr else []
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    adamw = torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=0.0, fused=True)
    return Optimizers(*([Muon(hidden, lr=muon_lr)] if hidden else []), adamw)
