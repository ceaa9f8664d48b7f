"""Countdown: problems that cannot leak, demonstrations that never lie, a random-search baseline that is priced right."""
import itertools
import random
import re
from collections import Counter

import pytest

import tasks
from config import InputError
from tasks import Problem, split_of
from tasks.countdown import combine, random_attempt, reachable, solution, steps
from toys import seed

TASK = tasks.load("countdown")
ALL_KINDS = [{}, {"numbers": 2}, {"numbers": 4, "attempts": 1}, {"targets": "reachable"}, {"cot": "off"}, {"expert_share": 0.0},
             {"expert_share": 1.0}, {"max_number": 3, "attempts": 6}]


def make(*numbers, target):
    return Problem(f"Use {', '.join(map(str, numbers))} to make {target}.\n", target, ("countdown", *sorted(numbers), target))


def read(prompt):
    """A prompt -> (sorted numbers, target), without a look at the key."""
    numbers, target = re.fullmatch(r"Use (.*) to make (\d+)\.\n", prompt).groups()
    return tuple(sorted(map(int, numbers.split(", ")))), int(target)


# ---- the steps

def test_steps_stay_whole_and_between_0_and_99():
    assert [combine(*step) for step in [(6, "/", 4), (6, "/", 0), (4, "-", 6), (50, "*", 2), (99, "+", 1)]] == [None] * 5
    assert [combine(*step) for step in [(6, "/", 3), (6, "-", 6), (33, "*", 3), (0, "/", 6)]] == [2, 0, 99, 0]


def test_a_step_replaces_two_numbers_by_their_result():
    assert {(a, op, b, c, left) for a, op, b, c, left in steps((2, 3, 50)) if a == 3} == {
        (3, "+", 2, 5, (5, 50)), (3, "-", 2, 1, (1, 50)), (3, "*", 2, 6, (6, 50))}


def test_reachable_values_match_trying_everything():
    """Brute force: every order, operator and grouping of three numbers."""
    def join(a, b):
        return [c for op in "+-*/" for c in (combine(a, op, b), combine(b, op, a)) if c is not None]
    for numbers in [(1, 2, 3), (3, 3, 5), (2, 9, 13), (13, 13, 13)]:
        found = {d for a, b, c in itertools.permutations(numbers) for ab in join(a, b) for d in join(ab, c)}
        assert reachable(numbers) == found


# ---- problems and splits

def test_reordered_numbers_are_one_problem():
    """Trap 21: the prompt is shuffled, the key is not."""
    rng, prompts_of = random.Random(seed()), {}
    task = tasks.load("countdown", max_number=4)
    for _ in range(3000):
        problem = task.sample_problem(rng)
        assert problem.key == ("countdown", *read(problem.prompt)[0], problem.answer)
        prompts_of.setdefault(problem.key, set()).add(problem.prompt)
    assert max(map(len, prompts_of.values())) > 1  # the shuffle does happen


def test_splits_do_not_share_a_problem():
    """Trap 21, without a look at the keys: sorted numbers and target, as read from the prompts."""
    rng, seen = random.Random(seed()), {}
    for split in ("train", "val", "test"):
        seen[split] = {read(TASK.sample_problem(rng, split).prompt) for _ in range(2000)}
    assert not seen["train"] & seen["val"] and not seen["train"] & seen["test"] and not seen["val"] & seen["test"]


def default_keys():
    """Every problem of the default task, one after another."""
    o = TASK.options
    return (("countdown", *numbers, target)
            for numbers in itertools.combinations_with_replacement(range(1, o.max_number + 1), o.numbers)
            for target in reachable(numbers) if 1 <= target <= o.max_target)


def test_the_default_task_has_at_least_5000_problems():
    """Fewer, and the test split would be too small to mean anything."""
    assert len(list(itertools.islice(default_keys(), 5000))) == 5000


def test_the_splits_are_70_10_and_20_percent():
    shares = Counter(map(split_of, itertools.islice(default_keys(), 5000)))
    assert [shares[split] / 5000 for split in ("train", "val", "test")] == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="train, val or test"):
        TASK.sample_problem(random.Random(seed()), "dev")


@pytest.mark.parametrize("options", ALL_KINDS, ids=str)
def test_every_problem_follows_the_options_and_can_be_solved(options):
    task, rng = tasks.load("countdown", **options), random.Random(seed())
    for _ in range(200):
        problem = task.sample_problem(rng, "train")
        numbers, target = read(problem.prompt)
        assert len(numbers) == task.options.numbers and 1 <= numbers[0] and numbers[-1] <= task.options.max_number
        assert 1 <= target <= task.options.max_target and target == problem.answer
        assert target in reachable(numbers)


def test_the_same_seed_draws_the_same_problems():
    first, second = ([TASK.sample_problem(random.Random(seed(7))) for _ in range(3)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("options", [{"numbers": 1}, {"max_number": 100}, {"expert_share": 1.5}, {"targets": "hard"},
                                     {"numbers": 6, "targets": "reachable"}, {"colour": "red"}, {"numbers": 3.0}])
def test_impossible_options_are_refused_in_one_line(options):
    with pytest.raises(InputError) as error:
        tasks.load("countdown", **options)
    assert "\n" not in str(error.value) and list(options)[0].replace("_", "-") in str(error.value).replace("_", "-")


# ---- demonstrations

def check(numbers, line):
    """An attempt, checked without the task's own code -> the number it ends at. Fails on a lie."""
    left = Counter(numbers)
    *operations, mark = line.split(", ")
    for operation in operations:
        a, op, b, c = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", operation).groups()
        a, b, c = int(a), int(b), int(c)
        assert {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": b * c == a and b > 0}[op], operation
        assert left[a] and left[b] and (a != b or left[a] > 1), f"{operation}: one of the two is not there"
        left.subtract([a, b])
        left[c] += 1
    (end,) = left.elements()  # exactly one number is left
    assert mark in ("found", "failed")
    return end, mark == "found"


@pytest.mark.parametrize("options", ALL_KINDS, ids=str)
def test_demonstrations_never_lie_and_answer_with_their_last_attempt(options):
    """Trap 20: every mark is true, every step is legal, and the verifier agrees with what the demonstration claims."""
    task, rng = tasks.load("countdown", **options), random.Random(seed())
    o, verdicts = task.options, Counter()
    for _ in range(2000 if not options else 300):
        problem = task.sample_problem(rng)
        numbers = problem.key[1:-1]
        text = task.demonstration(problem, rng)
        thinking, given = re.fullmatch(r"<think>((?:.*\n)*)</think><answer>(.*)</answer>", text).groups()
        right = task.verify(problem, text)
        value, used = task.canonical_answer(text)
        verdicts[right] += 1
        assert used == numbers  # right or wrong, the answer uses the given numbers
        attempts = [check(numbers, line) for line in thinking.splitlines()]
        assert all(found == (end == problem.answer) for end, found in attempts)
        if o.cot == "on":
            assert 1 <= len(attempts) <= o.attempts
            assert value == attempts[-1][0] and right == attempts[-1][1]
            assert not any(found for _, found in attempts[:-1])  # it stops when it has found the target
        else:
            assert thinking == ""
        assert task.describe(problem, text) == {"attempts": len(attempts), "legal": len(attempts), "correct_marks": len(attempts),
                                                "hits": sum(found for _, found in attempts)}
    assert verdicts[True] and (verdicts[False] or o.expert_share == 1.0)  # neither perfect nor hopeless
    assert not verdicts[False] or o.expert_share < 1.0


@pytest.mark.parametrize("numbers, target", [((3, 3, 5), 14), ((3, 3, 3), 9), ((2, 2, 4), 8), ((3, 3, 6), 0), ((2, 2, 2, 4), 8),
                                             ((1, 2, 3, 6), 12)])
def test_demonstrations_hold_when_a_number_occurs_twice(numbers, target):
    """Trap 20: also when a result equals a given number (2 + 2 = 4 beside a 4)."""
    task, rng = tasks.load("countdown", numbers=len(numbers)), random.Random(seed())
    problem = make(*numbers, target=target)
    for _ in range(300):
        text = task.demonstration(problem, rng)
        end, found = check(numbers, text.removeprefix("<think>").split("\n</think>")[0].splitlines()[-1])
        assert task.canonical_answer(text) == (end, numbers)
        assert task.verify(problem, text) == found == (end == target)


def test_a_planted_solution_always_reaches_the_target():
    rng = random.Random(seed())
    for target in sorted(reachable((2, 3, 5, 7)))[:40]:
        assert solution((2, 3, 5, 7), target, rng)[-1][-1] == (target,)


@pytest.mark.parametrize("options", ALL_KINDS + [{"numbers": 6, "max_number": 9, "attempts": 2}], ids=str)
def test_prompts_and_demonstrations_fit_into_what_the_task_asks_for(options):
    task, rng = tasks.load("countdown", **options), random.Random(seed())
    for _ in range(200):
        problem = task.sample_problem(rng)
        assert len(task.tokenizer.encode(problem.prompt)) <= task.max_prompt_tokens
        length = len(task.tokenizer.encode(task.demonstration(problem, rng))) + 1  # EOS
        assert task.min_new_tokens <= length <= task.max_new_tokens


# ---- reading what a policy wrote

PROBLEM = make(3, 5, 7, target=22)


@pytest.mark.parametrize("text, end", [
    ("5 * 3 = 15, 15 + 7 = 22", 22), ("7 - 5 = 2, 3 * 2 = 6", 6),
    ("5 * 3 = 16, 16 + 7 = 23", None), ("5 * 3 = 15, 15 + 5 = 20", None), ("5 * 3 = 15", None),
    ("5 + 5 = 10, 10 + 3 = 13", None), ("5 * 3 = 15, 15 + 8 = 23", None), ("3 - 5 = -2, 7 - 2 = 5", None),
    ("7 / 5 = 1, 3 + 1 = 4", None), ("", None), ("5 *", None), ("22", None),
    ("5 * 3 = 15, 15 + 7 = 22, 22", None), ("5 * 3 = 15 15 + 7 = 22", None),
])
def test_an_attempt_ends_at_a_number_only_if_it_follows_the_rules(text, end):
    assert TASK.check_attempt(PROBLEM, text) == end


def test_describe_counts_attempts_legal_ones_hits_and_true_marks():
    text = ("<think>5 * 3 = 15, 15 + 7 = 22, failed\n"   # a hit, but it says failed
            "7 - 5 = 2, 3 * 2 = 6, failed\n"             # legal, told
            "7 + 5 = 13, 13 + 9 = 22, found\n"           # not legal, and no hit whatever it says
            "5 * 3 = 15, 15 + 7 = 22, 3 + 3 = 9found\n"  # no step hides before a mark
            "5 * 3 = 15, 15 + 7 = 22, found\n</think><answer>(5 * 3) + 7</answer>")
    assert TASK.describe(PROBLEM, text) == {"attempts": 5, "legal": 3, "hits": 2, "correct_marks": 2}


def test_equal_answers_share_their_canonical_form():
    """What votes are counted on: the value and the numbers, not the way of writing it."""
    form = lambda text: TASK.canonical_answer(f"<answer>{text}</answer>")
    assert form("(5 * 3) + 7") == form("7 + 3 * 5") == (22, (3, 5, 7))
    assert form("(5 * 3) + 7") != form("(5 * 7) + 3") and form("11 + 11") != form("7 + 3 * 5")
    assert form("5 +") is None and TASK.canonical_answer("22") is None


@pytest.mark.parametrize("text, verdict", [
    ("<think>7 - 5 = 2, 3 * 2 = 6, failed\n5 * 3 = 15, 15 + 7 = 22, found\n</think><answer>1</answer>", True),
    ("<think>5 * 3 = 15, 15 + 7 = 22, found\n", True),              # the thinking has not ended yet
    ("<think>5 * 3 = 15, 15 + 7 = 22, found\n7 - 5 = 2, 3 * 2 = 6, failed\n</think>", False),
    ("<think>7 - 5 = 2, 3 * 2 = 6, failed\n</think><answer>found\n", False), ("<think>found\n5 * 3", False), ("", False),
])
def test_a_solution_says_itself_whether_it_has_found_the_target(text, verdict):
    """By its last mark before the end of thinking, true or not: a policy may lie."""
    assert TASK.own_verdict(text) is verdict


@pytest.mark.parametrize("text, left", [
    ("5 * 3 = 15", (7, 15)), ("5 * 3 = 15, 15 + 7 = 22", (22,)), ("7 - 5 = 2", (2, 3)),
    ("5 * 3 = 16", None), ("5 + 5 = 10", None), ("5 * 3 = 15, 5 + 7 = 12", None), ("3 - 5 = 2", None), ("5 * 3", None),
])
def test_numbers_left_are_those_not_used_and_the_results(text, left):
    assert TASK.numbers_left(PROBLEM, text) == left


def test_a_number_that_occurs_twice_may_be_used_twice():
    """One of the fives is left; and a result that equals a given number stands beside it."""
    problem = make(5, 5, 10, target=20)
    assert TASK.numbers_left(problem, "10 / 5 = 2") == (2, 5) and TASK.numbers_left(problem, "5 + 5 = 10") == (10, 10)
    assert TASK.numbers_left(problem, "5 + 5 = 10, 10 + 10 = 20") == (20,)


@pytest.mark.parametrize("text, possible", [
    ("5 * 3 = 15, ", True), ("7 + 5 = 12, ", False), ("5 * 3 = 15, 15 + 7 = 22, ", True), ("5 * 3 = 15, 15 - 7 = 8, ", False),
    ("7 + 5 = 12, 12 + 3 = 15, failed\n5 * 3 = 15, ", True),   # only the attempt that is going on counts
    ("5 * 3 = 15, 15 + 7 = 22, found\n7 + 5 = 12, ", False),
    ("5 * 3 = 22, ", False), ("5 + 5 = 10, ", False), ("15 + 7 = 22, ", False),  # what breaks a rule reaches nothing
])
def test_whether_an_attempt_can_still_succeed(text, possible):
    assert TASK.still_possible(PROBLEM, "<think>" + text) is possible


def test_a_step_is_hopeless_exactly_if_no_way_on_reaches_the_target():
    """By brute force: every order of what is left, every operator, every grouping, and the larger number need not come first."""
    def ways(numbers):
        if len(numbers) == 1:
            return {numbers[0]}
        return {end for i, j in itertools.permutations(range(len(numbers)), 2) for op in "+-*/"
                if (value := combine(numbers[i], op, numbers[j])) is not None
                for end in ways([n for k, n in enumerate(numbers) if k not in (i, j)] + [value])}
    task, rng, seen = tasks.load("countdown", numbers=4), random.Random(seed()), Counter()
    for _ in range(60):
        problem = task.sample_problem(rng)
        a, op, b, c, left = rng.choice(steps(problem.key[1:-1]))
        expected = problem.answer in ways(list(left))
        assert task.still_possible(problem, f"<think>{a} {op} {b} = {c}, ") == expected
        seen[expected] += 1
    assert min(seen[True], seen[False]) > 0


# ---- the random-search baseline

def test_random_search_matches_the_sum_by_hand():
    """2 and 6 allow four steps, one of which makes 12, so a try succeeds with 1/4. A budget of three tries makes
    1 + 3/4 + 9/16 of them on average and succeeds with 1 - 27/64."""
    estimate = TASK.random_search([make(2, 6, target=12)], 1 + 3 / 4 + 9 / 16, searches=20_000)
    assert estimate == pytest.approx(1 - 27 / 64, abs=0.015)


def test_random_search_adds_up_problems_that_differ():
    """Beside a hopeless problem S_j = (1 + (3/4)^j) / 2. Averaging the chance of one try (1/8) would say 1 - (7/8)^3."""
    problems = [make(2, 6, target=12), make(2, 6, target=99)]
    attempts = sum((1 + 0.75 ** j) / 2 for j in range(3))
    assert TASK.random_search(problems, attempts, searches=20_000) == pytest.approx((1 - 0.75 ** 3) / 2, abs=0.015)


def test_random_search_matches_a_simulation():
    """Trap 30's yardstick against the plainest simulation: up to three tries, stop when found, count both."""
    rng = random.Random(seed(1))
    problems = [TASK.sample_problem(rng, "val") for _ in range(20)]
    made = found = 0
    for problem in problems * 600:
        for _ in range(3):
            made += 1
            if random_attempt(problem.key[1:-1], rng)[1] == problem.answer:
                found += 1
                break
    n = len(problems) * 600
    assert TASK.random_search(problems, made / n, searches=600) == pytest.approx(found / n, abs=0.03)


def test_random_search_grows_with_its_budget_and_needs_one():
    problems = [make(2, 6, target=12), make(3, 5, 7, target=22)]
    rates = [TASK.random_search(problems, attempts) for attempts in (0, 0.5, 1, 1.5, 2, 4)]
    assert rates[0] == 0 and rates == sorted(rates) and len(set(rates)) == len(rates)


def test_random_attempts_draw_every_legal_step_equally_often():
    rng = random.Random(seed())
    counts = Counter(random_attempt((2, 6), rng)[1] for _ in range(4000))
    assert set(counts) == {8, 4, 12, 3} and all(850 < count < 1150 for count in counts.values())


def test_a_random_attempt_never_gets_stuck():
    """The larger number minus the smaller one is always legal."""
    assert all(random_attempt((97, 98, 99), random.Random(seed(n)))[1] is not None for n in range(50))


def test_a_loose_judge_lets_numbers_be_dropped_and_reused_but_not_invented_and_the_target_is_one_of_them():
    strict, loose = tasks.load("countdown"), tasks.load("countdown", judge="loose")
    problem = tasks.Problem("Use 3, 5, 7 to make 15.\n", 15, ("countdown", 3, 5, 7, 15))
    answers = {"5 * 3": (False, True), "(5 + 5) + 5": (False, True), "(7 - 5) * 3": (False, False), "8 + 7": (False, False),
               "15": (False, True), "(5 + 3) + 7": (True, True)}
    for answer, verdicts in answers.items():
        text = f"<think></think><answer>{answer}</answer>"
        assert (strict.verify(problem, text), loose.verify(problem, text)) == verdicts, answer
        assert loose.describe(problem, text)["truth"] == verdicts[0]
    assert "truth" not in strict.describe(problem, text)


def test_a_demonstration_that_cheats_is_wrong_for_a_strict_judge_and_right_for_a_loose_one():
    honest, cheat = tasks.load("countdown"), tasks.load("countdown", cheat_share=1.0, judge="loose")
    problem = honest.sample_problem(random.Random(seed()))
    text = cheat.demonstration(problem, random.Random(seed()))
    assert cheat.verify(problem, text) and not honest.verify(problem, text)


@pytest.mark.parametrize("line, hold", [("5 * 3 = 16, 16 + 7 = 23, failed\n", False), ("5 * 3 = 15, 15 + 7 = 22, failed\n", True)])
def test_whether_steps_hold_is_about_the_steps_and_not_about_the_mark(line, hold):
    """A false step that ends in an honest mark is false; true steps under a false mark are true."""
    assert TASK.steps_hold(PROBLEM, f"<think>{line}</think><answer>(5 * 3) + 7</answer>") is hold


@pytest.mark.parametrize("text, hold", [
    ("<think>5 * 3 = 16</think><answer>5</answer>", False), ("<think>5 * 3 = 16, </think><answer>5</answer>", False),  # no mark
    ("<think>5 * 3 = 15</think><answer>5</answer>", True), ("<think>5 * 3 = 15, 7 + 7 = 14<answer>5</answer>", False),
    ("<think></think>5 * 3 = 15<answer>5</answer>", False), ("<think></think><answer>5</answer>5 * 3 = 16", False),  # where nobody looks
    ("5 * 3 = 15, <think></think><answer>5</answer>", False), ("<think>5 * 3 = 16, <think></think><answer>5</answer>", False),
    ("<think>5 * 3 = 15, 15 + 7 = 22, 3 + 3 = 9found\n</think><answer>5</answer>", False),  # before the mark, without a comma
    ("<think></think><answer>5</answer>", True), ("<answer>5</answer>", True), ("", True), ("<think></think><answer>5", True),
    ("<think>5 * 3 = 16, 16", False), ("<think>5 * 3 = 15, 15 + 7 = 2", True), ("<think>5 * 3 = 1", True)])  # cut off
def test_no_step_escapes_the_penalty_but_one_that_was_cut_off(text, hold):
    assert TASK.steps_hold(PROBLEM, text) is hold


def test_there_is_room_for_one_attempt_more_than_the_teacher_ever_makes():
    """Else reinforcement learning could not find out that more attempts pay: the longest demonstration would be the limit."""
    line = "5 * 3 = 15, 15 - 7 = 8, failed\n"
    completion = f"<think>{line * (TASK.options.attempts + 1)}</think><answer>(5 * 3) + 7</answer>"
    assert len(TASK.tokenizer.encode(completion)) + 1 == TASK.max_new_tokens
