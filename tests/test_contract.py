"""What a student's own task or algorithm gets wrong is said in one line, before a run begins."""
import dataclasses
import sys

import pytest

import grpo
import method
import tasks
import train
from config import InputError, from_flags, setting
from plumbing import catalogue, start
from sample import SamplingConfig

HEAD = '''
from dataclasses import dataclass
from config import setting
from tasks import Problem, Task
from tasks.tokenizer import Tokenizer
@dataclass
class MineOptions:
    """task mine"""
    length: int = setting(6, "digits", low=1, high=20)
class Mine(Task):
    Options, step_token = MineOptions, ";"
    def __init__(self, options):
        self.options = options
        self.tokenizer = Tokenizer("mine", ["Go ", ".", ";", "<answer>", "</answer>"] + [str(d) for d in range(10)])
        self.max_prompt_tokens, self.min_new_tokens, self.max_new_tokens = 14, 4, 4
    def draw(self, rng):
        digits = [rng.randrange(10) for _ in range(self.options.length)]
        return Problem("Go " + ";".join(map(str, digits)) + ".", digits[-1], tuple(digits))
    def demonstration(self, problem, rng):
        return f"<answer>{problem.answer}</answer>"
    def verify(self, problem, completion):
        return completion == f"<answer>{problem.answer}</answer>"
    def canonical_answer(self, completion):
        return completion
'''


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(old, new): the task above with one thing changed."""
    def loaded(old="", new=""):
        assert old in HEAD
        (tmp_path / "mine.py").write_text(HEAD.replace(old, new))
        sys.modules.pop("tasks.mine", None)
        return tasks.load("mine")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield loaded
    sys.modules.pop("tasks.mine", None)


def test_the_task_itself_is_fine(load):
    assert load().name == "mine"


@pytest.mark.parametrize("old, new, named", [
    ("    def canonical_answer(self, completion):\n        return completion\n", "", "canonical_answer"),
    ("        return completion == f", "        completion == f", "verify must return True or False, not None"),
    ("return completion == f", "return int(completion[8]) == f", "must not raise"),
    ("problem.answer}</answer>\"\n    def verify", "problem.answer}</answer>;;;\"\n    def verify", "max_new_tokens is 4"),
    ("self.max_new_tokens = 14, 4, 4", "self.max_new_tokens = 14, 3, 3", "has 4 tokens, its end included, max_new_tokens is 3"),
    ("self.max_new_tokens = 14, 4, 4", "self.max_new_tokens = 14, 9, 4", "min_new_tokens 9"),
    ("self.max_new_tokens = 14, 4, 4", "self.max_new_tokens = 14, 5, 9", "min_new_tokens is 5"),
    ("self.max_new_tokens = 14, 4, 4", "self.max_new_tokens = 9, 4, 4", "max_prompt_tokens is 9"),
    ("self.max_prompt_tokens, self.min_new_tokens, self.max_new_tokens = 14, 4, 4", "pass", "max_prompt_tokens"),
    ("tuple(digits))", "digits)", "hashable key"),
    ('step_token = MineOptions, ";"', 'step_token = MineOptions, "next"', "step_token"),
    ('step_token = MineOptions, ";"', 'step_token = MineOptions, ";;"', "single token"),
    ('";".join', '"".join', "neighbouring digits are read as one number"),
    ("class Mine(Task)", "class Other(Task)", "no class Mine"),
    ("Options, step_token = MineOptions", "Settings, step_token = MineOptions", "Options must be"),
], ids=lambda text: text[:20].strip() or "-")
def test_a_task_that_breaks_the_contract_is_refused_in_one_line(load, old, new, named):
    with pytest.raises(InputError) as error:
        load(old, new)
    assert named in str(error.value) and "\n" not in str(error.value) and "mine" in str(error.value)


def test_a_setting_named_like_one_of_the_run_is_refused(load, capsys):
    load("    length: int", "    steps: int = setting(6, 'x', low=1, high=20)\n    length: int")
    with pytest.raises(InputError, match="MineOptions.steps: Config has a setting of this name already"):
        start.read_command_line(["--task", "mine"])


@dataclasses.dataclass
class PlainConfig:
    lr: float = setting(0.1, "rate", low=0.0, high=1.0)


@dataclasses.dataclass
class WithoutHelp(SamplingConfig):
    rate: float = 0.1


class Fine(grpo.GRPO):
    pass


def add(monkeypatch, algorithm):
    core = catalogue.core()
    monkeypatch.setattr(catalogue, "core", lambda: core | {"mine": (algorithm, {})})


class NoUpdate(method.Method):
    pass


class Stranger:
    Config = SamplingConfig


class NoConfig(Fine):
    def __init__(self, policy, task, config, generator=None, reward=None):
        self.behavior = policy


@pytest.mark.parametrize("algorithm, named", [
    (NoUpdate, "no method update"), (Stranger, "must derive from method.Method"), (type("X", (Fine,), {"Config": PlainConfig}), "SamplingConfig"),
    (type("X", (Fine,), {"Config": WithoutHelp}), "WithoutHelp.rate"), (NoConfig, "must set self.config"),
], ids=["no update", "no method", "another Config", "a field without help", "no config"])
def test_an_algorithm_that_breaks_the_contract_is_refused_before_a_folder_is_made(algorithm, named, tmp_path, monkeypatch):
    add(monkeypatch, algorithm)
    monkeypatch.setattr(start, "make_warm_start", lambda *_: pytest.fail("the work had begun"))
    with pytest.raises(InputError, match=named) as error:
        train.main(["--algo", "mine", "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_an_update_must_say_how_many_steps_it_took(tmp_path, monkeypatch):
    add(monkeypatch, type("Mine", (Fine,), {"update": lambda *_: {"loss": 1.0}}))
    monkeypatch.setattr(start, "RUNS", tmp_path)
    with pytest.raises(InputError, match="`updates`"):
        train.main("--algo mine --numbers 2 --cot off --n-layer 1 --n-embd 32 --n-head 2 --sft-steps 1 --sft-batch 4 --prompts 2 "
                   f"--steps 1 --test-problems 1 --device cpu --out {tmp_path / 'run'}".split())


def test_an_algorithm_needs_no_micro_batch(tmp_path, monkeypatch):
    """SamplingConfig alone is enough: what learns without micro-batches has none to set."""
    class Still(method.Method):
        def update(self, rollout, rewards):
            return {"updates": 0}

    add(monkeypatch, Still)
    monkeypatch.setattr(start, "RUNS", tmp_path)
    summary = train.main("--algo mine --numbers 2 --cot off --n-layer 1 --n-embd 32 --n-head 2 --sft-steps 1 --sft-batch 4 --prompts 2 "
                         f"--steps 1 --test-problems 1 --device cpu --out {tmp_path / 'run'}".split())
    assert (summary["steps"], summary["updates"]) == (1, 0)


def test_training_refuses_temperature_0_in_every_config():
    """Also in one that a student derives from SamplingConfig and that says nothing about it."""
    with pytest.raises(InputError, match="--temperature"):
        from_flags(SamplingConfig, {"temperature": 0.0})


def test_a_file_in_methods_is_an_algorithm(tmp_path, monkeypatch):
    """Found by its name, capitals aside; and a file that is broken breaks no other."""
    (tmp_path / "my_first.py").write_text("import grpo\nDEFAULTS = {'steps': 7}\nclass MyFIRST(grpo.GRPO):\n    pass\n")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "empty.py").write_text("")
    import methods
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert {"grpo", "my_first", "broken"} <= set(catalogue.names())
    cls, row = catalogue.find("my_first")
    assert cls.__name__ == "MyFIRST" and start.configure("my_first", "countdown", {})["loop"].steps == 7
    with pytest.raises(InputError, match="defines no class"):
        catalogue.find("empty")
    with pytest.raises(InputError, match="no such algorithm"):
        catalogue.find("another")
    for name in ("my_first", "broken", "empty"):
        sys.modules.pop(f"methods.{name}", None)
