"""The one way in which all algorithms here take optimizer steps.

An algorithm turns a batch of samples into a loss. How the gradient of that loss is followed is the same
for all:

    epoch         a pass over the batch
    mini-batch    the items that one optimizer step sees; an epoch has --mini-batches of them
    micro-batch   the items of one forward and backward pass: memory and speed only, gradients add up

What a token counts (`weigh`) is computed for a whole mini-batch, before it is cut: micro-batches cannot
change the gradient. A step whose gradient is not finite is skipped, and counted. An item is a row of
the batch, or several rows that must be seen together: DPO's chosen and rejected completion.
"""
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Learner:
    """A network that learns: `loss(part) -> (loss, stats)`, a scalar whose sum over the micro-batches
    of a step is followed.

    stats: diagnostics by name, without gradient. (sum, count) is logged as a mean over all passes, a
    bare tensor as its maximum. before(part): called for the micro-batches of every later mini-batch of
    the first epoch, before any step is taken.
    """
    optimizer: object
    loss: Callable
    name: str = ""  # "critic": its metrics become critic_loss, critic_grad_norm, ...
    before: Callable | None = None


@dataclass
class Part:
    """A micro-batch, as a loss sees it."""
    rows: torch.Tensor            # (n,) rows of the batch; of pairs first all the first ones, then all the second ones
    length: int                   # none of these rows is longer
    weights: torch.Tensor | None  # (n, length): what `weigh` says that each token counts
    share: float                  # items here / items of this optimizer step
    tokens: torch.Tensor          # () masked tokens of the whole optimizer step
    step: int                     # optimizer steps taken on this batch so far; at 0 the policy is the one that sampled
    epoch: int

    def cut(self, *tensors):
        """The entries (n, length) of some (B, T) tensors that belong to this micro-batch -> a list."""
        return [x[self.rows, :self.length] for x in tensors]


def micro_batches(mask, size):
    """Rows of similar length go together, so that little padding is computed: mask (B, T) -> list of
    (rows (n,), length), n <= size.

    >>> mask = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]).bool()
    >>> [(rows.tolist(), length) for rows, length in micro_batches(mask, 2)]
    [([0, 2], 4), ([1], 2)]
    """
    ends = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)
    ends, order = ends.sort(descending=True, stable=True)
    return list(zip(order.split(size), ends[::size].tolist()))  # one question to the device for all of them


def split(items, mask, config, weigh, **where):
    """The items (n, k) of one optimizer step -> its micro-batches, a list of Parts."""
    rows = items.T.flatten()
    weights, tokens = weigh(rows) if weigh else None, mask[rows].sum()
    parts = []
    for places, length in micro_batches(mask[items].any(1), max(1, config.micro_batch // items.shape[1])):
        part = items[places].T.flatten()
        parts.append(Part(part, length, None if weights is None else weights[places, :length], len(places) / len(items), tokens,
                          **where))
    return parts


def optimize(learners, items, mask, config, weigh=None, generator=None):
    """Take `config.epochs` x `config.mini_batches` optimizer steps -> metrics, a dict of floats.

    learners: list of Learner. items: (N,) row numbers, or (N, k), k rows that share a micro-batch. mask
    (B, T) bool: the tokens that count. config: has epochs, mini_batches, micro_batch (rows),
    max_grad_norm. weigh(rows) -> (n, T), where an item is a row. generator: shuffles the items anew for
    each epoch; None: they stay in order, and so do the micro-batches.

    metrics: updates, the steps of the learner without a name; skipped, steps of any that were not
    finite; loss and the stats of each learner, its grad_norm (of the last step, before it was scaled
    down; not finite if any was).
    """
    items = items[:, None] if items.ndim == 1 else items
    sums, counts, largest, norms = defaultdict(float), defaultdict(float), {}, {}
    updates = skipped = steps = 0
    for epoch in range(config.epochs if len(items) else 0):
        order = items if generator is None else items[torch.randperm(len(items), generator=generator, device=items.device)]
        batches = order.tensor_split(min(config.mini_batches, len(items)))
        if epoch == 0:
            for learner in (learner for learner in learners if learner.before):
                for part in (part for batch in batches[1:] for part in split(batch, mask, config, None, step=0, epoch=0)):
                    learner.before(part)
        for batch in batches:
            for learner in learners:
                learner.optimizer.zero_grad()
            for part in split(batch, mask, config, weigh, step=steps, epoch=epoch):
                for learner in learners:
                    loss, stats = learner.loss(part)
                    loss.backward()
                    for name, value in {"loss": (loss.detach(), 0), **stats}.items():
                        name = f"{learner.name}_{name}".lstrip("_")
                        if isinstance(value, tuple):
                            sums[name], counts[name] = sums[name] + value[0], counts[name] + value[1]
                        else:  # torch.maximum keeps a nan; Python's max may lose it
                            largest[name] = torch.maximum(largest.get(name, value), value)
            steps += 1
            for learner in learners:
                norm, name = learner.optimizer.step(max_norm=config.max_grad_norm), f"{learner.name}_grad_norm".lstrip("_")
                norms[name] = norm if math.isfinite(norms.get(name, 0.0)) else norms[name]
                updates += math.isfinite(norm) and not learner.name
                skipped += not math.isfinite(norm)
    means = {name: float(total / (counts[name] or steps)) for name, total in sums.items()}
    return {"updates": updates, "skipped": skipped, **means, **norms, **{name: float(value) for name, value in largest.items()}}
