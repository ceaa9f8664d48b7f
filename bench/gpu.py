"""Everything that a GPU must show, in one command of under 9 minutes.

    python bench/gpu.py                    writes docs/gpu.md, and says what it could not do
    python bench/gpu.py --minutes 4        what fits into four

The parts, in the order of what is most wanted; the page is written anew after each, so that a stop
loses nothing:

    the tests that need CUDA     what the CPU can only pretend: graphs, low precision
    the main job                 train.py from nothing to its summary; wanted: under 60 s
    where a step goes            sampling, decoding and judging the text (Python), the update
    capture                      decoding steps as CUDA graphs against the same steps one kernel at a time
    graphs over many calls       is anything captured or allocated that was there before?
    bfloat16                     beside float32: log-ratio of what was sampled to what is trained, and speed
    ten million parameters       a step with the larger setting
    transformers and TRL         bench/speed.py --peers, where they are installed
    all tests                    in the time that is left

Each part has a limit of its own. One that fails, or for which no time is left, is a line in the page
and stops nothing. Without CUDA there is nothing to measure: one line, exit status 2. The parts that run
in this process take any device and any size: their code is tested on a CPU.
"""
import importlib.util
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.peers import GROUP, LR, Words, timed, untrained
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems
from grpo import GRPO, GRPOConfig
from model import GPT, GPTConfig
from plumbing import buffers
from rewards import RewardConfig, rule_rewards
from sample import generate, largest_log_ratio


@dataclass
class GPUConfig:
    """what a GPU must show"""
    minutes: float = setting(8.5, "for all of it", low=0.1, high=1000.0)
    rows: int = setting(512, "completions sampled at once, a multiple of 16", low=16, high=10**6)
    calls: int = setting(1000, "of generate, for the memory of the graphs", low=1, high=10**6)
    repeats: int = setting(5, "the median of so many is shown", low=1, high=1000)
    out: str = setting("docs/gpu.md", "the page to write")


# ------------------------------------------------------------------------------------------------------- what is measured

def table(columns, rows):
    """-> a table in Markdown. rows: lists of texts."""
    return "\n".join(["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)])


def prompts_of(task, rows):
    return [task.tokenizer.encode(p.prompt) for p in fixed_problems(task, "train", rows // GROUP) for _ in range(GROUP)]


def median_seconds(function, device, repeats):
    """-> (median seconds, the last result). Called twice before: what is captured is captured at the
    second call."""
    function(), function()
    results = [timed(function, device) for _ in range(repeats)]
    return statistics.median(seconds for seconds, _ in results), results[-1][1]


def memory(device):
    """-> MiB that torch holds on the device; 0 on a CPU."""
    return torch.cuda.memory_reserved() / 2**20 if device.type == "cuda" else 0.0


def peak(device, function):
    """-> (MiB at the highest point of a call; 0 on a CPU)."""
    if device.type != "cuda":
        function()
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    function()
    return torch.cuda.max_memory_allocated() / 2**20


def step_parts(model, device, rows, repeats):
    """Where a step of GRPO goes -> {part: median seconds}, tokens sampled."""
    task = Words()
    config, generator = GRPOConfig(group_size=GROUP, lr=LR, micro_batch=rows), torch.Generator(device).manual_seed(0)
    algorithm, problems = GRPO(model, task, config, generator), fixed_problems(task, "train", rows // GROUP)
    seen = {"sampling": [], "decoding and judging": [], "update": []}

    def judge(rollout):
        texts = rollout.completions(task.tokenizer)
        return rule_rewards(task, rollout.problems, texts, rollout.finished.tolist(), RewardConfig())

    for _ in range(repeats + 2):
        seconds, rollout = timed(lambda: algorithm.collect(problems), device)
        seen["sampling"].append(seconds)
        seconds, (rewards, _) = timed(lambda: judge(rollout), device)
        seen["decoding and judging"].append(seconds)
        seen["update"].append(timed(lambda: algorithm.update(rollout, rewards), device)[0])
    return {part: statistics.median(seconds[2:]) for part, seconds in seen.items()}, rollout.sampled_tokens


def where_a_step_goes(device, c):
    parts, tokens = step_parts(untrained(Words(), device=device), device, c.rows, c.repeats)
    total = sum(parts.values())
    return table(["part of a step", "seconds", "share"], [[part, f"{s:.3f}", f"{s / total:.0%}"] for part, s in parts.items()]) + (
        f"\n\n{c.rows} rows, {tokens:,} tokens, {tokens / total:,.0f} tokens/s, the whole batch as one micro-batch.")


def capture_against_eager(device, c):
    """CUDA graphs beside plain decoding: tokens/s, what was sampled against what is scored, greedy answers -> Markdown."""
    task, rows, greedy = Words(), [], {}
    model, prompts, kinds = untrained(task, device=device), prompts_of(Words(), c.rows), buffers.CAPTURE
    try:
        for name, captured in (("captured", (device.type,)), ("eager", ())):
            buffers.CAPTURE, buffers.KEPT = captured if device.type == "cuda" else kinds, {}
            for lengths, eos in (("uneven", task.tokenizer.eos), ("to the end", None)):
                def run():
                    generator = torch.Generator(device).manual_seed(0)
                    return generate(model, prompts, task.max_new_tokens, eos=eos, generator=generator)

                seconds, rollout = median_seconds(run, device, c.repeats)
                rate, apart = rollout.sampled_tokens / seconds, largest_log_ratio(model, rollout)
                rows.append([name, lengths, f"{rate:,.0f}", f"{apart:.1e}"])
            likeliest = generate(model, prompts[::GROUP], task.max_new_tokens, 0.0, eos=task.tokenizer.eos)
            greedy[name] = likeliest.completions(task.tokenizer)
    finally:
        buffers.CAPTURE, buffers.KEPT = kinds, {}
    same = sum(a == b for a, b in zip(greedy["captured"], greedy["eager"]))
    return (table(["decoding", "lengths", "tokens/s", "largest log-ratio"], rows)
            + f"\n\nGreedy answers equal: {same} of {len(greedy['eager'])}.")


def graphs_over_many_calls(device, c, limit=60.0):
    """Do graphs or memory (MiB) pile up over c.calls calls? At most `limit` seconds -> Markdown."""
    task, seen, began = Words(), [], time.perf_counter()
    model, prompts, most = untrained(task, device=device), prompts_of(task, c.rows), task.max_new_tokens
    # Rows and limits, over and over.
    sizes = itertools.cycle([(c.rows, most), (c.rows // 2, most // 2), (16, most), (c.rows, most // 4)])
    buffers.KEPT, stopped = {}, ""
    for call in range(1, c.calls + 1):
        if time.perf_counter() - began > limit:
            stopped = f"\n\nStopped after {call - 1} calls, {limit:.0f} s."
            break
        rows, new = next(sizes)
        generate(model, prompts[:rows], new, eos=task.tokenizer.eos)
        if call in {max(1, c.calls // 100), max(1, c.calls // 10), c.calls // 2, c.calls}:
            graphs = sum(len(getattr(kept, "graphs", ())) for kept in buffers.KEPT.values())
            seen.append([str(call), str(graphs), f"{memory(device):,.0f}"])
    return table(["calls of generate", "graphs", "MiB reserved"], seen) + stopped


def low_precision(device, c):
    """bfloat16 beside float32: speed of sampling and of an update, largest log-ratio -> Markdown."""
    rows, task = [], Words()
    for dtype in (torch.float32, torch.bfloat16):
        model, prompts = untrained(task, device=device), prompts_of(task, c.rows)
        model.compute_dtype = dtype
        run = lambda: generate(model, prompts, task.max_new_tokens, eos=task.tokenizer.eos)
        seconds, rollout = median_seconds(run, device, c.repeats)
        rate, apart = rollout.sampled_tokens / seconds, largest_log_ratio(model, rollout)
        parts, _ = step_parts(model, device, c.rows, c.repeats)
        rows.append([str(dtype).removeprefix("torch."), f"{rate:,.0f}", f"{parts['update']:.3f}", f"{apart:.1e}"])
    return table(["computed in", "tokens/s sampled", "seconds an update", "largest log-ratio"], rows)


LARGER = {"n_layer": 6, "n_head": 6, "n_embd": 384}


def larger_model(device, c, shape=LARGER):
    """The same for ten million parameters -> Markdown."""
    rows, task = [], Words()
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, **shape)).to(device)
        model.compute_dtype, found = dtype, []
        most = peak(device, lambda: found.append(step_parts(model, device, c.rows, c.repeats)))
        (parts, tokens), = found
        rows.append([f"{sum(p.numel() for p in model.parameters()):,}", str(dtype).removeprefix("torch."),
                     *(f"{s:.3f}" for s in parts.values()), f"{tokens / sum(parts.values()):,.0f}", f"{most:,.0f}"])
    return table(["parameters", "computed in", "sampling", "judging", "update (s)", "tokens/s", "peak MiB"], rows)


# ------------------------------------------------------------------------------------------------- what other commands measure

def output_of(command, limit):
    """Run a command for at most `limit` seconds -> (exit status or None if it was stopped, what it
    wrote)."""
    try:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, text=True, timeout=limit,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as stopped:
        text = stopped.stdout or b""
        return None, text.decode(errors="replace") if isinstance(text, bytes) else text


def quoted(command, limit, lines):
    """-> the last lines that a command wrote, as they are. RuntimeError if it failed."""
    status, text = output_of(command, limit)
    tail = "\n".join(line for line in text.splitlines()[-lines:] if line.strip())
    if status not in (0, None):
        raise RuntimeError(f"exit status {status}: {tail.splitlines()[-1] if tail else 'no output'}")
    return f"```\n{tail}\n```" + ("" if status == 0 else f"\n\nStopped after {limit:.0f} s: not all of it.")


def main_job(limit):
    """The README's main job from nothing, its seconds and accuracy; at most `limit` seconds -> Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = "train.py --algo grpo --task countdown --device cuda --fresh --out".split()
        status, text = output_of([*command, f"{folder}/run"], limit)
        seconds, summary = time.perf_counter() - started, pathlib.Path(folder, "run", "summary.json")
        if status != 0 or not summary.exists():
            raise RuntimeError(f"not done after {seconds:.0f} s" if status is None else text.strip().splitlines()[-1])
        found = json.loads(summary.read_text())
    rows = [[name, f"{found['seconds'][name]:.0f}"] for name in ("warm_start", "rl", "evaluation")]
    return table(["main job, seed 0", "seconds"], [*rows, ["whole command", f"{seconds:.0f}"]]) + (
        f"\n\nWanted: under 60 s. pass@1 on test {found['before']['pass@1']:.3f} before, {found['after']['pass@1']:.3f} after.")


# ------------------------------------------------------------------------------------------------------------- the page

def plan(device, c):
    """The parts -> list of (title, the command that does it alone or "", the most seconds it may take,
    a function of these seconds)."""
    here = lambda part: lambda limit: part(device, c)
    tests = ["-m", "pytest", "-p", "no:cacheprovider"]
    every = [*tests, "-n", "auto"] if importlib.util.find_spec("xdist") else tests  # a process for each core
    return [("The tests that need CUDA", "python -m pytest -k cuda", 90, lambda limit: quoted([*tests, "-k", "cuda"], limit, 4)),
            ("The main job", "python train.py --algo grpo --task countdown --device cuda", 100, main_job),
            ("Where a step goes", "", 30, here(where_a_step_goes)),
            ("Captured against eager", "", 45, here(capture_against_eager)),
            ("Graphs over many calls", "", 60, lambda limit: graphs_over_many_calls(device, c, limit)),
            ("bfloat16 against float32", "", 40, here(low_precision)),
            ("Ten million parameters", "", 45, here(larger_model)),
            ("transformers and TRL", "python bench/speed.py --peers --device cuda",  100,
             lambda limit: quoted(["bench/speed.py", "--peers", "--device", "cuda", "--repeats", "3"], limit, 30)),
            ("All tests", "python -m pytest", 240, lambda limit: quoted(every, limit, 4))]


def run_plan(parts, seconds, write, clock=time.perf_counter):
    """Do the parts one after the other, each only if its time is left -> list of (title, command, text,
    seconds), also handed to `write` after each. The last one takes what is left."""
    began, done = clock(), []
    for i, (title, command, needs, part) in enumerate(parts):
        left, started = seconds - (clock() - began), clock()
        if left < (needs if i < len(parts) - 1 else 20):
            text = f"*Not done: it may take {needs} s, and {max(0, left):.0f} were left.*"
        else:
            try:
                text = part(min(left, needs))
            except Exception as error:  # whatever it is: the others shall be measured
                text = f"*Failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}*"
        done.append((title, command, text, clock() - started))
        write(done)
    return done


def page(name, done):
    """-> the text of docs/gpu.md."""
    missing = [title for title, _, text, _ in done if text.startswith("*")]
    lines = ["# On a GPU", "", f"Made by `python bench/gpu.py` on {name}, torch {torch.__version__}. Untrained weights over 48 words "
             "([speed](10-speed.md)) unless a part says otherwise; medians.", "",
             f"Not done or failed: {', '.join(missing) if missing else 'nothing'}.", ""]
    for title, command, text, seconds in done:
        alone = f" `{command}`" if command else ""
        lines += [f"## {title}", "", text, "", f"*{seconds:.0f} s.{alone}*", ""]
    return "\n".join(lines)


def main(argv=None):
    parser = Parser(prog="bench/gpu.py", description="Everything that a GPU must show, in one command.")
    add_flags(parser, GPUConfig)
    c = from_flags(GPUConfig, vars(parser.parse_args(argv)))
    if c.rows % GROUP:
        raise InputError(f"--rows {c.rows}: must be a multiple of {GROUP}, the samples of one prompt")
    if not torch.cuda.is_available():
        raise InputError("torch sees no CUDA device here, so there is nothing to measure")
    name, place = torch.cuda.get_device_name(), pathlib.Path(c.out)
    done = run_plan(plan(torch.device("cuda"), c), c.minutes * 60, lambda done: place.write_text(page(name, done)))
    print(page(name, done))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
