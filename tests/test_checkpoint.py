"""Checkpoints: whole or not there, never code, and refused in one line when they are something else."""
import dataclasses
import os

import pytest
import torch

import checkpoint
import tasks
from config import InputError
from model import GPT, GPTConfig, ScalarModel
from toys import seed


@pytest.fixture
def task():
    return tasks.load("countdown", numbers=2, cot="off")


@pytest.fixture
def model(task):
    torch.manual_seed(seed())
    return GPT(GPTConfig(task.tokenizer.n_vocab, 32, n_layer=1, n_head=2, n_embd=32))


@pytest.fixture
def path(tmp_path, model, task):
    state = {"step": 7, "rng": [3, (1, 2)]}
    checkpoint.save(tmp_path / "checkpoint.pt", model, task, {"lr": 0.001, "algo": "grpo"}, state=state)
    return tmp_path / "checkpoint.pt"


def test_model_task_and_config_come_back(path, model, task):
    again, same_task, config = checkpoint.load_run(path)
    assert config == {"lr": 0.001, "algo": "grpo"} and again.config == model.config
    assert (same_task.name, same_task.options) == ("countdown", task.options)
    tokens = torch.randint(2, 100, (2, 9))
    assert torch.equal(model(tokens), again(tokens))


def test_a_run_folder_stands_for_the_checkpoint_in_it(path, model):
    again, _, _ = checkpoint.load_run(path.parent)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters()))


def test_what_else_was_saved_comes_back(path):
    assert checkpoint.load(path)["state"]["step"] == 7


def test_a_checkpoint_holds_only_tensors_and_plain_values(path):
    """So loading one cannot run code."""
    assert torch.load(path, weights_only=True)["format"] == "thinksmall"


class Trap:
    """Whoever unpickles it makes a folder of this name."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused_before_it_does(path, tmp_path):
    """A whole checkpoint of ours but for this: nothing else would stop it."""
    torch.save(torch.load(path, weights_only=True) | {"state": Trap(tmp_path / "trapped")}, path)
    with pytest.raises(InputError):
        checkpoint.load(path)
    assert not (tmp_path / "trapped").exists()


def test_a_kill_while_writing_leaves_the_old_file(path):
    old = path.read_bytes()
    def die(file):
        file.write(b"half of")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_aside(path, die)
    assert path.read_bytes() == old and checkpoint.load(path)["state"]["step"] == 7


def test_saving_again_replaces_the_file(path, model, task):
    checkpoint.save(path, model, task, {}, state={"step": 8})
    assert checkpoint.load(path)["state"]["step"] == 8 and [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def refusal(path):
    with pytest.raises(InputError) as error:
        checkpoint.load_run(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_a_missing_checkpoint_is_refused_in_one_line(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "nowhere")
    refusal(tmp_path)  # a folder without one


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_in_one_line(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[:keep if isinstance(keep, int) else int(keep * len(content))])
    refusal(path)


@pytest.mark.parametrize("content", [b"hello", b"{}", b"\x80\x02.", b"PK\x03\x04" + b"\0" * 40, bytes(range(256)) * 10])
def test_a_foreign_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [{}, {"format": "other"}, {"format": ["thinksmall"]}, [1, 2], 3, torch.zeros(2), "text"])
def test_a_foreign_torch_file_is_refused_in_one_line(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    assert "not a checkpoint of this project" in refusal(tmp_path / "x.pt")


def edited(path, **changes):
    torch.save(torch.load(path, weights_only=True) | changes, path)
    return path


def test_a_newer_version_is_refused_in_one_line(path):
    assert "newer" in refusal(edited(path, version=checkpoint.VERSION + 1))


def test_an_older_version_is_refused_in_one_line(path):
    """Its names are others, and there is no layer that would translate them."""
    line = refusal(edited(path, version=checkpoint.VERSION - 1))
    assert "older" in line and "train it anew" in line


def test_another_vocabulary_is_refused_in_one_line(path):
    """The ids would mean other words, and nothing else would notice."""
    assert "vocabulary" in refusal(edited(path, vocabulary=["a", "b"]))


@pytest.mark.parametrize("name, options", [("chess", {}), ("countdown", {"colour": "red"}), ("countdown", {"numbers": 1})])
def test_a_task_that_is_gone_is_refused_in_one_line(path, name, options):
    with pytest.raises(InputError) as error:
        checkpoint.load_run(edited(path, task={"name": name, "options": options}))
    assert "\n" not in str(error.value)


def test_every_option_of_the_task_is_in_the_checkpoint(path, task):
    """The defaults may change later; an old run keeps those it was made with."""
    assert checkpoint.load(path)["task"]["options"] == dataclasses.asdict(task.options)


# ---- verifiers

def with_verifier(path, model, task, algo, name):
    """A run with a verifier whose head and backbone are not those of the policy."""
    verifier = ScalarModel(model)
    with torch.no_grad():
        for p in verifier.parameters():
            p += torch.randn(p.shape)
    checkpoint.save(path, model, task, {"algo": algo}, algorithm={name: verifier.state_dict(), "optimizer": {}})
    return verifier


@pytest.mark.parametrize("algo, name", [("ppo", "critic"), ("orm", "reward_model"), ("prm", "reward_model"), ("rm", "reward_model")])
def test_a_verifier_comes_back_with_its_kind_and_its_vocabulary(path, model, task, algo, name):
    """With its own backbone: a verifier on the policy's would still say something."""
    verifier, tokens = with_verifier(path, model, task, algo, name), torch.randint(2, 100, (2, 9))
    again = checkpoint.load_verifier(path)
    assert torch.equal(again(tokens), verifier(tokens)) and (again.kind, again.vocabulary) == (algo, task.tokenizer.vocabulary)
    assert not any(p.requires_grad for p in again.parameters())


def test_a_run_without_a_verifier_is_refused_in_one_line(path, model, task):
    """Whether it trained something else or nothing at all."""
    for more in ({}, {"algorithm": {"optimizer": {}}}):
        checkpoint.save(path, model, task, {"algo": "grpo"}, **more)
        with pytest.raises(InputError, match="no critic and no reward model") as error:
            checkpoint.load_verifier(path)
        assert "\n" not in str(error.value)


def test_a_run_is_loaded_in_what_it_computed_in(path, model, task):
    """A critic's or policy's numbers in another precision are not quite its own."""
    checkpoint.save(path, model, task, {"algo": "ppo", "dtype": "bfloat16"}, algorithm={"critic": ScalarModel(model).state_dict()})
    assert checkpoint.load_run(path)[0].compute_dtype == checkpoint.load_verifier(path).backbone.compute_dtype == torch.bfloat16
    checkpoint.save(path, model, task, {"algo": "grpo"})  # as warm starts of earlier versions
    assert checkpoint.load_run(path)[0].compute_dtype == torch.float32
