"""The model in the page: forward.js and live.js under node compute what torch, the tokenizer and the rule say. test_browser.py opens the page."""
import base64
import json
import pathlib
import random
import shutil

import pytest
import torch

import checkpoint
import tasks
from bench.page import GREEDY, LOGITS, node
from config import InputError
from evaluate import fixed_problems
from model import GPT, GPTConfig
from sample import generate
from sft import SFTConfig, warm_start
from toys import seed, seeded, tiny_gpt
from viewer import weights

VIEWER = pathlib.Path(weights.__file__).parent
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed: forward.js cannot be run outside of a browser")


def rounded(model):
    """The same model with the weights that a page gets."""
    model.load_state_dict({name: w.half().float() if "blocks" in name and w.ndim == 2 else w for name, w in model.state_dict().items()})
    return model


# ---- the forward pass

@needs_node
@pytest.mark.parametrize("heads", [(2, 0), (4, 0), (4, 2), (4, 1)], ids=str)
def test_the_page_computes_the_logits_of_torch(heads):
    n_head, n_kv_head = heads
    if n_kv_head and "n_kv_head" not in GPTConfig.__dataclass_fields__:
        pytest.skip("this model has no grouped key-value heads")
    model = tiny_gpt(vocab_size=40, n_head=n_head, **({"n_kv_head": n_kv_head} if n_kv_head else {}))
    tokens = torch.randint(2, 40, (5, 24), generator=seeded())
    found = torch.tensor(node(LOGITS, packed=weights.weights(model), rows=tokens.tolist()))
    expected = rounded(model)(tokens)
    assert expected.std() > 0.1 and (found - expected).abs().max() < 1e-4


@needs_node
def test_attention_is_that_of_each_head_and_adds_up_to_one():
    """Recomputed for the first layer, from q and k as torch projects and turns them."""
    from model import rotate
    model = rounded(tiny_gpt(vocab_size=40, n_head=4))
    tokens = torch.randint(2, 40, (1, 10), generator=seeded())
    found = node("const m = new Model(packed), c = m.cache(); let out; row.forEach((id, t) => out = m.step(id, t, c));"
                 "return out.attention.map(layer => layer.map(head => Array.from(head)));", packed=weights.weights(model), row=tokens[0].tolist())
    block, x = model.blocks[0], model.embed(tokens)
    q, k = (rotate(project(block.attention_norm(x)).unflatten(-1, (4, -1)), model.rope[:10, None])[0] for project in (block.q, block.k))
    expected = torch.einsum("hd,thd->ht", q[-1], k).div(q.shape[-1] ** 0.5).softmax(-1)  # (heads, keys)
    assert torch.allclose(torch.tensor(found[0]), expected, atol=1e-5)
    assert torch.allclose(torch.tensor(found).sum(-1), torch.ones(2, 4), atol=1e-5)


@needs_node
def test_going_back_and_putting_another_token_there_is_like_having_written_it_at_once():
    packed = weights.weights(tiny_gpt(vocab_size=40))
    again, at_once = node("""
        const m = new Model(packed), one = m.cache(), two = m.cache();
        [3, 4, 5, 6, 7].forEach((id, t) => m.step(id, t, one));
        m.step(9, 2, one);
        [3, 4, 9].forEach((id, t) => m.step(id, t, two));
        return [one, two].map(cache => Array.from(m.step(8, 3, cache).logits));""", packed=packed)
    assert again == at_once


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A policy that has learned a little, so that its logits are those of a language: the folder of a run, and of its warm start."""
    task = tasks.load("countdown", numbers=2, attempts=1, max_number=40)
    torch.manual_seed(seed())
    model, folder = GPT(GPTConfig(task.tokenizer.n_vocab, 40, n_layer=1, n_head=2, n_embd=32)), tmp_path_factory.mktemp("live")
    (folder / "run").mkdir(), (folder / "warm-1").mkdir()
    checkpoint.save(folder / "warm-1" / "checkpoint.pt", model, task, {"algo": "sft", "max_new_tokens": 0})
    warm_start(model, task, SFTConfig(sft_steps=40, sft_batch=16), seed())
    checkpoint.save(folder / "run" / "checkpoint.pt", model, task, {"algo": "grpo", "max_new_tokens": 0}, state={"warm_start": "runs/warm-1"})
    return folder


@needs_node
def test_on_100_prompts_float16_moves_logits_by_less_than_a_hundredth_and_greedy_answers_are_equal(trained):
    """Greedy answers beside torch with the same rounded weights: an untrained choice between two equal tokens may fall either way."""
    model, task, _ = checkpoint.load_run(trained / "run")
    prompts = [task.tokenizer.encode(problem.prompt) for problem in fixed_problems(task, "test", 100)]
    assert len(prompts) == 100
    packed = weights.pack(trained / "run")
    found = [row[-1] for row in node(LOGITS, packed=packed, rows=prompts)]
    expected = torch.stack([model(torch.tensor([prompt]))[0, -1] for prompt in prompts])
    assert expected.std() > 1 and (torch.tensor(found) - expected).abs().max() < 1e-2

    limit = task.max_new_tokens
    rollout = generate(rounded(model), prompts, limit, temperature=0, eos=1)
    theirs = [row[start:end] for row, start, end in zip(rollout.tokens.tolist(), rollout.prompt_lengths, rollout.lengths)]
    ours = [answer["ids"] for answer in node(GREEDY, packed=packed, prompts=prompts, limit=limit)]
    assert sum(a == b for a, b in zip(ours, theirs)) >= 99 and max(map(len, theirs)) > 5


# ---- choosing

@needs_node
def test_choices_follow_the_probabilities_and_temperature_0_takes_the_likeliest():
    """p = 1/8, 1/2, 3/8: a uniform number below 1/8 chooses token 0, below 5/8 token 1, else token 2."""
    logits = [float(x) for x in torch.tensor([0.125, 0.5, 0.375]).log()]
    found = node("return [[0.1, 0.2, 0.6, 0.7, 0.9999999].map(u => choose(Float64Array.from(logits), 1, u)),"
                 "choose(Float64Array.from(logits), 0, 0.99), Array.from(softmax(Float64Array.from(logits), 0.5)),"
                 "Array.from(softmax(Float64Array.from(logits), 0)), entropy([0.5, 0.5, 0])]", logits=logits)
    assert found[:2] == [[0, 1, 1, 2, 2], 1]
    assert found[2] == pytest.approx([1 / 26, 16 / 26, 9 / 26])  # squares, made to add up to 1
    assert found[3] == pytest.approx([0.125, 0.5, 0.375]) and found[4] == pytest.approx(0.693147, abs=1e-5)


@needs_node
def test_every_float16_is_read():
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    halves = halves[halves.isfinite()]
    found = node("return Array.from(float16(text))", text=base64.b64encode(halves.numpy().tobytes()).decode())
    assert torch.equal(torch.tensor(found), halves.float())


# ---- words

@needs_node
@pytest.mark.parametrize("name", tasks.names())
def test_the_page_reads_text_as_the_tokenizer_does(name):
    task, rng = tasks.load(name), random.Random(seed())
    problems = [task.sample_problem(rng) for _ in range(50)]
    texts = [problem.prompt + task.demonstration(problem, rng) for problem in problems]
    pieces = [task.tokenizer.decode([token]) for token in range(task.tokenizer.n_vocab)]
    assert node("const v = new Vocabulary(pieces); return texts.map(text => v.encode(text))", pieces=pieces, texts=texts) == [
        task.tokenizer.encode(text) for text in texts]


@needs_node
def test_text_that_has_no_tokens_is_refused_and_the_piece_is_named():
    pieces = ["<|pad|>", "<|eos|>", "Use ", ", ", "12", "3", ".", "|", "$("]
    found = node("const v = new Vocabulary(pieces); return texts.map(text => { try { return v.encode(text) } catch (e) { return e.message } })",
                 pieces=pieces, texts=["Use 12, 3", "Use 123", "Use é", "Use 12; 3", "<|eos|>", "", "$(.|", "Use 💥"])
    assert found[0] == [2, 4, 3, 5] and found[5] == [] and found[6] == [8, 6, 7]
    assert ["123" in found[1], "é" in found[2], ";" in found[3], "<" in found[4], "💥" in found[7]] == [True] * 5


@needs_node
def test_the_verdict_of_the_page_is_that_of_the_rule():
    task, rng = tasks.load("countdown"), random.Random(seed())
    problem = task.parse_problem("Use 3, 5, 7 to make 22.\n")
    answers = ["(5 * 3) + 7", "7 + (3 * 5)", "5 * 3 + 7", "3 + 5 * 7", "7 + 5 * 3 * 1", "22", "", "5 * 3", "(5 * 3) + 7)", "((5 * 3) + 7",
               "5 * (3 + 7", "5 3 * 7 +", "+ 5 * 3 + 7", "5 / 0 + 3 + 7", "(7 + 5) + (3)", "()", "7 - (5 * 3)", "found", "5 * 3 + - 7"]
    texts = [f"<think></think><answer>{answer}</answer>" for answer in answers]
    texts += ["5 * 3 + 7", texts[0] * 2, "<answer>5 * 3 + 7", texts[0] + "7", "<answer><answer>5 * 3 + 7</answer>", "</answer>" + texts[0], "<answer> 5*3+7 </answer>",
              "<answer>05 * 3 + 7</answer>", "<answer>5 * 3 +\n7</answer>"]
    cases = [(problem, text) for text in texts]
    for other in (task.sample_problem(rng) for _ in range(50)):
        cases.append((other, task.demonstration(other, rng)))
    found = node("return cases.map(([prompt, text]) => verdict(prompt, text))", cases=[(p.prompt, text) for p, text in cases])
    assert found == [task.verify(p, text) for p, text in cases] and 0 < sum(found) < len(found)
    assert node("return verdict('Add 5, 3 mod 7.\\n', '<answer>1</answer>')") is None


# ---- what goes into the page

def test_the_warm_start_stands_beside_the_policy(trained, monkeypatch):
    found = weights.live(trained / "run", "Use 9, 2 to make 7.\n")
    assert [model["name"] for model in found["models"]] == ["warm start", "trained: run"] and found["example"] == "Use 9, 2 to make 7.\n"
    assert found["models"][0]["float16"] != found["models"][1]["float16"]
    json.dumps(found)
    monkeypatch.setattr(weights, "warm_start_of", lambda run: None)
    found = weights.live(trained / "run")
    assert [model["name"] for model in found["models"]] == ["run"] and found["example"] in found["models"][0]["examples"]


def test_a_warm_start_that_is_gone_is_left_out(trained, tmp_path):
    assert weights.warm_start_of(trained / "warm-1") is None
    shutil.copytree(trained / "run", tmp_path / "run")
    assert weights.warm_start_of(tmp_path / "run") is None


def test_a_weight_that_is_no_float16_is_refused():
    model = tiny_gpt()
    with torch.no_grad():
        model.blocks[0].q.weight[0, 0] = 1e5
    with pytest.raises(InputError, match="65504"):
        weights.weights(model)


def test_the_forward_pass_is_short():
    assert len((VIEWER / "forward.js").read_text().splitlines()) <= 160
