"""What can be known of a GPU without one: nothing mixes devices, nothing is asked inside of a captured
step, and how often the host waits for the device is a number that is written down here."""
import copy
import inspect
import random
import textwrap
from dataclasses import fields

import pytest
import torch

import dpo
import evaluate
import grpo
import model as model_room
import ppo
import sample
import search
import search_context
import sft
import verifier
from bench.peers import Words
from evaluate import fixed_problems
from model import GPT, GPTConfig, ScalarModel, make_optimizer
from plumbing import buffers, catalogue, search_command
from pretend_gpu import PretendGPU
from search_context import SearchContext
from toys import seed


class Coin(Words):
    """A rule as good as a coin: every group disagrees, and something is right, whatever was sampled."""
    max_new_tokens = 10

    def canonical_answer(self, completion):
        return completion[:1] or None

    def demonstration(self, problem, rng):
        return problem.prompt


TASK = Coin()
PROBLEMS = fixed_problems(TASK, "train", 4)
# What an update asks of the device beside what its optimizer steps ask: for the metrics, and which rows there
# are. A method that is not named (sdpo asks as its samples turn out) asks nothing for a micro-batch.
ASKED = {"reinforce": 8, "rloo": 8, "grpo": 8, "dr_grpo": 8, "dapo": 10, "gspo": 8, "maxrl": 8, "cispo": 8, "nsr": 8,
         "wreinforce": 8, "reinforce_pp": 9, "ppo": 22, "dpo": 7, "orm": 11, "prm": 11, "rm": 13, "bond": 14, "cov": 11, "pods": 9,
         "distill": 5, "offpolicy": 10, "prime": 12, "rm_rl": 19, "star": 10, "vineppo": 20}
# And what an optimizer step asks: how long its micro-batches are, and the norm of the gradient of each network
# that learns.
PER_STEP = dict.fromkeys(ASKED, 2) | {"ppo": 3, "prime": 4}


def small():
    torch.manual_seed(seed())
    return GPT(GPTConfig(TASK.tokenizer.n_vocab, 20, n_layer=1, n_head=2, n_embd=16, n_kv_head=1)).to("cuda")


@pytest.fixture(autouse=True)
def teacher(monkeypatch):
    """Who teaches: the same network, a little louder."""
    def another(path, task, policy):
        louder = copy.deepcopy(policy).requires_grad_(False)
        louder.embed.weight.mul_(1.5)
        return louder
    monkeypatch.setattr("methods.distill.load_teacher", another)


def update(name, **settings):
    """A batch with algorithm `name` -> (optimizer steps, questions) of its update, those of its own
    sampling left out. Asserts that nothing was wrong."""
    cls, row = catalogue.find(name)
    known = {f.name for f in fields(cls.Config)}
    given = {"prompts": 4, "group_size": 4, "critic_warmup": 0} | row | settings | ({"teacher": "another"} if name == "distill" else {})
    with PretendGPU() as gpu:
        config = cls.Config(**{setting: value for setting, value in given.items() if setting in known})
        method = cls(small(), TASK, config, torch.Generator("cuda"), lambda r: r.right(TASK).float().cpu())
        rollout = method.collect(PROBLEMS)
        gpu.questions.clear()
        metrics = method.update(rollout, (torch.arange(len(rollout.tokens)) % 2).float())
    assert not gpu.errors, gpu.errors
    return metrics["updates"], sum(n for what, n in gpu.questions.items() if not what.endswith((" generate", " evict")))


def check_update(name):
    """The questions of an update are a constant, and so many for each optimizer step; the micro-batches ask
    nothing."""
    whole, parts = update(name, micro_batch=16), update(name, micro_batch=4)
    assert whole == parts and whole[0] > 0
    for updates, questions in [whole, update(name, micro_batch=16, epochs=3)] if name in ASKED else []:
        assert questions == ASKED[name] + PER_STEP[name] * updates, (updates, questions)


def check_generate():
    """One question in eight tokens, who is done, and one at the end, the longest length."""
    with PretendGPU() as gpu:
        model = small()
        for _ in range(3):  # warmed up, captured, replayed
            gpu.questions.clear()
            sample.generate(model, [[2, 3, 4], [5]], 17, eos=None, generator=torch.Generator("cuda"))
    assert not gpu.errors, gpu.errors
    assert sum(gpu.questions.values()) == 16 // 8 + 1, gpu.questions


def check_search(method, with_verifier=False):
    with PretendGPU() as gpu:
        policy = small()
        scorer = ScalarModel(policy) if with_verifier else None
        if scorer:
            scorer.kind = "orm"
        for _ in range(2):
            context = SearchContext(policy, TASK, PROBLEMS[:3], generator=torch.Generator("cuda"), verifier=scorer)
            rows, _ = search_command.run_method(context, method, 40, search_command.SearchConfig(noise=0.25), 8)
    assert not gpu.errors, gpu.errors
    assert len(rows) == 3


def check_warm_start():
    """Muon, too: two questions an optimizer step, and two for the loss and the number of tokens."""
    with PretendGPU() as gpu:
        model = small()
        optimizer = make_optimizer(model, 0.01, 0.01)
        tokens, mask = (x.to(model.device) for x in sft.demonstrations(TASK, 8, random.Random(seed())))
        for micro_batch in (8, 2):
            gpu.questions.clear()
            sft.sft_step(model, optimizer, tokens, mask, micro_batch)
            assert sum(gpu.questions.values()) == 3, gpu.questions
    assert not gpu.errors, gpu.errors


def check_evaluate():
    with PretendGPU() as gpu:
        model, problems = small(), PROBLEMS[:3]
        for _ in range(2):
            evaluate.evaluate(model, TASK, problems, 2, (1,))
            search_context.SearchContext(model, TASK, problems).own_confidence([0, 1], [[2, 3, 4], [4]])
    assert not gpu.errors, gpu.errors


@pytest.mark.parametrize("name", [name for name in catalogue.names()  # Coin has no dialogue, and no attempts to go on with (test_dagger.py)
                                  if "dialogue" not in catalogue.find(name)[1] and name != "dagger"])
def test_an_update_asks_a_constant_and_mixes_nothing(name):
    check_update(name)


def test_generate_asks_once_in_eight_tokens():
    check_generate()


@pytest.mark.parametrize("with_verifier", [False, True])
@pytest.mark.parametrize("method", search.METHODS)
def test_search_mixes_no_devices(method, with_verifier):
    check_search(method, with_verifier)


def test_the_warm_start_asks_a_constant():
    check_warm_start()


def test_evaluation_mixes_no_devices():
    check_evaluate()


# ---- the pretend GPU itself: what it must find

def plant(monkeypatch, owner, name, old, new):
    """Put a mistake into a function or a method of `owner`."""
    function = inspect.unwrap(getattr(owner, name))
    source = textwrap.dedent(inspect.getsource(function)).replace("super()", "super(type(self), self)")
    assert source.count(old) == 1, old
    made = {}
    exec(compile(source.replace(old, new), f"{name} with a mistake", "exec"), function.__globals__, made)
    monkeypatch.setattr(owner, name, made[name])


MISTAKES = {
    "limits that stay on the host": (sample, "generate", "limits = starts.to(device), limits.to(device)", "limits = starts.to(device), limits", check_generate),
    "a buffer that is made on the host": (buffers.Buffers, "__init__", "torch.zeros(batch, length, device=device)", "torch.zeros(batch, length)", check_generate),
    "a mask of keys that is made on the host": (
        model_room.GPT, "prefill_chunk", "torch.arange(kv_length, device=tokens.device)", "torch.arange(kv_length)", check_generate),
    "RoPE that does not move with the model": (
        model_room.GPT, "__init__", 'self.register_buffer("rope", torch.polar(torch.ones_like(angles), angles), persistent=False)',
        "self.rope = torch.polar(torch.ones_like(angles), angles)", check_generate),
    "all done? asked inside of the graph": (
        sample, "write", "done |= positions + 1 >= buf.ends[:n]", "done |= positions + 1 >= buf.ends[:n]; done.all() and None", check_generate),
    "the number of keys, asked inside of the graph": (
        sample, "advance", "buf.positions[:n].add_(1)", "buf.positions[:n].add_(1); int(buf.positions.max())", check_generate),
    "a question at every token": (sample, "generate", 'sync_interval = 1 if device.type == "cpu" else 8', "sync_interval = 1", check_generate),
    "noise of a generator of the CPU": (
        sample, "generate", "buf.noise[:n].uniform_(generator=generator)", "buf.noise[:n].uniform_(generator=torch.Generator())", check_generate),
    "rewards that stay on the host": (grpo.GRPO, "update", "rewards.to(self.policy.device)", "rewards", lambda: check_update("grpo")),
    "rows that are made on the host": (ppo.PPO, "update", "torch.arange(len(mask), device=device), mask, c,", "torch.arange(len(mask)), mask, c,", lambda: check_update("ppo")),
    "the loss, asked in every micro-batch": (
        grpo, "optimize", "loss.backward()", "loss.backward(); float(loss.detach())", lambda: check_update("maxrl")),
    "a boolean index in every micro-batch": (
        verifier, "verifier_loss", 'F.binary_cross_entropy_with_logits(scores, labels, weight=ends.float(), reduction="sum") / ends.sum()',
        "F.binary_cross_entropy_with_logits(scores[ends], labels[ends])", lambda: check_update("orm")),
    "pairs that stay on the host": (dpo.DPO, "update", "pairs(rewards.to(self.policy.device), c.group_size)", "pairs(rewards, c.group_size)", lambda: check_update("dpo")),
    "text to be scored that stays on the host": (
        search_context.SearchContext, "own_confidence", "torch.tensor(padded, device=self.model.device)", "torch.tensor(padded)", check_evaluate),
    "a loss that is asked for at once": (sft, "sft_step", "total += loss.detach()", "total += float(loss.detach())", check_warm_start),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    owner, name, old, new, check = MISTAKES[mistake]
    plant(monkeypatch, owner, name, old, new)
    with pytest.raises(AssertionError):
        check()
