"""TRL's GRPOTrainer beside ours: the same advantages, the same loss and the same gradient on the same
batch; two processes train. All of it only where TRL is installed (pip install transformers==5.23.0
trl==1.16.0)."""
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest
import torch

import checkpoint
import export
import tasks
from examples import trl_grpo
from grpo import group_advantages, policy_loss, token_weights
from model import GPT, GPTConfig
from plumbing import hugging_face
from plumbing.dataset import row
from sample import score
from toys import seed

ROOT, G, LIMIT = pathlib.Path(__file__).parent.parent, 4, 12
AGGREGATION = {"grpo": "sequence_mean", "bnpo": "token_mean", "dr_grpo": "constant"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An untrained policy over 19 words: what it writes is noise, of all lengths."""
    folder, task = tmp_path_factory.mktemp("trl") / "exported", tasks.load("modular_addition", max_k=4)
    torch.manual_seed(seed())
    model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, n_layer=1, n_head=4, n_embd=32, n_kv_head=2))
    with torch.no_grad():
        model.embed.weight.mul_(5.0)
    folder.mkdir()
    export.write_folder(folder, model, task, {"algo": "grpo", "task": task.name, "dtype": "float32", "max_new_tokens": 0})
    return folder


@pytest.fixture(scope="module", params=AGGREGATION)
def batches(request, exported, tmp_path_factory):
    """-> (loss type, batches): what TRL's trainer saw and computed in four passes over two batches, the
    second one of each with a policy that has moved."""
    trl = pytest.importorskip("trl")
    import datasets
    import transformers
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    seen = []

    class Spy(trl.GRPOTrainer):
        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            names, weights = zip(*model.named_parameters())
            gradients = torch.autograd.grad(loss, weights, retain_graph=True)
            seen.append({"loss": loss.item(), "inputs": {name: x.clone() for name, x in inputs.items() if torch.is_tensor(x)},
                         "weights": {name: w.detach().clone() for name, w in zip(names, weights)}, "gradients": dict(zip(names, gradients)),
                         "rewards": list(rewards)})
            return loss

    rewards = []

    def reward(completion_ids, **_):
        rewards[:] = [sum(ids) % 5 / 4 for ids in completion_ids]
        return list(rewards)

    task = checkpoint.load_run(exported)[1]
    c = trl_grpo.TRLConfig(steps=4, prompts=2, group_size=G, lr=0.02)
    arguments = trl_grpo.training_arguments(tmp_path_factory.mktemp("out"), c, task.max_new_tokens, 1, cpu=True)
    arguments.loss_type, arguments.num_iterations, arguments.max_completion_length = request.param, 2, LIMIT
    arguments.scale_rewards = "none" if request.param == "dr_grpo" else "group"
    rng = random.Random(seed())
    rows = [row(task, task.sample_problem(rng), rng) for _ in range(8)]
    Spy(transformers.AutoModelForCausalLM.from_pretrained(exported), reward, arguments, datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(exported)).train()
    return request.param, seen


def test_their_advantages_are_ours_up_to_a_constant(batches):
    """They divide by the sample's standard deviation, we by the population's: sqrt(G / (G - 1)) between
    them, for every group. And they add 1e-4 to it."""
    loss_type, seen = batches
    factor = 1.0 if loss_type == "dr_grpo" else (G / (G - 1)) ** 0.5
    compared = 0
    for batch in seen[::2]:
        theirs = batch["inputs"]["advantages"]
        ours = group_advantages(torch.tensor(batch["rewards"]), G, std=loss_type != "dr_grpo")
        if len(theirs) == len(ours) and batch["inputs"]["completion_ids"].shape[0] == len(ours):
            order = [sorted(x.tolist()) for x in (theirs * factor, ours)]
            assert order[0] == pytest.approx(order[1], rel=2e-3, abs=1e-6)
            compared += any(theirs != 0)
    assert compared


def test_their_loss_and_gradient_are_ours_on_the_same_batch(batches, exported):
    loss_type, seen = batches
    fields, apart = json.loads((exported / "config.json").read_text()), []
    for batch in seen:
        shape, state = hugging_face.from_llama(fields, batch["weights"])
        model = GPT(GPTConfig(**shape))
        model.load_state_dict(state)
        given = batch["inputs"]
        real = torch.cat((given["prompt_mask"], given["completion_mask"]), 1).bool()
        order = (~real).int().argsort(dim=1, stable=True)  # padding from both sides to the right
        tidy = lambda prompt, completion: torch.cat((prompt, completion), 1).gather(1, order)
        tokens = tidy(given["prompt_ids"], given["completion_ids"]) * real.gather(1, order)
        mask = tidy(torch.zeros_like(given["prompt_mask"]), given["completion_mask"]).bool()
        logprobs, _ = score(model, tokens)
        old = given.get("old_per_token_logps")
        old = logprobs.detach() if old is None else tidy(torch.zeros(given["prompt_ids"].shape), old)
        apart.append(float((logprobs.detach() - old)[mask].abs().max()))
        weights = token_weights(mask, AGGREGATION[loss_type], LIMIT)
        loss, _ = policy_loss(logprobs, old, given["advantages"], mask, clip_low=0.2, clip_high=0.2, aggregate=AGGREGATION[loss_type],
                              weights=weights)
        assert loss.item() == pytest.approx(batch["loss"], abs=1e-5)
        loss.backward()
        _, theirs = hugging_face.from_llama(fields, batch["gradients"])
        for name, p in model.named_parameters():
            ours, bound = p.grad, 1e-3 * max(1e-3, float(theirs[name].abs().max()))
            if name == "embed.weight":  # transformers gives the padding token, where it is read, no gradient; a policy may write it
                ours, theirs[name] = ours[1:], theirs[name][1:]
            assert (ours - theirs[name]).abs().max() < bound, name
    assert max(apart) > 0.2  # the policy had moved: the clip was at work


def test_two_processes_train_one_model(exported, tmp_path):
    """With gloo. What they save can be loaded, and has moved."""
    pytest.importorskip("trl")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "examples/trl_grpo.py", str(exported),
               str(tmp_path / "trained"), "--steps", "1", "--prompts", "2", "--group-size", "4", "--problems", "8", "--eval-problems", "2"]
    alone = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # two processes cannot share one GPU
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | alone)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes, 1 steps of 2 x 4" in done.stdout
    after, before = checkpoint.load_run(tmp_path / "trained")[0], checkpoint.load_run(exported)[0]
    assert after.config == before.config and len(after.state_dict()) == len(before.state_dict())
