"""How fast is it, and beside what?

    python bench/speed.py                     untrained weights over 48 words: an answer ends by chance, so lengths are very uneven
    python bench/speed.py runs/countdown-0    also the lengths that this policy really writes
    python bench/speed.py --sweep             also the cost against length, batch and width, and the peak memory: 3 minutes more
    python bench/speed.py --peers             also beside transformers and TRL, where they are installed (peers.py): 2 minutes more

Everything that is compared is timed in one run, alternating, and given as a ratio: on a shared machine a time alone means
little. A row is the median of several repeats.

  sampling    `generate`, tokens per second, beside
              (a) the textbook loop without a key-value cache: the whole prefix is read again for every token
              (b) the same `generate` with finished rows left in the batch; what the lengths allow is the ratio of all
                  row-steps to those of living rows
  the roofline   what this machine would need if nothing were wasted, as a share of what was needed. The roofline is the largest of
                operations / the best rate at which it multiplies matrices       (a multiplication and an addition are two)
                bytes that have to move / the rate at which it copies memory     (what is read and what is written)
                on CUDA: kernels that were run x the time of an empty node of a graph
              all measured here. What has to be done is counted below, in `sampling_work` and `reading_work`: the matrix products
              and the attention of the real tokens, the weights, the keys and values. No padding, no norms, no softmax, no
              Python: all of that is what the missing share consists of.
  verifier    microseconds against the length of the text, for ordinary and hostile text: never more than linear

What is simplified: a roofline for the whole job, not the sum of those of its parts; what fits into a CPU's cache may move faster
than the copy bandwidth says.
"""
import copy
import random
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import checkpoint
import search
import search_context
import tasks
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems, pick_device
from grpo import GRPO, GRPOConfig, group_advantages
from optimize import micro_batches
from bench.peers import GROUP, LR, Words, bench_own_loops, bench_peers, grpo_config, grpo_step, timed, untrained
from sample import generate, score


@dataclass
class BenchConfig:
    """benchmark"""
    rows: int = setting(512, "completions sampled at once, a multiple of 16", low=16, high=10**6)
    repeats: int = setting(5, "the median of so many is shown", low=1, high=1000)
    sweep: bool = setting(False, "also cost against length, batch and width, and peak memory")
    peers: bool = setting(False, "also transformers and TRL on the same model and the same work")
    n_kv_head: int = setting(0, "heads of keys and values of the untrained weights, ours and theirs; 0: 4, as many as of queries", low=0, high=4)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))


# --------------------------------------------------------------------------------------------------------- the roofline

class Machine:
    """What this machine can do at best: `measure` as often as there is time, the best counts.

    peak, peak_here: operations/s in float32 products of large matrices, and in (512, 128) @ (128, 512), about the shapes of the
    default model: the first counts, the second says how much of it such a small model could reach. bandwidth: bytes/s, read and
    written. node: seconds of an empty node of a CUDA graph, 0 elsewhere.
    """

    def __init__(self, device):
        self.device, self.peak, self.peak_here, self.bandwidth, self.node = device, 0.0, 0.0, 0.0, 0.0
        self.large = torch.rand((1024, 1024) if device.type == "cpu" else (8192, 8192), device=device)
        self.x, self.w = torch.rand(512, 128, device=device), torch.rand(128, 512, device=device)
        self.memory = torch.rand(2, 1 << 25, device=device)  # 2 x 128 MiB: far more than any cache holds
        self.measure()

    def measure(self, repeats=5):
        best = lambda function: min(timed(function, self.device)[0] for _ in range(repeats))
        n = len(self.large)
        self.peak = max(self.peak, 2 * n ** 3 / best(lambda: self.large @ self.large))
        self.peak_here = max(self.peak_here, 50 * 2 * 512 * 128 * 512 / best(lambda: [self.x @ self.w for _ in range(50)]))
        self.bandwidth = max(self.bandwidth, self.memory.nbytes / best(lambda: self.memory[0].copy_(self.memory[1])))
        if self.device.type == "cuda" and not self.node:
            graph, one = torch.cuda.CUDAGraph(), torch.zeros(1, device=self.device)
            with torch.cuda.graph(graph):
                for _ in range(1000):
                    one.add_(1)
            self.node = best(graph.replay) / 1000

    def floor(self, operations, moved, nodes=0):
        """-> (seconds that the work takes at least, what bounds it)."""
        return max((operations / self.peak, "operations"), (moved / self.bandwidth, "bytes"), (nodes * self.node, "nodes"))

    def __str__(self):
        node = f", {self.node * 1e6:.2f} us an empty node" if self.node else ""
        return (f"this machine: {self.peak / 1e9:,.0f} GFLOP/s ({self.peak_here / 1e9:,.0f} at the model's shapes), "
                f"{self.bandwidth / 1e9:,.1f} GB/s{node}")


def sampling_work(model, starts, lengths, group=1):
    """What sampling cannot do without -> (operations, bytes).

    starts, lengths: (B,) int64, of the prompts and with what was sampled; `group` neighbours share a prompt, which is read once.
    With P weights in the matrices of the blocks, V x d in the head, L layers:
      a token that is read, with n keys to look at (its own included)    2 P + 4 n d L operations     (q k, and the sum of values)
      a token that is sampled                                            2 V d operations
      a step: all rows advance by a token                                4 (P + V d) bytes            the weights
      a row in it                                                        2 n k L x 4 bytes            its keys and values, k wide
    The last token of a row is never read. The embedding is a lookup.
    """
    c, first, last = model.config, starts[::group], lengths - 1
    P, head, steps = weights(model), model.embed.weight.numel(), int((lengths - starts).max())
    n = keys_seen(starts, last)
    read = int(first.sum() + (last - starts).sum())
    attention = 4 * c.n_embd * c.n_layer * (keys_seen(0 * first, first) + n)
    operations = 2 * P * read + attention + 2 * head * int((lengths - starts).sum())
    return operations, 4 * (P + head) * steps + 2 * n * kv_width(c) * c.n_layer * 4


def reading_work(model, lengths, train=False):
    """What scoring whole texts of `lengths` (B,) cannot do without -> (operations, bytes). Same letters as above.

    A token costs 2 P + 4 n d L + 2 V d, as if it were sampled. A backward pass costs twice as much as the forward: a gradient for
    the weights and one for the input. Bytes: the weights once; in an update they are read twice, their gradient is written,
    and AdamW reads four arrays and writes three. Activations could stay in a cache and are not counted.
    """
    c, P, head = model.config, weights(model), model.embed.weight.numel()
    operations = 2 * (P + head) * int(lengths.sum()) + 4 * c.n_embd * c.n_layer * keys_seen(0 * lengths, lengths)
    return operations * (3 if train else 1), 4 * (P + head) * (10 if train else 1)


def kv_width(config):
    """The channels of a token's keys, and of its values, in one layer."""
    return config.n_embd // config.n_head * (config.n_kv_head or config.n_head)


def weights(model):
    """The number of weights in the matrices of the blocks, an int."""
    return sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)


def keys_seen(a, b):
    """(a+1) + ... + b, summed over the rows: the keys that the tokens at positions a to b-1 look at. (B,), (B,) -> int

    >>> keys_seen(torch.tensor([0, 2]), torch.tensor([3, 4]))  # 1 + 2 + 3, and 3 + 4
    13
    """
    return int((b * (b + 1) - a * (a + 1)).sum()) // 2


def kernels(function, device):
    """How many kernels a call runs, those inside of replayed graphs included; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        function()
        torch.cuda.synchronize()
    return sum(e.count for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA)


# --------------------------------------------------------------------------------------------------- what is measured

def jobs(model, task, rows):
    """The rows of the table: name -> (the job, a function of its result that says how many tokens, operations and bytes)."""
    generator = torch.Generator(model.device).manual_seed(0)
    problems = fixed_problems(task, "train", rows // GROUP)
    prompts = [task.tokenizer.encode(p.prompt) for p in problems for _ in range(GROUP)]
    rollout = generate(model, prompts, task.max_new_tokens, eos=task.tokenizer.eos, generator=generator)
    # The rate is so low that the policy stays what it is: the last repeat does the same work as the first.
    algorithm = GRPO(copy.deepcopy(model), task, grpo_config(model, rows), generator)
    alternate = torch.arange(rows) % 2  # rewards that leave no row out

    def sampled(r):
        return r.sampled_tokens, *sampling_work(model, r.prompt_lengths, r.lengths, GROUP)

    def scored():
        with torch.no_grad():
            for part, length in micro_batches(rollout.mask, algorithm.config.micro_batch):
                score(model, rollout.tokens[part, :length])

    def stepped(result):
        r, rewards = result
        learned = r.lengths[group_advantages(rewards, GROUP).to(r.lengths.device) != 0]
        tokens, *work = sampled(r)
        return tokens, *(a + b for a, b in zip(work, reading_work(model, learned - 1, train=True)))

    def searched():
        context = search_context.SearchContext(model, task, problems, generator=generator)
        search.tree_search(context, 256, context.from_rollouts, context.own_confidence)
        return context

    def found(context):  # an ideal search would read no prefix twice; its tokens lie anywhere in a text of the usual length
        tokens, n = sum(context.token_cost), float((rollout.lengths + rollout.prompt_lengths).float().mean()) / 2
        per_token = 2 * (weights(model) + model.embed.weight.numel()) + 4 * n * model.config.n_embd * model.config.n_layer
        return tokens, tokens * per_token, 0

    sample = lambda eos: generate(model, prompts, task.max_new_tokens, eos=eos, generator=generator)
    return {"sampling, uneven": (lambda: sample(task.tokenizer.eos), sampled),
            "sampling, all rows to the end": (lambda: sample(None), sampled),
            "scoring": (scored, lambda _: (rollout.sampled_tokens, *reading_work(model, rollout.lengths - 1))),
            "update": (lambda: algorithm.update(rollout, alternate.float()),
                       lambda _: (rollout.sampled_tokens, *reading_work(model, rollout.lengths - 1, train=True))),
            "GRPO step": (lambda: grpo_step(algorithm, problems), stepped),
            "MCTS": (searched, found)}


def bench_floor(model, task, rows, repeats, machine):
    """The table: tokens per second, the same at the roofline, and the share of the roofline that is reached."""
    table = jobs(model, task, rows)
    for job, _ in table.values():
        job()  # warm up: the cache and the buffers of the optimizer are allocated, kernels are chosen
    seen = {name: [] for name in table}
    for _ in range(repeats):
        machine.measure()
        for name, (job, count) in table.items():
            seconds, result = timed(job, model.device)
            seen[name].append((seconds, *count(result)))
    print(f"{'sampled tokens, ' + task.name:<32}{'tokens/s':>10}{'seconds':>10}{'the roofline':>14}{'reached':>9}   bounded by")
    for name, results in seen.items():
        nodes = kernels(table[name][0], model.device)
        floors = [machine.floor(operations, moved, nodes) for _, _, operations, moved in results]
        share = statistics.median(floor / r[0] for (floor, _), r in zip(floors, results))
        rate, seconds = statistics.median(r[1] / r[0] for r in results), statistics.median(r[0] for r in results)
        print(f"  {name:<30}{rate:>10,.0f}{seconds:>9.2f}s{rate / share:>14,.0f}{share:>9.0%}   {floors[0][1]}")


def bench_verifier():
    """What judging a text costs, by its length."""
    task = tasks.load("countdown")
    problem = task.sample_problem(random.Random(0))
    print("verifier: microseconds a text, by its length in characters")
    for name, make in (("thinking, then an answer", lambda n: "<think>" + "9 + 3 = 12, failed\n" * (n // 19)
                        + "</think><answer>(1 + 2) * 3</answer>"),
                       ("brackets", lambda n: "<answer>" + "(" * n + "</answer>"),
                       ("one long product", lambda n: "<answer>" + "9*" * (n // 2) + "9</answer>"),
                       ("open tags", lambda n: "<answer>" * (n // 8))):
        cells = []
        for n in (100, 400, 10_000, 1_000_000):
            text, count = make(n), max(3, 20_000 // n)
            seconds = statistics.median(timed(lambda: task.verify(problem, text), torch.device("cpu"))[0] for _ in range(count))
            cells.append(f"{n:>9,}: {seconds * 1e6:>7,.0f}")
        print(f"  {name:<26}" + "  ".join(cells))


# ----------------------------------------------------------------------------------------------------------- the sweep

def bench_sweep(machine, repeats=2):
    """Sampling to the end against one thing at a time. The cost of a token should grow no faster than the cache it reads."""
    task, device = Words(), machine.device
    axes = {"new tokens, 64 rows": [(64, n, 128) for n in (64, 128, 256, 512, 1024)],
            "rows, 64 new tokens": [(n, 64, 128) for n in (32, 128, 512, 1024, 4096)],
            "width, 256 rows, 64 new tokens": [(256, 64, n) for n in (64, 128, 256, 512)]}
    for axis, settings in axes.items():
        column = 1 if "new tokens" in axis[:10] else 0 if axis.startswith("rows") else 2
        prompts = [task.tokenizer.encode(p.prompt) for p in fixed_problems(task, "train", 4096 // GROUP) for _ in range(GROUP)]
        models = [untrained(task, new, width, device) for _, new, width in settings]
        times = [[] for _ in settings]
        for repeat in range(repeats + 1):  # the first is for warming up
            machine.measure()
            for i, (rows, new, _) in enumerate(settings):
                seconds, rollout = timed(lambda: generate(models[i], prompts[:rows], new), device)
                times[i].append(seconds)
        print(f"\n{axis:<32}{'us/token':>10}{'grows by':>10}{'KB cache/token':>16}{'grows by':>10}{'of the roofline':>17}")
        costs, caches = [], []
        for i, (rows, new, _) in enumerate(settings):
            seconds = statistics.median(times[i][1:])
            c, starts = models[i].config, torch.tensor([len(p) for p in prompts[:rows]])
            work = sampling_work(models[i], starts, starts + new, GROUP)
            nodes = kernels(lambda: generate(models[i], prompts[:rows], new), device)
            costs.append(seconds / rows / new * 1e6)
            caches.append(keys_seen(starts, starts + new - 1) / rows / new * 2 * kv_width(c) * c.n_layer * 4 / 1024)
            share, bound = machine.floor(*work, nodes)
            print(f"  {settings[i][column]:<30}{costs[i]:>10.1f}{costs[i] / costs[0]:>10.2f}{caches[i]:>16.0f}"
                  f"{caches[i] / caches[0]:>10.2f}{share / seconds:>17.0%}   {bound}")


def step_memory(prompts, group, new_tokens, device):
    """One GRPO step that samples `new_tokens` in every row -> (peak MiB, MiB before: Python, torch and the model). What the
    system keeps is the peak of the whole life of a process: see `in_a_process`."""
    def peak():
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    task = Words()
    model, task.tokenizer.eos = untrained(task, new_tokens, device=device), None  # nothing ends a row
    before = peak()
    algorithm = GRPO(model, task, GRPOConfig(group_size=group, max_new_tokens=new_tokens))
    rollout = algorithm.collect(fixed_problems(task, "train", prompts))
    algorithm.update(rollout, (torch.arange(prompts * group) % 2).float())
    return peak(), before


def in_a_process(*sizes):
    """`step_memory` in a process of its own -> (peak MiB, MiB before)."""
    code = f"from bench.speed import step_memory; print(*step_memory{sizes!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    return map(float, done.stdout.split())


def bench_memory(device):
    """Peak memory of a whole GRPO step with the default settings (64 prompts x 8), and with larger ones."""
    print(f"\n{'memory of a GRPO step':<32}{'peak MiB':>10}{'before it':>11}{'the step':>10}{'of it cache':>13}")
    for prompts, new in ((64, 64), (16, 64), (256, 64), (64, 128), (64, 256)):
        peak, before = in_a_process(prompts, 8, new, device.type)
        cache = prompts * 8 * (Words.max_prompt_tokens + new) * 2 * 3 * 128 * 4 / 2**20
        name = f"{prompts * 8} rows, {new} new tokens"
        print(f"  {name:<30}{peak:>10,.0f}{before:>11,.0f}{peak - before:>10,.0f}{cache:>13,.0f}", flush=True)


def main(argv=None):
    parser = Parser(prog="bench/speed.py", description="Speed, as ratios measured in one run.")
    parser.add_argument("run", nargs="?", help="a run folder or checkpoint: whose lengths are sampled")
    add_flags(parser, BenchConfig)
    given = vars(parser.parse_args(argv))
    config, run = from_flags(BenchConfig, given), given["run"]
    if config.rows % GROUP:
        raise InputError(f"--rows {config.rows}: must be a multiple of {GROUP}, the samples of one prompt")
    device = torch.device(pick_device(config.device))
    if config.n_kv_head == 3:
        raise InputError("--n-kv-head 3: must be a divisor of 4, the number of heads")
    workloads = [(untrained(Words(), device=device, n_kv_head=config.n_kv_head), Words(), "untrained weights")]
    if run:
        model, task, _ = checkpoint.load_run(run, device)
        workloads.append((model, task, run))
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, torch {torch.__version__}")
    if config.sweep:
        bench_memory(device)  # first: a process passes its peak on to those it starts
    machine = Machine(device)
    for model, task, whose in workloads:
        print(f"\n{sum(p.numel() for p in model.parameters()):,} parameters, {whose} ({task.name})")
        bench_own_loops(model, task, config.rows, config.repeats)
        bench_floor(model, task, config.rows, config.repeats, machine)
    if config.peers:
        bench_peers(config.rows, config.repeats, device, config.n_kv_head)
    if config.sweep:
        bench_sweep(machine)
    print(f"\n{machine}\n")
    bench_verifier()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
