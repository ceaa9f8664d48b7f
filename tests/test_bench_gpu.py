"""bench/gpu.py without a GPU: its plan, its page, and each part that it computes itself, on the CPU
with tiny sizes."""
import pathlib
import subprocess
import sys

import pytest
import torch

from bench import gpu
from config import InputError
from plumbing import buffers

TINY = gpu.GPUConfig(rows=16, calls=2, repeats=1)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Words of at most 6 tokens."""
    monkeypatch.setattr(gpu.Words, "max_new_tokens", 6)


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("part, columns, rows", [
    (gpu.where_a_step_goes, 3, 3), (gpu.capture_against_eager, 4, 4), (gpu.graphs_over_many_calls, 3, 2), (gpu.low_precision, 4, 2)])
def test_a_part_measures_and_makes_a_table(part, columns, rows):
    before = buffers.CAPTURE
    found = cells(part(CPU, TINY))
    assert [len(row) for row in found] == [columns] * (rows + 2) and found[1] == ["---"] * columns
    assert all(row[0] and row[-1] for row in found) and buffers.CAPTURE == before


def test_the_larger_model_has_ten_million_parameters():
    shape = gpu.LARGER
    assert 10e6 < sum(p.numel() for p in gpu.GPT(gpu.GPTConfig(48, 93, **shape)).parameters()) < 11e6
    found = cells(gpu.larger_model(CPU, TINY, {"n_layer": 1, "n_head": 2, "n_embd": 32}))
    assert [row[1] for row in found[2:]] == ["float32", "bfloat16"]


def test_the_plan_fits_into_its_time_and_names_every_part():
    parts = gpu.plan(CPU, TINY)
    assert sum(needs for _, _, needs, _ in parts[:-1]) <= 600 and len({title for title, *_ in parts}) == 9
    said = gpu.__doc__.split("The parts")[1].split("\n\n")[1]
    assert len(said.splitlines()) == len(parts)


class Clock:
    """Time that passes only when somebody says so."""
    now = 0.0

    def __call__(self):
        return self.now


def test_a_part_that_fails_or_has_no_time_stops_nothing():
    clock, pages = Clock(), []

    def takes(seconds, text):
        def part(limit):
            clock.now += seconds
            return text or 1 / 0
        return part

    parts = [("a", "python a", 10, takes(10, "fine")), ("b", "", 5, takes(1, "")), ("c", "", 50, takes(50, "never")),
             ("d", "", 5, takes(5, "in time")), ("e", "", 900, takes(20, "what is left"))]
    done = gpu.run_plan(parts, 60, lambda done: pages.append(gpu.page("a card", done)), clock)
    assert [text for _, _, text, _ in done] == ["fine", "*Failed: ZeroDivisionError: division by zero*",
                                                "*Not done: it may take 50 s, and 49 were left.*", "in time", "what is left"]
    assert len(pages) == 5 and "Not done or failed: b, c." in pages[-1] and "`python a`" in pages[-1]
    assert "## e" not in pages[3]  # after each part there is a page


def test_other_commands_are_quoted_stopped_and_their_failure_is_told():
    assert gpu.quoted(["-c", "print('x'); print('y')"], 30, 1) == "```\ny\n```"
    with pytest.raises(RuntimeError, match="exit status 3: no"):
        gpu.quoted(["-c", "import sys; print('no'); sys.exit(3)"], 30, 1)
    late = gpu.quoted(["-c", "import time; print('begun', flush=True); time.sleep(60)"], 3, 1)
    assert "Stopped after 3 s" in late


def test_the_main_job_fails_in_one_line_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(gpu, "output_of", lambda command, limit: (2, "error: --device cuda: torch sees no such device here"))
    with pytest.raises(RuntimeError, match="no such device"):
        gpu.main_job(10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_so_in_one_line_and_exits_with_2():
    with pytest.raises(InputError, match="no CUDA device"):
        gpu.main([])
    done = subprocess.run([sys.executable, "bench/gpu.py"], cwd=pathlib.Path(gpu.__file__).parent.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and "no CUDA device" in done.stderr
