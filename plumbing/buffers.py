"""What the sampling loop reads and writes, kept from call to call, and its decoding step as a CUDA graph.

Launching a step's hundred kernels takes longer than running them. A CUDA graph records them once and
launches them together; but its shapes are fixed, and it finds its numbers where they lay when it was
recorded. So buffers are allocated once and reused, sizes are rounded up to a few buckets, and each
bucket has its graph. On a CPU the same code runs without any of it.
"""
import torch

from model import KVCache

CAPTURE = ("cuda",)  # kinds of device on which decoding steps become CUDA graphs; with () none do, which is slower and simpler


def row_bucket(rows, device):
    """The number of rows that is computed for so many. A graph has fixed shapes: there is one for each power of two of rows ..."""
    return max(32, 1 << (rows - 1).bit_length()) if device.type in CAPTURE else rows


def key_bucket(keys, device, block_size):
    """... and for each multiple of 64 keys that are read."""
    return min(-(-keys // 64) * 64, block_size) if device.type in CAPTURE else keys


class Buffers:
    """All that a step of sampling reads and writes. It is kept between calls: allocating it anew costs
    more than a short rollout, and a graph looks for its numbers where they lay when it was captured.

    Finished rows are evicted, so `rows[i]` says which row of `tokens` the i-th of the batch is;
    `chosen[i]` is its last token, at `positions[i]`.
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

    def evict(self, live, n, length):
        """Of the first n rows only `live` (N,) go on. Those that lie behind the first N change places
        with rows that are done; the others stay where they are: moving all, `length` keys and values of
        each, would cost as much as a step."""
        N = len(live)
        behind, free = live[live >= N], self.done[:N].nonzero()[:, 0]
        order = torch.arange(n, device=live.device)
        order[free], order[behind] = behind, free
        for x in (self.rows, self.positions, self.ends, self.chosen, self.done):
            x[:n] = x[order]
        self.cache.copy_rows(behind, free, length)

    def replay(self, key, step):
        """Do `step` as a graph. `key`: all that tells two steps apart and lies in no tensor, and where
        the weights lie: a graph reads them there, so an update in place is seen. The first time is not
        captured: it warms up what capturing needs."""
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


KEPT = {}  # the buffers of each shape of model


def buffers_for(model, batch, length):
    """The buffers for this shape of model, with zeroed keys and values for `batch` rows of `length` tokens; larger than before if need be."""
    key = (*vars(model.config).values(), model.device, model.compute_dtype)
    old = KEPT.get(key)
    if old is None or old.batch < batch or old.length < length:
        size = (max(batch, old.batch), max(length, old.length)) if old else (batch, length)
        KEPT.pop(key, None)
        del old  # free it first
        KEPT[key] = Buffers(model.config, *size, model.device, model.compute_dtype)
    for buffer in KEPT[key].cache.keys + KEPT[key].cache.values:
        buffer[:batch, :, :length].zero_()  # masked keys count for nothing, unless a broken model left a nan: 0 * nan is nan
    return KEPT[key]
