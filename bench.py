"""How fast is it, and beside what?

    python bench.py runs/grpo-countdown-0          with the lengths that this policy really writes
    python bench.py                                with untrained weights (says nothing about real lengths)

Everything that is compared is timed in one run, alternating, and given as a ratio: on a shared machine a time alone means
little. A row is the median of several repeats, two for the slow loop (a).

  sampling    `generate`, tokens per second, beside
              (a) the textbook loop without a key-value cache: the whole prefix is read again for every token
              (b) the same `generate` with finished rows left in the batch; what the lengths allow is the ratio of all
                  row-steps to those of living rows
  verifier    microseconds against the length of the text, for ordinary and hostile text: never more than linear
"""
import random
import statistics
import sys
import time
from dataclasses import dataclass

import torch

import checkpoint
import tasks
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems, pick_device
from model import GPT, GPTConfig
from sample import choose, generate


@dataclass
class BenchConfig:
    """benchmark"""
    rows: int = setting(512, "completions sampled at once", low=1, high=10**6)
    repeats: int = setting(5, "the median of so many is shown", low=1, high=1000)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))


def timed(function, device):
    """-> (seconds, result). Waits for the device before both looks at the clock."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    result = function()
    wait()
    return time.perf_counter() - started, result


@torch.no_grad()
def generate_without_cache(model, prompts, max_new_tokens, eos, generator):
    """The textbook loop: for every new token the whole sequence goes through the model again. -> tokens that were sampled."""
    rows = torch.arange(len(prompts), device=model.device)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    tokens = torch.zeros(len(prompts), int(lengths.max()) + max_new_tokens, dtype=torch.long, device=model.device)
    for i, prompt in enumerate(prompts):
        tokens[i, :len(prompt)] = torch.tensor(prompt)
    done, sampled = torch.zeros(len(prompts), dtype=torch.bool, device=model.device), 0
    for _ in range(max_new_tokens):
        logits = model(tokens[:, :int(lengths.max())])[rows, lengths - 1]
        chosen, _ = choose(logits, 1.0, generator)
        tokens[rows, lengths] = chosen.masked_fill(done, 0)
        sampled += int((~done).sum())
        done |= chosen == eos
        lengths = lengths + 1
        if done.all():
            break
    return sampled


def bench_sampling(model, task, rows, repeats):
    """`generate` beside the loop without a cache and the loop that keeps finished rows: the same prompts, the same policy."""
    prompts = [task.tokenizer.encode(p.prompt) for p in fixed_problems(task, "val", -(-rows // 16)) for _ in range(16)][:rows]
    eos, times = task.tokenizer.eos, {"ours": [], "kept": [], "naive": []}

    def rollout(seed, leave):
        generator = torch.Generator(model.device).manual_seed(seed)
        return generate(model, prompts, task.max_new_tokens, eos=eos, pad=task.tokenizer.pad, generator=generator, leave=leave)

    rollout(0, True), rollout(0, False)  # warm up, and let the cache be allocated
    for seed in range(repeats):
        for name, leave in (("ours", True), ("kept", False)):
            seconds, result = timed(lambda: rollout(seed, leave), model.device)
            times[name].append(seconds / result.sampled_tokens)
        if seed < 2:  # slow, and steady
            generator = torch.Generator(model.device).manual_seed(seed)
            seconds, sampled = timed(lambda: generate_without_cache(model, prompts, task.max_new_tokens, eos, generator),
                                     model.device)
            times["naive"].append(seconds / sampled)
    lengths = result.lengths - result.prompt_lengths
    allowed = float(lengths.max() * len(lengths) / lengths.sum())
    ours, kept, naive = (statistics.median(times[name]) for name in ("ours", "kept", "naive"))
    print(f"sampling: {len(prompts)} rows, completions of {float(lengths.float().mean()):.1f} tokens on average, "
          f"{int(lengths.min())} to {int(lengths.max())}")
    print(f"  generate                               {1 / ours:>9,.0f} tokens/s")
    print(f"  (a) without a key-value cache          {1 / naive:>9,.0f} tokens/s   generate is {naive / ours:.1f} x as fast")
    print(f"  (b) finished rows stay in the batch    {1 / kept:>9,.0f} tokens/s   generate is {kept / ours:.2f} x as fast; "
          f"the lengths allow {allowed:.2f}, so {kept / ours / allowed:.0%} of it")


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


def main(argv=None):
    parser = Parser(prog="bench.py", description="Speed, as ratios measured in one run.")
    parser.add_argument("run", nargs="?", help="a run folder or checkpoint: whose lengths are sampled")
    add_flags(parser, BenchConfig)
    given = vars(parser.parse_args(argv))
    config, run = from_flags(BenchConfig, given), given["run"]
    device = pick_device(config.device)
    if run:
        model, task, _ = checkpoint.load_run(run, device)
    else:
        task = tasks.load("countdown")
        torch.manual_seed(0)
        model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens)).to(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, torch {torch.__version__}, {sum(p.numel() for p in model.parameters()):,} parameters, "
          f"{run or 'untrained weights'} ({task.name})\n")
    bench_sampling(model, task, config.rows, config.repeats)
    print()
    bench_verifier()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
