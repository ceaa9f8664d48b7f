"""A task outside of this project: its problems as rows of a data set, and its rule as a reward
function.

A row has the columns that TRL looks for, and two from which the problem can be made again:

    prompt       what the model reads
    completion   a demonstration to imitate, without the end token; it may be wrong
    right        whether the rule accepts it
    answer, key  the true answer and the key of the problem, as JSON texts

`rule_reward(task)` gives the function that goes with them. Whatever writes the completions, a model of
ours or a pretrained one of any size, is judged by the same rule as in train.py.
"""
import json

from tasks import Problem


def row(task, problem, rng):
    """Problem -> a dict of texts and one truth value. rng: random.Random, for the demonstration."""
    completion = task.demonstration(problem, rng)
    return {"prompt": problem.prompt, "completion": completion, "right": task.verify(problem, completion),
            "answer": json.dumps(problem.answer), "key": json.dumps(problem.key)}


def problem_of(prompt, answer, key):
    """The columns of a row -> the Problem. JSON knows no tuples, and a key is one, with all that is in
    it.

    >>> problem_of("Use 1, 2 to make 3.\\n", "3", '["countdown", 1, 2, 3]').key
    ('countdown', 1, 2, 3)
    """
    frozen = lambda x: tuple(map(frozen, x)) if isinstance(x, list) else x
    return Problem(prompt, frozen(json.loads(answer)), frozen(json.loads(key)))


def rule_reward(task, eos=None):
    """The rule of a task as a reward function of TRL: `reward(completions, answer=..., key=..., ...) ->
    list of B floats`, 1 or 0.

    completions: B texts, or B conversations whose last message counts. Columns of the data set come as
    lists of B. eos: the id that ends a completion: one whose completion_ids do not end in it ran out of
    tokens and earns 0, as in rewards.py. None: whatever was written counts.
    """
    def reward(completions, answer, key, prompts=None, completion_ids=None, **columns):
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        ended = [eos is None or ids[-1] == eos for ids in completion_ids or [[eos]] * len(texts)]
        return [float(done and task.verify(problem_of("", a, k), text)) for text, a, k, done in zip(texts, answer, key, ended)]
    reward.__name__ = f"{task.name}_rule"  # the name of the curve in TRL's log
    return reward
