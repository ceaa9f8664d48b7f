"""Is this run what it should be: a band is what it is said to be, and each symptom is found in a run that has it."""
import json
import pathlib
import sys

import pytest

from config import InputError

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "exercises"))
import check_run  # noqa: E402

LINE = {"reward": 0.5, "accuracy": 0.5, "finished": 0.9, "length": 40.0, "attempts": 2.0, "legal": 1.8, "hits": 0.5,
        "correct_marks": 1.9, "entropy": 0.15, "kl": 0.2, "groups_with_variance": 0.6, "loss": 1e-8, "clip_fraction": 0.0,
        "grad_norm": 0.14, "max_log_ratio": 1e-5, "skipped": 0}
RESULT = {"problems": 500, "pass@1": 0.25, "pass@8": 0.7, "greedy": 0.3, "finished": 1.0, "length": 39.0, "attempts": 2.0,
          "legal": 1.8, "hits": 0.2, "correct_marks": 1.9}
CONFIG = {"algo": "grpo", "task": "countdown", "seed": 0, "lr": 3e-4, "epochs": 1, "mini_batches": 1, "group_size": 8,
          "clip_high": 0.2, "loss_aggregation": "sequence_mean", "dtype": "float32", "steps": 60}


@pytest.fixture
def run(tmp_path):
    """run(name, steps, config={}, before={}, accuracy=..., ...) writes a run folder; a metric may be a function of the step."""
    def write(name="run", steps=60, config={}, before={}, after={}, **metrics):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG | config))
        each = lambda step: {key: value(step) if callable(value) else value for key, value in metrics.items()}
        lines = [{"step": step, "updates": step, **LINE, **each(step)} for step in range(1, steps + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = {"before": RESULT | before, "after": RESULT | {"pass@1": 0.5} | after, "steps": steps}
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder
    return write


def rising(step):
    return min(0.5, 0.25 + 0.01 * step)


SYMPTOMS = {  # a piece of what is said: a run that shows it
    "skipped": dict(skipped=3),
    "max_log_ratio": dict(max_log_ratio=0.3),
    "updates is 0": dict(updates=0),
    "ends only": dict(before={"finished": 0.5}),
    "right in 0.05": dict(before={"pass@1": 0.05}),
    "one sample in a hundred": dict(accuracy=0.0, reward=0.0),
    "collapse": dict(accuracy=lambda step: 0.4 if step < 30 else 0.01),
    "nats per token": dict(kl=4.0),
    "kl is 0 after": dict(kl=1e-9),
    "entropy has fallen": dict(entropy=lambda step: 0.2 if step < 30 else 0.02),
    "nothing is left": dict(groups_with_variance=0.0),
    "shared no problem": dict(groups_with_variance=0.99),
    "with one optimizer step a batch": dict(clip_fraction=0.01),
    "is 0 throughout": dict(config={"epochs": 4}),
    "the loss reaches": dict(loss=-0.4),
    "the reward is": dict(config={"format_weight": 1.0}, reward=1.0, accuracy=lambda step: 0.05),
    "on val": dict(**{"val_pass@1": lambda step: 0.2 if step % 20 == 0 else None}),
    "legal attempts fell": dict(legal=lambda step: 1.8 if step < 30 else 1.0),
    "end by themselves": dict(finished=0.2),
    "no better": dict(accuracy=0.25),
}


def test_a_healthy_run_has_no_symptom(run):
    assert check_run.symptoms(run(accuracy=rising)) == []


@pytest.mark.parametrize("said", SYMPTOMS)
def test_a_symptom_is_found(said, run):
    found = [seen for seen, _, _ in check_run.symptoms(run(**{"accuracy": rising} | SYMPTOMS[said]))]
    assert any(said in seen for seen in found), found


def test_every_symptom_of_the_table_has_such_a_run(run):
    """One run that shows it for each row: none is there that nothing can show."""
    facts = [check_run.facts(run(said.replace(" ", "-"), **{"accuracy": rising} | what)) for said, what in SYMPTOMS.items()]
    shown = {row[1] for r in facts for row in check_run.SYMPTOMS if row[0](r)}
    assert shown == {row[1] for row in check_run.SYMPTOMS}


def test_the_machinery_is_looked_at_first(run):
    seen = [seen for seen, _, _ in check_run.symptoms(run(accuracy=0.0, reward=0.0, skipped=3, kl=5.0))]
    assert "skipped" in seen[0] and "one sample" in seen[1] and "nats per token" in seen[2]


# ---- bands

def test_a_band_has_mean_lowest_and_highest(run):
    made = check_run.bands([run(str(seed), config={"seed": seed}, accuracy=0.3 + 0.1 * seed) for seed in range(3)])
    assert made["seeds"] == [0, 1, 2]
    assert list(made["bands"]) == ["warm start (test)", "steps 1 to 5", "steps 6 to 20", "steps 21 to 60", "after 60 steps (test)"]
    assert made["bands"]["steps 6 to 20"]["accuracy"] == {"mean": 0.4, "low": 0.3, "high": 0.5}
    assert made["bands"]["steps 6 to 20"]["legal share"]["mean"] == 0.9


def test_a_window_that_is_not_full_is_not_compared(run):
    assert "steps 6 to 20" not in check_run.phases(run(steps=19)) and "steps 1 to 5" in check_run.phases(run("b", steps=19))


def test_few_seeds_leave_more_room():
    """0.1 wide: with five seeds 0.1 on each side is free, with three 0.2; SLACK is free in any case."""
    band = {"low": 0.5, "high": 0.6}
    assert check_run.outside(0.35, band, 0.0, seeds=5) == "low" and check_run.outside(0.35, band, 0.0, seeds=3) == ""
    assert check_run.outside(0.81, band, 0.0, seeds=3) == "high" and check_run.outside(0.81, band, 0.3, seeds=5) == ""


def test_bands_are_of_one_job_and_of_different_seeds(run):
    a, b, c = run("a"), run("b", config={"seed": 1, "lr": 1e-3}), run("c")
    with pytest.raises(InputError, match="--lr"):
        check_run.bands([a, b])
    with pytest.raises(InputError, match="two seeds at least"):
        check_run.bands([a, c])


def test_the_command_makes_bands_and_judges_with_them(run, tmp_path, capsys):
    """A run like its seeds is as it should be; one far away is not, and another setting is named."""
    seeds = [str(run(f"s{seed}", config={"seed": seed}, accuracy=lambda step: rising(step) + 0.01 * seed)) for seed in range(3)]
    place = str(tmp_path / "bands.json")
    assert check_run.main(["--make", place, *seeds]) == 0 and "3 seeds" in capsys.readouterr().out
    assert check_run.main([str(run("fourth", config={"seed": 3}, accuracy=rising)), "--bands", place]) == 0
    said = capsys.readouterr().out
    assert "bands of 3 seeds (0, 1, 2): fewer than the five that were meant" in said and "this run is what it should be" in said
    odd = run("odd", config={"seed": 4, "lr": 1e-3}, accuracy=lambda step: rising(step) / 2, entropy=0.08, kl=0.9,
              grad_norm=0.4, length=60.0, attempts=3.5)
    assert check_run.main([str(odd), "--bands", place]) == 1
    said = capsys.readouterr().out
    assert "--lr 0.001 (there 0.0003)" in said and "steps 21 to 60: length 60 is high; 40 (40 to 40)" in said


def test_what_is_no_run_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        check_run.main([str(tmp_path)])


def test_the_bands_that_are_kept_say_how_many_seeds_they_are_of():
    for path in (ROOT / "exercises" / "expected").glob("*.json"):
        kept = json.loads(path.read_text())
        assert path.stem == f"{kept['task']}-{kept['algo']}" and len(kept["seeds"]) >= 3
        assert all(band["low"] <= band["mean"] <= band["high"] for phase in kept["bands"].values() for band in phase.values())
