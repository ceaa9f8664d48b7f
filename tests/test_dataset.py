"""A task as a data set, and its rule as a reward function, for programs that are not ours."""
import json
import random

import pytest

import tasks
from config import InputError
from evaluate import fixed_problems
from plumbing.dataset import problem_of, row, rule_reward
from rewards import RewardConfig, rule_rewards
from tasks import __main__ as command
from toys import seed


def columns(rows):
    return {name: [r[name] for r in rows] for name in rows[0]}


@pytest.mark.parametrize("name", tasks.names())
def test_a_problem_survives_as_a_row_of_json(name):
    task, rng = tasks.load(name), random.Random(seed())
    for _ in range(20):
        problem = task.sample_problem(rng)
        written = json.loads(json.dumps(row(task, problem, rng)))
        back = problem_of(written["prompt"], written["answer"], written["key"])
        assert back == problem and task.verify(back, written["completion"]) == written["right"]


@pytest.mark.parametrize("name", tasks.names())
def test_the_reward_function_is_the_rule(name):
    task, rng = tasks.load(name), random.Random(seed())
    problems = [task.sample_problem(rng) for _ in range(30)]
    rows = [row(task, problem, rng) for problem in problems]
    texts = [r["completion"] for r in rows[:20]] + ["", "<answer>", "<answer>1</answer>"] + [r["completion"] for r in rows[:7]]
    eos = task.tokenizer.eos
    ids = [task.tokenizer.encode(text) + [eos] * (i % 3 > 0) for i, text in enumerate([r["completion"] for r in rows])]
    rewards, _ = rule_rewards(task, problems, texts, [i[-1] == eos for i in ids], RewardConfig())
    given = rule_reward(task, eos)(texts, prompts=[r["prompt"] for r in rows], completion_ids=ids, **columns(rows))
    assert given == rewards.tolist() and 0 < sum(given) < len(given)


def test_a_conversation_counts_by_its_last_message_and_any_end_counts_without_eos():
    task = tasks.load("countdown")
    chat = [[{"role": "assistant", "content": "<answer>5 + (9 - 7)</answer>"}]]
    reward = rule_reward(task)
    assert reward(completions=chat, answer=["7"], key=['["countdown", 5, 7, 9, 7]'], trainer_state=None) == [1.0]
    assert reward.__name__ == "countdown_rule"


def test_the_command_writes_what_was_asked_for(tmp_path, capsys):
    place = tmp_path / "x.jsonl"
    command.main(["countdown", "--jsonl", str(place), "--problems", "30", "--split", "val", "--max-number", "9"])
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    task = tasks.load("countdown", max_number=9)
    assert [r["prompt"] for r in rows] == [p.prompt for p in fixed_problems(task, "val", 30)]
    assert "30 val problems of countdown" in capsys.readouterr().out
    with pytest.raises(InputError, match="is there already"):
        command.main(["countdown", "--jsonl", str(place)])


def test_train_problems_are_of_train_and_the_seed_moves_them(tmp_path):
    def written(number):
        place = tmp_path / f"{number}-{random.random()}"
        command.main(["modular_addition", "--jsonl", str(place), "--problems", "20", "--seed", str(number)])
        return place.read_text()
    assert written(1) == written(1) != written(2)
    keys = [problem_of("", r["answer"], r["key"]).key for r in map(json.loads, written(1).splitlines())]
    assert {tasks.split_of(key) for key in keys} == {"train"}


def test_a_command_without_a_file_or_with_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="--jsonl"):
        command.main(["countdown"])
    with pytest.raises(InputError, match="fish"):
        command.main(["fish", "--jsonl", "x"])
