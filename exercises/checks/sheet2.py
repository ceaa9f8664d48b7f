"""Warm start and rewards: what is asked, and what the known mistakes look like."""
import torch

from checks import cases, mistakes


@cases("2.1")
def _(draw):
    words = lambda low, high: " ".join(str(draw.randint(2, 9)) for _ in range(draw.randint(low, high)))
    found = []
    for split in ((), ("val",)):
        pairs = [[words(1, 4), words(1, 6)] for _ in range(draw.randint(3, 5))]
        pairs[0], pairs[1] = [words(2, 2), words(6, 6)], [words(4, 4), words(1, 1)]
        found.append({"pairs": pairs, "split": split})
    return found


mistakes("2.1",
    ("the mask leaves out EOS: stopping would never be learned", "torch.tensor(list(map(len, rows)))",
     "torch.tensor(list(map(len, rows))) - 1"),
    ("there is no EOS at the end of the rows", " + [task.tokenizer.eos])", ")"),
    ("the mask covers the prompt: only the demonstration is imitated",
     "completion_mask(torch.tensor(starts)", "completion_mask(torch.zeros(size, dtype=torch.long)"),
    ("padding is in the mask", "torch.tensor(list(map(len, rows)))", "torch.full((size,), longest)"),
    ("padded on the left: rows begin at column 0", "row + [task.tokenizer.pad] * (longest - len(row))",
     "[task.tokenizer.pad] * (longest - len(row)) + row"),
    ("padded with EOS: the two are different tokens", "[task.tokenizer.pad]", "[task.tokenizer.eos]"),
    ("the split is not passed on: all problems come from train", "sample_problem(rng, split)",
     "sample_problem(rng)"),
    ("the mask begins one token too late", "starts.append(len(prompt))",
     "starts.append(len(prompt) + 1)"),
    ("the mask begins one token too early: at the last token of the prompt",
     "starts.append(len(prompt))", "starts.append(len(prompt) - 1)"),
)


@cases("2.2")
def _(draw):
    found = []
    for micro_batch in (2, 3, 100):
        B, T, V = draw.randint(5, 7), draw.randint(6, 9), draw.randint(5, 8)
        _, _, mask = draw.rows(B, T)
        found.append({"table": draw.normal(V), "tokens": draw.ints(0, V - 1, B, T), "mask": mask,
                      "micro_batch": micro_batch,
                      "schedule": draw.choice([1.0, 0.5]), "max_norm": draw.choice([1.0, 5.0])})
    return found


mistakes("2.2",
    ("the denominator is that of the micro-batch: N counts the tokens of the whole batch", "sum() / N",
     "sum() / mask[rows, :length].sum()"),
    ("the loss covers the prompt: `mask` says what is imitated", "logprobs * mask[rows, :length]",
     "logprobs"),
    ("divided by the number of rows, and not by that of the imitated tokens", "N = 0.0, mask.sum()",
     "N = 0.0, len(mask)"),
    ("divided by all entries, padding and prompt included", "N = 0.0, mask.sum()",
     "N = 0.0, mask.numel()"),
    ("each row is divided by its own length: tokens of short demonstrations count more",
     "-(logprobs * mask[rows, :length]).sum() / N",
     "-((logprobs * mask[rows, :length]).sum(1) / mask[rows].sum(1)).sum() / len(mask)"),
    ("the sign is wrong: log-probs shall rise, so the loss is minus their mean", "loss = -(",
     "loss = ("),
    ("the gradient of the step before is still there: zero_grad", "    optimizer.zero_grad()\n", ""),
    ("a step in each micro-batch: there is one for the whole batch",
     "        total += loss.detach()\n    norm = optimizer.step(schedule, max_norm)",
     "        total += loss.detach()\n        norm = optimizer.step(schedule, max_norm)"),
    ("the loss that is returned is that of the last micro-batch: they add up", "total += loss.detach()",
     "total = loss.detach()"),
    ("`schedule` is not passed on to the optimizer", "optimizer.step(schedule, max_norm)",
     "optimizer.step(1.0, max_norm)"),
    ("`max_norm` is not passed on to the optimizer", "optimizer.step(schedule, max_norm)",
     "optimizer.step(schedule)"),
)


@cases("2.3")
def _(draw):
    a, b = draw.randint(2, 50), draw.randint(2, 50)
    return [{"texts": [f"<think>x</think><answer>{a} + {b}</answer>", f"<answer>  {a} * {b}\n</answer>",
                       f"<answer>{a}</answer><answer>{b}</answer>",
                       f"<answer>{a}</answer> {b}</answer>", f"<answer>{a}<answer>{b}</answer>", "",
                       f"{a} - {b}", f"<answer>{a}", f"{b}</answer>",
                       f"</answer>{a}<answer>", "<answer></answer>", "<answer>   </answer>",
                       f"<answer>{a}</answer> and more {b}", f"</think><answer>{a}</answer>",
                       f"<Answer>{a}</Answer>", f"<answer>{a}\n+ {b}</answer>"]}]


mistakes("2.3",
    ("of several answers one is taken: two answers are no answer, or listing many guesses would pay",
     'if completion.count("<answer>") != 1 or completion.count("</answer>") != 1:',
     'if completion.count("<answer>") < 1 or completion.count("</answer>") < 1:'),
    ("two closing tags are accepted",
     'if completion.count("<answer>") != 1 or completion.count("</answer>") != 1:',
     'if completion.count("<answer>") != 1 or completion.count("</answer>") < 1:'),
    ("two opening tags are accepted",
     'if completion.count("<answer>") != 1 or completion.count("</answer>") != 1:',
     'if completion.count("<answer>") < 1 or completion.count("</answer>") != 1:'),
    ("spaces around the answer are kept", ".strip() or None", " or None"),
    ("an empty answer is '', and should be None", ".strip() or None", ".strip()"),
    ("an answer without its closing tag is accepted",
     'or completion.count("</answer>") != 1:\n'
     "        return None\n"
     '    start, end = completion.index("<answer>") + len("<answer>"), completion.index("</answer>")',
     'or completion.count("</answer>") > 1:\n'
     "        return None\n"
     '    start = completion.index("<answer>") + len("<answer>")\n'
     '    end = completion.index("</answer>") if "</answer>" in completion else len(completion)'),
    ("the tag itself is part of the answer", 'completion.index("<answer>") + len("<answer>")',
     'completion.index("<answer>")'),
    ("the whole completion is taken where there is no answer: that should be None",
     "        return None\n", "        return completion.strip() or None\n"),
)


@cases("2.4")
def _(draw):
    a, b, c, d = (draw.randint(2, 60) for _ in range(4))
    legal = [f"{a} - {b} - {c}", f"{a} / {b} / {c}", f"{a} + {b} * {c}", f"({a} + {b}) * {c}",
             f"{a} - ({b} - {c})", f"{a} * {b} - {c} / {d}", f"{a}", f"(({a}))",
             f" {a}\t*{b} ", f"{a} / ({b} / {c})", f"{c} + {a} / 7 + {b} / 3", f"{a}*({b}-{c}*({d}+1))",
             "0", f"0 / {a}", f"{d} + {c} + {b} + {a}",
             f"{a} / 3 * 3", f"{10**15 + a} * {10**12 + 1}", "(" * 40 + str(a) + ")" * 40,
             "(" * 50 + str(b) + ")" * 50]
    illegal = [f"-{a}", f"{a} * -{b}", f"{a} ** 2", f"{a} // 2", "1_0", "007", f"{a} / 0",
               f"{a} / ({b} - {b})", f"{a} {b}", f"{a} +", f"({a}", f"{a})", "()", "", " ", f"+{a}",
               "３ + 4", "²", f"{a}.5", f"{a} % {b}", f"abs({a})", f"{a} x {b}",
               "(" * 51 + str(a) + ")" * 51, "1" + " + 1" * 130, f"{a}({b})", "1e3", f"{a} == {a}",
               f"{a},{b}", "(" * 5000]
    draw.shuffle(legal), draw.shuffle(illegal)
    return [{"texts": legal}, {"texts": illegal}]


mistakes("2.4",
    ("operators of the same level go from left to right: a - b - c is (a - b) - c",
     "operator, right = take(), product(depth)", "operator, right = take(), sum_(depth)"),
    ("operators of the same level go from left to right: a / b / c is (a / b) / c",
     "operator, right = take(), atom(depth)", "operator, right = take(), product(depth)"),
    ("* and / bind more strongly than + and -",
     'while tokens[i] in ("*", "/"):\n'
     "            operator, right = take(), atom(depth)\n"
     '            if operator == "/" and right == 0:\n'
     '                raise ValueError("division by zero")\n'
     '            value = value * right if operator == "*" else value / right',
     'while tokens[i] in ("*", "/", "+", "-"):\n'
     "            operator, right = take(), atom(depth)\n"
     '            if operator == "/" and right == 0:\n'
     '                raise ValueError("division by zero")\n'
     '            value = value * right if operator == "*" else value / right if operator == "/" '
     'else value + right if operator == "+" else value - right'),
    ("floats: the value has to be exact, a Fraction", "return value, numbers",
     "return float(value), numbers"),
    ("whole numbers only: / leaves fractions", 'value * right if operator == "*" else value / right',
     'value * right if operator == "*" else Fraction(value // right)'),
    ("division by zero has to be a ValueError", 'if operator == "/" and right == 0:', "if False:"),
    ("a sign is accepted: -3 is not in the grammar", "        token = take()\n",
     '        token = take()\n        if token == "-":\n            return -atom(depth)\n'),
    ("what follows the expression is not read: '1 2' is not one", 'if tokens[i] != "end":',
     "if False:"),
    ("the numbers are sorted: they should be in order of appearance", "return value, numbers",
     "return value, sorted(numbers)"),
    ("each number is listed once: a verifier has to count them", "return value, numbers",
     "return value, list(dict.fromkeys(numbers))"),
    ("007 is accepted: a leading zero is not in the grammar",
     "        match = TOKEN.match(text, place)\n",
     '        match = re.compile(r"[ \\t\\r\\n]*([0-9]+|[-+*/()])").match(text, place)\n'),
    ("digits that are not ASCII are accepted", "        match = TOKEN.match(text, place)\n",
     '        match = re.compile(r"[ \\t\\r\\n]*(0|[1-9]\\d*|[\\d]|[-+*/()])").match(text, place)\n'),
    ("there is no limit to the length: a text of 500 characters is enough",
     "if len(text) > MAX_CHARACTERS:", "if len(text) > 10 ** 4:"),
    ("there is no limit to the depth: 50 open brackets are enough", "depth < MAX_DEPTH", "depth < 400"),
    ("the limit of the depth is off by one: 50 open brackets are allowed", "depth < MAX_DEPTH",
     "depth < MAX_DEPTH - 1"),
    ("spaces around the expression are refused",
     'text, tokens, place = text.strip(" \\t\\r\\n"), [], 0', "tokens, place = [], 0"),
)


@cases("2.5")
def _(draw):
    (a, b), c = draw.sample(range(2, 10), 2), draw.randint(10, 13)
    numbers, target = sorted((a, a, c)), a * a + c
    value = lambda text: str(eval(text))  # ours, not the student's
    texts = [f"{a} * {a} + {c}", f"{c} + {a} * {a}", f"{target}", f"{a} * {a} + {c} + {b} - {b}",
             f"{a} + {a} + {c}", f"{c} + {a * a}", f"{a * a + c - 1} + 1",
             f"{a} * {a} * {c}", f"{c} + {c} - {c} + {a} * {a}", f"{target - a} + {a}",
             f"{a} * {a} + {c} + 0"]
    digits = lambda text: [int(word) for word in text.split() if word.isdigit()]
    parsed = {text: [value(text), digits(text)] for text in texts}
    near = f"{a} * {c} + {a} near"  # as if: a value beside the target, by less than floats can tell
    parsed[near] = [f"{target * 10 ** 20 + 1}/{10 ** 20}", [a, c, a]]
    parsed["half"] = [f"{2 * target + 1}/2", [a, a, c]]
    once = [{"numbers": numbers, "target": target, "parsed": parsed,
             "texts": [*texts, near, "half", "unreadable", ""]}]
    numbers, target = sorted((a, b, c)), a * c + b
    texts = [f"{a} * {c} + {b}", f"{b} + {c} * {a}", f"{a} * {c} + {b} * 1", f"{b} + {a * c}",
             f"{target}", f"{a} + {b} + {c}", f"{c} + {b}"]
    once += [{"numbers": numbers, "target": target,
              "parsed": {text: [value(text), digits(text)] for text in texts},
              "texts": [*texts, "1 +", ""]}]
    # one is left out, or used twice
    texts = [f"{a} * {c}", f"{a} * {c} * {b} / {b}", f"{b} * {c} - {b} * {c} + {a} * {c}",
             f"{a} * {c} + {b} - {b}"]
    return once + [{"numbers": numbers, "target": a * c,
                    "parsed": {text: [str(a * c), digits(text)] for text in texts}, "texts": texts}]


STRICT = "return value == problem.answer and tuple(sorted(numbers)) == given"
mistakes("2.5",
    ("nobody looks at the numbers: the target itself would be an answer", STRICT,
     "return value == problem.answer"),
    ("the numbers are compared as sets: each has to be used exactly as often as it is given", STRICT,
     "return value == problem.answer and set(numbers) == set(given)"),
    ("some numbers may be left out: each has to be used", STRICT,
     "return value == problem.answer and all(numbers.count(x) <= given.count(x) for x in numbers)"),
    ("further numbers may be used", STRICT,
     "return value == problem.answer and all(numbers.count(x) >= given.count(x) for x in given)"),
    ("only given numbers occur, but nobody counts how often", STRICT,
     "return value == problem.answer and set(numbers) <= set(given)"),
    ("the order of the numbers matters: it should not", STRICT,
     "return value == problem.answer and tuple(numbers) == given"),
    ("the value is compared as a float: nearly is not equal", STRICT,
     "return abs(float(value) - problem.answer) < 1e-6 and tuple(sorted(numbers)) == given"),
    ("the value is rounded before it is compared", STRICT,
     "return int(value) == problem.answer and tuple(sorted(numbers)) == given"),
    ("the value is not compared with the target", STRICT, "return tuple(sorted(numbers)) == given"),
    ("an unreadable answer raises: it has to be wrong, and no more", "except ValueError:",
     "except ZeroDivisionError:"),
    ("no answer (None) is handed to the parser",
     "        if answer is None:\n            return False\n", "        answer = answer.strip()\n"),
)


@cases("2.6")
def _(draw):
    shaped = lambda inside: f"<think>{inside}</think><answer>right</answer>"
    texts = [shaped("true"), shaped("false"), "<answer>right</answer>",
             "<answer>nothing</answer> false", "<think></think><answer>nothing</answer>", "", "false",
             "right"]
    found = []
    for weights in ((1.0, 0.0, 0.0),
                    (draw.choice([1.0, 2.0]), draw.choice([0.25, 0.5]), draw.choice([0.3, 0.7])),
                    (0.5, 0.125, 0.0)):
        draw.shuffle(texts)
        finished = [True, False] * 4
        both = [(t, d) for t in texts for d in (True, False)]
        draw.shuffle(both)
        found.append({"texts": [t for t, _ in both], "finished": [d for _, d in both],
                      "weights": weights})
        found.append({"texts": texts[:3], "finished": finished[:3], "weights": weights})
    return found


mistakes("2.6",
    ("an answer that was cut off earns its reward: it has to have ended by itself",
     "right = [bool(done) and task.verify(p, text)", "right = [task.verify(p, text)"),
    ("the format of a completion that was cut off earns its reward",
     "shaped = [bool(done) and has_format(text)", "shaped = [has_format(text)"),
    ("accuracy holds the weighted reward: it is 0 or 1", "return rewards, accuracy",
     "return rewards, config.accuracy_weight * accuracy"),
    ("the penalty is not paid by completions that were cut off",
     "false = [not task.steps_hold(p, text) for p, text in zip(problems, completions)]",
     "false = [bool(done) and not task.steps_hold(p, text) for p, text, done in zip(problems, "
     "completions, finished)]"),
    ("the penalty is a reward: false steps lose it", "rewards - config.step_penalty",
     "rewards + config.step_penalty"),
    ("true steps pay the penalty, and false ones do not", "false = [not task.", "false = [task."),
    ("there is no penalty", "if config.step_penalty:", "if False:"),
    ("the format is not weighed", "config.format_weight * shape", "shape"),
    ("the format earns only together with a right answer", "+ config.format_weight * shape",
     "+ config.format_weight * shape * accuracy"),
    ("rewards and accuracy are exchanged", "return rewards, accuracy", "return accuracy, rewards"),
)
