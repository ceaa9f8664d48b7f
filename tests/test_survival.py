"""A run survives kills at any moment, a full disk, a folder that cannot be written to. experiments/kills.py kills more often."""
import errno
import io
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import types

import pytest
import torch

import checkpoint
import plot
import train
from config import InputError
from experiments import kills
from plumbing import run as run_room
from plumbing import start, warm_starts
from plumbing.run import Run
from toys import seed, uneven

FLAGS = [*kills.TINY, *f"--seed {seed()} --steps 6 --sft-steps 40 --test-problems 3 --eval-problems 2".split()]
SHORT = [*kills.TINY, *f"--seed {seed()} --steps 2 --sft-steps 2 --test-problems 1 --eval-problems 1 --eval-every 1 --checkpoint-every 1".split()]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(plot, "curves", lambda *_: None)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of our own for runs/ and run/, as in experiments/kills.py; the commands run in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that nobody kills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "curves", lambda *_: None)
        patch.chdir(tmp_path_factory.mktemp("straight"))
        train.main(FLAGS)
        return pathlib.Path.cwd()


def go_on(flags):
    """What a person does after a kill: --resume, or the first command again if there was no run yet."""
    train.main(["--resume", "run"] if pathlib.Path("run/config.json").exists() else flags)


def refused(argv):
    with pytest.raises(InputError) as error:
        train.main(argv)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- kills

# A power cut in the middle of the n-th saving: half of the file has reached the disk.
DIES = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import checkpoint, train
save, flush, saved = checkpoint.save, os.fsync, []
def counted(*given, **more):
    saved.append(given)
    save(*given, **more)
def dies(file):
    if len(saved) == int(sys.argv[2]):
        os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    flush(file)
checkpoint.save, os.fsync = counted, dies
train.main(sys.argv[3:])
"""


@pytest.mark.parametrize("number", [1, 4], ids=["the warm start", "the checkpoint of step 4"])
def test_a_kill_inside_the_writing_of_a_checkpoint_costs_nothing(number, straight, home):
    died = subprocess.run([sys.executable, "-c", DIES, str(kills.HERE), str(number), *FLAGS], capture_output=True)
    assert died.returncode == -signal.SIGKILL and [*home.rglob("*.writing")]
    assert (home / "run/checkpoint.pt").exists() == (number == 4)
    go_on(FLAGS)
    assert kills.differences(straight, home) == []


def test_a_run_that_is_killed_from_outside_is_the_same_run(straight, home):
    """One row of experiments/kills.py, which has all of them and takes minutes. On a busy machine the run may be faster than its
    killer, who then tries again with a new run."""
    (moment,) = [row for row in kills.PLAN if row[0] == "while the first checkpoint is written"]
    while not (killed := kills.resume(home, FLAGS, moment, kills.random.Random(seed()))):
        for place in home.iterdir():
            shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert killed.startswith("checkpoint")
    go_on(FLAGS)
    assert kills.differences(straight, home) == []


class Killed(BaseException):
    """Nothing in the code catches it."""


def test_wherever_a_file_changes_a_run_may_end(home, monkeypatch):
    """Just before each of these moments, one after the other: a file gets its name, or a line more."""
    changed, fatal = [], None

    def watched(function, name):
        def wrapper(*given):
            changed.append(name(given))
            if len(changed) == fatal:
                raise Killed
            function(*given)
        return wrapper

    monkeypatch.setattr(os, "replace", watched(os.replace, lambda given: given[1].name))
    monkeypatch.setattr(Run, "append", watched(Run.append, lambda given: given[1]))
    for fatal in (None, *range(1, 100)):
        monkeypatch.chdir(home)
        pathlib.Path(str(fatal)).mkdir()
        monkeypatch.chdir(home / str(fatal))
        changed.clear()
        try:
            train.main(SHORT)
            if fatal:
                break
        except Killed:
            go_on(SHORT)
        assert kills.differences(home / "None", home / str(fatal)) == []
    assert len(changed) == fatal - 1
    assert set(changed) == {"config.json", "checkpoint.pt", "samples.txt", "metrics.jsonl", "rollouts.jsonl", "summary.json"}


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_then_the_name_is(tmp_path, monkeypatch):
    """A power cut: a rename that comes before the content leaves an empty file, one that is not flushed itself is lost."""
    order, flush, rename = [], os.fsync, os.replace
    kind = lambda file: "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"
    monkeypatch.setattr(os, "fsync", lambda file: order.append(kind(file)) or flush(file))
    monkeypatch.setattr(os, "replace", lambda *paths: order.append("name") or rename(*paths))
    checkpoint.write_aside(tmp_path / "x", lambda file: file.write(b"content"))
    assert order == ["file", "name", "folder"] and (tmp_path / "x").read_bytes() == b"content"


def test_the_log_is_on_the_disk_before_the_checkpoint_that_counts_its_lines(home, monkeypatch):
    train.main([*SHORT, "--steps", "0"])
    run, order, flush = start.start(["--resume", "run"]), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: order.append(os.fstat(file).st_size) or flush(file))
    run.append("metrics.jsonl", "12345\n")
    assert order == [6]


def test_half_a_page_of_samples_is_written_anew(straight, home):
    """At the end the checkpoint is already there when the last page is written."""
    shutil.copytree(straight, home, dirs_exist_ok=True)
    text = pathlib.Path("run/samples.txt").read_text()
    pathlib.Path("run/samples.txt").write_text(text[:text.index("=== step 6") + 40])
    go_on(FLAGS)
    assert kills.differences(straight, home) == []


def test_a_sample_that_looks_like_a_page_is_not_one(home):
    """The model may write whatever it can spell."""
    train.main([*SHORT, "--steps", "0"])
    with open("run/samples.txt", "a") as file:
        file.write("=== \n=== step\n1 === step 9\n--- reward 0\n")
    go_on(SHORT)
    assert pathlib.Path("run/samples.txt").read_text().endswith("1 === step 9\n--- reward 0\n")


def test_what_killed_writers_leave_is_swept_away_but_not_what_may_be_alive(tmp_path):
    for name in ("checkpoint.pt.1.writing", "config.json.2.writing", "checkpoint.pt"):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / "config.json.2.writing", (0, 0))
    checkpoint.sweep(tmp_path, age=600)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt.1.writing", "checkpoint.pt"}
    checkpoint.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt"}


def test_old_leftovers_beside_a_warm_start_go_when_it_is_used(home):
    train.main([*SHORT, "--steps", "0"])
    (warm,) = home.glob("runs/warm-*")
    for name, time in (("old", 0), ("young", None)):
        (warm / f"{name}.1.writing").touch()
        os.utime(warm / f"{name}.1.writing", time if time is None else (time, time))
    train.main([*SHORT, "--steps", "0", "--out", "other"])
    assert [path.name for path in warm.glob("*.writing")] == ["young.1.writing"]


def test_a_resumed_run_remembers_what_a_collapse_is_measured_by(home, monkeypatch):
    seen = []
    train.main(SHORT)
    monkeypatch.setattr(train, "collapse", lambda history: seen.append([line["step"] for line in history]) or [])
    train.main(["--resume", "run", "--steps", "3"])
    assert seen == [[1, 2, 3]]


def test_a_run_whose_checkpoint_was_taken_away_begins_anew(straight, home):
    shutil.copytree(straight, home, dirs_exist_ok=True)
    pathlib.Path("run/checkpoint.pt").unlink()
    go_on(FLAGS)
    assert kills.differences(straight, home) == []


@pytest.mark.parametrize("change", [{"shape": {}}, {"state": None}, {"model": None}, {"version": "1"}, {"config": None}])
def test_a_foreign_checkpoint_in_a_run_folder_is_refused(home, change):
    train.main([*SHORT, "--steps", "0"])
    content = torch.load("run/checkpoint.pt", weights_only=True) | change
    torch.save({name: value for name, value in content.items() if value is not None}, "run/checkpoint.pt")
    before = pathlib.Path("run/checkpoint.pt").read_bytes()
    assert "run" in refused(["--resume", "run"])
    assert pathlib.Path("run/checkpoint.pt").read_bytes() == before


# ---- the disk

def disk(monkeypatch, free):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda place: types.SimpleNamespace(free=free))


def test_a_full_disk_is_said_before_a_folder_is_made(home, monkeypatch):
    disk(monkeypatch, free=1000)
    assert "disk is full" in refused([*SHORT, "--out", "new/run"])
    assert [*home.iterdir()] == []


def test_a_full_disk_is_said_before_a_run_goes_on(home, monkeypatch):
    train.main([*SHORT, "--steps", "0"])
    before = pathlib.Path("run/config.json").read_bytes()
    disk(monkeypatch, free=1000)
    assert "disk is full" in refused(["--resume", "run", "--steps", "1"])
    assert pathlib.Path("run/config.json").read_bytes() == before


@pytest.mark.parametrize("flags", ["--beta 0.1", "--algo ppo", "--algo prm", "--algo dpo"])
def test_the_room_that_is_asked_for_holds_two_checkpoints(home, flags, monkeypatch):
    """The old one lies there while the new one is written. Wide enough for the numbers to outweigh their names. The step must
    train, as the optimizer has no moments before its first step."""
    monkeypatch.setattr(run_room, "rule_rewards", uneven(run_room.rule_rewards))
    summary = train.main([*SHORT, "--n-embd", "128", *flags.split(), "--steps", "1"])
    parameters = sum(w.numel() for w in checkpoint.load_run("run")[0].parameters())
    size = pathlib.Path("run/checkpoint.pt").stat().st_size
    assert summary["steps"] == 1 and (summary["updates"] > 0 or "ppo" in flags)  # there the critic warms up
    disk(monkeypatch, free=2 * size)
    with pytest.raises(InputError):
        checkpoint.check_room(home / "run", parameters)
    disk(monkeypatch, free=2 * 8 * 4 * parameters)
    checkpoint.check_room(home / "run", parameters)


def test_a_disk_that_fills_up_in_the_middle_costs_only_the_steps_since_the_last_checkpoint(straight, home, monkeypatch):
    """The fourth saving (step 4) meets a real ENOSPC: the file before it stays whole, and no half file keeps the disk full."""
    saved, save, kept = [], checkpoint.save, {}

    def saves(path, *given, **more):
        saved.append(path)
        if len(saved) == 4:
            kept["old"] = path.read_bytes()
            path.with_name(f"checkpoint.pt.{os.getpid()}.writing").symlink_to("/dev/full")
        save(path, *given, **more)

    monkeypatch.setattr(checkpoint, "save", saves)
    line = refused(FLAGS)
    assert "No space left" in line and "--resume" in line and "checkpoint.pt" in line
    assert pathlib.Path("run/checkpoint.pt").read_bytes() == kept["old"] and not [*home.rglob("*.writing")]
    go_on(FLAGS)
    assert kills.differences(straight, home) == []


def test_a_disk_that_fills_up_inside_of_a_checkpoint_is_said_as_that(straight, tmp_path, monkeypatch):
    """torch.save straight to such a file raises something about positions."""
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 5000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    model, task, _ = checkpoint.load_run(straight / "run")
    monkeypatch.setattr(checkpoint, "open", Full, raising=False)
    with pytest.raises(InputError, match="No space left"):
        checkpoint.save(tmp_path / "checkpoint.pt", model, task, {})
    assert [*tmp_path.iterdir()] == []


def test_a_log_that_cannot_be_written_is_said_in_one_line(home):
    run = start.start([*SHORT, "--steps", "0"])
    pathlib.Path("run/metrics.jsonl").unlink()
    pathlib.Path("run/metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError) as error:
        run.append("metrics.jsonl", "a line\n")
    line = str(error.value)
    assert "\n" not in line and "No space left" in line and "metrics.jsonl" in line and "--resume" in line


def test_a_folder_for_warm_starts_that_cannot_be_written_to_is_said_before_the_work(home, monkeypatch):
    pathlib.Path("file").touch()
    monkeypatch.setattr(start, "RUNS", pathlib.Path("file/runs"))
    monkeypatch.setattr(warm_starts, "warm_start", lambda *_: pytest.fail("the work had begun"))
    assert "file/runs" in refused([*SHORT, "--out", "run"])


def test_a_run_folder_that_cannot_be_written_to_any_more_is_said_before_the_work(home, monkeypatch):
    train.main([*SHORT, "--steps", "0"])
    opened = open

    def read_only(path, mode="r", *more):
        if "r" not in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, mode, *more)

    monkeypatch.setattr(checkpoint, "open", read_only, raising=False)
    monkeypatch.setattr(Run, "restore", lambda self: pytest.fail("the work had begun"))
    assert "Read-only" in refused(["--resume", "run", "--steps", "1"])


def test_two_processes_do_not_work_on_one_run(home):
    """The lock is the process's: it ends with it, also if it is killed. Another folder is not concerned."""
    hold = f"import sys; sys.path.insert(0, {str(kills.HERE)!r}); import pathlib; from plumbing.start import hold; hold(pathlib.Path(sys.argv[1]))"
    another = lambda name: subprocess.run([sys.executable, "-c", hold, name], capture_output=True, text=True)
    for name in ("a", "b"):
        pathlib.Path(name).mkdir()
    held = start.hold(pathlib.Path("a"))
    refusal = another("a")
    assert refusal.returncode and "another process is at work" in refusal.stderr and not another("b").returncode
    held.close()
    assert not another("a").returncode


def test_what_resume_may_change(home, capsys):
    train.main([*SHORT, "--lr-schedule", "linear"])
    assert "has taken 2 already" in refused(["--resume", "run", "--steps", "1"])
    assert "--lr cannot be changed" in refused(["--resume", "run", "--lr", "0.1"])
    config = pathlib.Path("run/config.json")
    config.write_text(config.read_text().replace('"cpu"', '"cuda"'))  # as if it had begun on a GPU
    content = checkpoint.load("run")
    content["config"]["device"] = "cuda"
    torch.save(content, "run/checkpoint.pt")
    capsys.readouterr()
    assert train.main(["--resume", "run", "--steps", "3", "--device", "cpu"])["steps"] == 3
    said = capsys.readouterr().out
    assert "the rate goes on as if" in said and "on cpu now" in said


def test_a_folder_with_a_log_of_something_else_is_not_written_into(home):
    pathlib.Path("run").mkdir()
    pathlib.Path("run/metrics.jsonl").write_text("mine\n")
    assert "--out run" in refused(SHORT)
    assert pathlib.Path("run/metrics.jsonl").read_text() == "mine\n"
