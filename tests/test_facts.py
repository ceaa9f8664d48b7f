"""experiments/facts.py and the four experiments about small tables: their arithmetic, their tasks, and a small run of each."""
import importlib
import itertools
import json
import pathlib
import random
import sys

import pytest
import torch

from toys import seed

sys.path.append(str(pathlib.Path(__file__).parent.parent / "experiments"))
abstention, facts, hidden, notations, rare = (importlib.import_module(name) for name in (
    "abstention", "facts", "hidden_condition", "two_notations", "rare_facts"))
NAMES = ("abstention", "two_notations", "rare_facts", "hidden_condition")
TINY = {"abstention": {"subjects": 2, "runs": [("dr_grpo", "a = 0.75"), ("grpo", "w = 3")]}, "two_notations": {"k": 2, "worlds": ("half",), "look": 1},
        "rare_facts": {"prices": (0.1,)}, "hidden_condition": {"keys": 2, "methods": ("warm", "pass@2", "maxrl", "shown")}}


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_from_end_to_end(name, tmp_path):
    """Two steps of everything: every row of the table has as many columns as its head, every curve as many values as places."""
    module, kept = importlib.import_module(name), {}
    plan = module.QUICK | {"sft": 2, "steps": 2, "prompts": 4} | TINY[name]

    def get(cells):
        return {words: kept.setdefault(words, json.loads(json.dumps(module.cell(tmp_path, plan, *map(str, words))))) for words in cells}

    text, panels = module.report(tmp_path, plan, get)
    table = text.split("\n\n")[0].splitlines()
    assert len(table) > 3 and len({line.count("|") for line in table}) == 1
    assert all(len(xs) == len(ys) for panel in panels for xs, ys, *_ in panel["curves"].values())


@pytest.mark.parametrize("task", [abstention.rumours(2), notations.sums("half", 3), rare.relations(9, 0), hidden.conditions(2, True),
                                  hidden.conditions(2, False)], ids=lambda task: type(task).__name__)
def test_prompts_and_demonstrations_fit_into_the_sizes_that_the_task_says(task):
    rng = random.Random(seed())
    for _ in range(200):
        problem = task.sample_problem(rng)
        assert len(task.tokenizer.encode(problem.prompt)) == task.max_prompt_tokens
        assert len(task.tokenizer.encode(task.demonstration(problem, rng))) + 1 <= task.max_new_tokens


def test_the_chances_of_a_first_token_are_those_of_the_model():
    task = abstention.rumours(1)
    model = facts.warm_start(task, steps=1, seed=seed())
    p = facts.chances(model, task, task.prompts[:3])
    assert torch.allclose(p.sum(1), torch.ones(3)) and p.shape == (3, task.tokenizer.n_vocab)
    assert torch.allclose(p[1], model(torch.tensor([task.tokenizer.encode(task.prompts[1])]))[0, -1].softmax(-1), atol=1e-6)


# ---- abstention.py

@pytest.mark.parametrize("a, w", abstention.REWARDS.values())
def test_at_the_threshold_answering_and_abstaining_earn_the_same(a, w):
    q = abstention.theory("dr_grpo", a, w)
    assert q * abstention.reward(a, w, " v1", " v1") + (1 - q) * abstention.reward(a, w, " v1", " v2") == pytest.approx(
        abstention.reward(a, w, " v1", abstention.IDK))


def test_dividing_by_the_standard_deviation_forgets_what_abstaining_earns():
    """Half of a group answers alike, half abstains: right or wrong, with a = 0.1 or 0.9, the advantages are 1 and -1."""
    from grpo import group_advantages
    for a, right in itertools.product((0.1, 0.9), (True, False)):
        rewards = torch.tensor([float(right)] * 4 + [a] * 4)
        assert torch.allclose(group_advantages(rewards, 8), torch.tensor([1.0] * 4 + [-1.0] * 4) * (1 if right else -1), atol=1e-5)


def test_a_completion_that_is_neither_is_wrong():
    assert [abstention.reward(0.5, 2.0, " v1", text) for text in (" v1", abstention.IDK, "", " v1 v1")] == [1.0, 0.5, -2.0, -2.0]


def test_untaught_subjects_are_never_shown_and_their_truth_has_no_favourite():
    task = abstention.rumours(4)
    untaught = {i for i, level in enumerate(task.levels) if level == 1 / abstention.VALUES}
    assert len(untaught) == 4 and not untaught & set(task.pool) and sum(task.asked) == len(task.asked) / 2
    task.pool, rng = [min(untaught)], random.Random(seed())
    answers = [task.draw(rng).answer for _ in range(4000)]
    assert all(answers.count(answer) == pytest.approx(500, abs=110) for answer in task.answers)  # 5 standard deviations


# ---- two_notations.py

@pytest.mark.parametrize("text", ["", " 1", " 1 2", " 1 2 3 4 5", " 1 2=", " 1 2 7", " IV V +"])
def test_what_is_no_whole_chain_earns_nothing(text):
    problem = next(iter([notations.sums("same", 2).sample_problem(random.Random(seed()))]))
    assert notations.reward("target", 1.0, problem, text) == 0


def test_the_reward_is_for_the_last_number_and_for_the_share_of_digits():
    from tasks import Problem
    problem = Problem("5+3=", 1, (5, 3))
    assert notations.reward("none", 0.5, problem, " 5 III I") == 1
    assert notations.reward("target", 0.6, problem, " 5 III I") == pytest.approx(1.2)
    assert notations.reward("target", 0.6, problem, " 5 3 2") == pytest.approx(0.6)


def test_demonstrations_err_where_their_notation_is_not_at_home():
    """At home always right; elsewhere wrong nine times in ten, and a random result is right once in seven."""
    task, rng, right = notations.sums("hardly", 2), random.Random(seed()), {True: [], False: []}
    for _ in range(4000):
        problem = task.sample_problem(rng)
        values, written = notations.read(task.demonstration(problem, rng), 2)
        assert values[:2] == list(problem.key) and written[1] == written[2]
        right[notations.at_home("hardly", written[2], problem.key[1])].append(values[2] == problem.answer)
    assert all(right[True]) and sum(right[False]) / len(right[False]) == pytest.approx(0.1 + 0.9 / 7, abs=0.05)


def test_consistency_and_steps_at_home_are_counted():
    from tasks import Problem
    problem = Problem("5+3=", 1, (5, 3))  # 3 is added: Roman numerals are at home
    found = notations.measure(None, "half", [(problem, " 5 3 1"), (problem, " 5 III I"), (problem, ""), (problem, " V III II")])
    assert found == {"right": 0.5, "consistent": 0.5, "digits": 4 / 9, "home": 2 / 3}


# ---- rare_facts.py

def test_the_steps_are_the_relations_one_after_another():
    task = rare.relations(9, 0)
    task.maps = {"a": [1, 2, 3, 4, 5, 6, 7, 8, 0], "b": [0, 2, 4, 6, 8, 1, 3, 5, 7]}
    assert task.way(("a", "b", "a", 3)) == [" 4", " 8", " 0"]  # a(3) = 4, b(4) = 8, a(8) = 0
    problem = task.problem(("a", "b", "a", 3))
    assert (problem.prompt, problem.answer) == ("aba3?", " 0")
    assert {task.demonstration(problem, random.Random(i)) for i in range(20)} == {" 0", " via 4 via 8 0"}


def test_the_price_is_for_the_tokens_beyond_a_direct_answer():
    assert rare.reward(0.1, " 7", " 7", 2) == 1.0 and rare.reward(0.1, " 7", " via 4 via 8 7", 6) == pytest.approx(0.6)
    assert rare.reward(0.1, " 7", "", 6) == pytest.approx(-0.4)


def test_the_exact_chances_are_those_of_the_samples():
    """A model that has hardly learned, one question: how often it begins with " via", and how often its first token is the answer."""
    from sample import SamplingConfig, collect
    task = rare.relations(9, 0)
    model, problem = facts.warm_start(task, steps=30, seed=seed()), task.problem(task.questions[0])
    at_once, direct, steps = rare.exact(model, task)
    first = collect(model, task, [problem], SamplingConfig(group_size=4000), torch.Generator().manual_seed(seed())).tokens[:, 4]
    share = lambda word: float((first == task.tokenizer.encode(word)[0]).float().mean())
    assert share(rare.VIA) == pytest.approx(1 - float(at_once[0]), abs=0.04)
    assert share(problem.answer) == pytest.approx(float(at_once[0] * direct[0]), abs=0.04)
    assert len(steps) == 8 * 9 and all((x >= 0).all() and (x <= 1 + 1e-5).all() for x in (at_once, direct, steps))


def test_the_chance_of_the_steps_is_that_of_every_token_after_the_first():
    """The product along the true chain, token by token, its end included."""
    task = rare.relations(9, 0)
    model, key = facts.warm_start(task, steps=30, seed=seed()), task.questions[5]
    first, second, answer = task.way(key)
    prompt, encode, expected = task.problem(key).prompt, task.tokenizer.encode, 1.0
    written = prompt + rare.VIA
    for token in (first, rare.VIA, second, answer):
        expected *= float(facts.chances(model, task, [written])[0, encode(token)[0]])
        written += token
    expected *= float(facts.chances(model, task, [written])[0, task.tokenizer.eos])
    assert float(rare.exact(model, task)[2][5]) == pytest.approx(expected, rel=1e-3)


# ---- hidden_condition.py

@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_advantages_of_pass_at_k_give_its_gradient(k):
    """One problem, chance p to be right, four samples: the expectation over all outcomes of sum_i A_i grad log pi(y_i) is
    (n / k) grad pass@k = n (1 - p)^(k - 1), with p itself as the parameter."""
    n, p, expected = 4, 0.3, 0.0
    for outcome in itertools.product((0.0, 1.0), repeat=n):
        advantages = hidden.pass_at_k_advantages(torch.tensor(outcome), n, k)
        grads = torch.tensor([1 / p if right else -1 / (1 - p) for right in outcome])
        chance = torch.tensor([p if right else 1 - p for right in outcome]).prod()
        expected += float(chance * (advantages * grads).sum())
    assert expected == pytest.approx(n * (1 - p) ** (k - 1), rel=1e-4)


def test_the_best_of_k_keeps_both_answers_and_the_optimum_is_the_formula():
    for k, m in itertools.product((2, 4), (0.5, 0.7, 0.9)):
        odds = (m / (1 - m)) ** (1 / (k - 1))
        assert hidden.optimum(f"pass@{k}", m) == pytest.approx(odds / (1 + odds), abs=1e-3)


def test_one_of_k_samples_is_right():
    assert hidden.pass_at(1, 0.75, 0.5, 0.25) == pytest.approx(0.75 * 0.5 + 0.25 * 0.25)
    assert hidden.pass_at(2, 0.75, 0.5, 0.5) == pytest.approx(0.75)
