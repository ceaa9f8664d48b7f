"""export.py: the folder is the same model, the same tokenizer, and comes back bit by bit."""
import json
import random
import re
import shutil

import pytest
import torch
import torch.nn.functional as F

import checkpoint
import export
import tasks
from config import InputError
from evaluate import fixed_problems
from model import GPT, GPTConfig
from plumbing import hugging_face
from plumbing.warm_starts import init_from
from sample import generate
from toys import seed, seeded

CONFIG = {"algo": "grpo", "task": "countdown", "dtype": "float32", "max_new_tokens": 0}


@pytest.fixture(scope="module", params=[0, 2], ids=["4 heads", "4 heads, 2 of keys"])
def exported(request, tmp_path_factory):
    """-> (folder, model, task): a run of two layers whose weights are large enough for attention to
    matter."""
    place, task = tmp_path_factory.mktemp("export"), tasks.load("countdown", attempts=1)
    torch.manual_seed(seed())
    model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, n_layer=2, n_head=4, n_embd=32,
                          n_kv_head=request.param))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape) * (0.3 if p.ndim == 2 else 1.0))  # norms too: each weight must find its place
    (place / "run").mkdir()
    checkpoint.save(place / "run/checkpoint.pt", model, task, CONFIG)
    export.main([str(place / "run"), str(place / "folder")])
    return place / "folder", model, task


def llama(state, fields, tokens):
    """Llama as transformers computes it, from the files alone: tokens (B, T) -> logits (B, T, V).
    Rotary positions turn the two halves of a head; a group of query heads shares a head of keys and
    values."""
    H, G, D = fields["num_attention_heads"], fields["num_key_value_heads"], fields["head_dim"]
    frequencies = fields["rope_theta"] ** (-torch.arange(0, D, 2) / D)
    angles = torch.outer(torch.arange(tokens.shape[1]), frequencies).repeat(1, 2)  # (T, D)

    def norm(x, name):
        return x * (x.pow(2).mean(-1, keepdim=True) + fields["rms_norm_eps"]).rsqrt() * state[f"{name}.weight"]

    def turn(x):
        return x * angles.cos() + torch.cat((-x[..., D // 2:], x[..., :D // 2]), -1) * angles.sin()

    x = state["model.embed_tokens.weight"][tokens]
    for i in range(fields["num_hidden_layers"]):
        weight = lambda name: state[f"model.layers.{i}.{name}.weight"]
        heads = lambda name, n: (y @ weight(f"self_attn.{name}").T).unflatten(-1, (n, D)).transpose(1, 2)  # (B, n, T, D)
        y = norm(x, f"model.layers.{i}.input_layernorm")
        q, k, v = turn(heads("q_proj", H)), turn(heads("k_proj", G)), heads("v_proj", G)
        y = F.scaled_dot_product_attention(q, *(z.repeat_interleave(H // G, 1) for z in (k, v)), is_causal=True)
        x = x + y.transpose(1, 2).flatten(2) @ weight("self_attn.o_proj").T
        y = norm(x, f"model.layers.{i}.post_attention_layernorm")
        x = x + (F.silu(y @ weight("mlp.gate_proj").T) * (y @ weight("mlp.up_proj").T)) @ weight("mlp.down_proj").T
    return norm(x, "model.norm") @ state["model.embed_tokens.weight"].T


def test_a_llama_made_of_the_files_gives_our_logits(exported):
    folder, model, task = exported
    state, fields = hugging_face.read_safetensors(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    tokens = torch.randint(task.tokenizer.n_vocab, (3, model.config.block_size), generator=seeded())
    ours, theirs = model(tokens).detach(), llama(state, fields, tokens)
    assert float(ours.std()) > 0.3 and (ours - theirs).abs().max() < 1e-4 * ours.abs().max()
    state["model.layers.0.self_attn.q_proj.weight"] = model.blocks[0].q.weight  # a mistake: not put into halves
    assert (ours - llama(state, fields, tokens)).abs().max() > 1e-2


def test_the_weights_come_back_bit_by_bit(exported):
    folder, model, task = exported
    back, same_task, config = checkpoint.load_run(folder)
    assert all(torch.equal(w, model.state_dict()[name]) for name, w in back.state_dict().items())
    assert back.config == model.config and same_task.options == task.options and config["max_new_tokens"] == 0


def test_a_run_can_start_from_the_folder(exported):
    folder, model, task = exported
    fresh = GPT(model.config)
    init_from(folder, fresh, task)
    assert all(torch.equal(w, model.state_dict()[name]) for name, w in fresh.state_dict().items())


def test_what_was_exported_can_be_exported_again(exported, tmp_path):
    export.main([str(exported[0]), str(tmp_path / "again")])
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (exported[0] / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_safetensors_hold_what_was_put_in(tmp_path, dtype):
    state = {"a": torch.tensor([[1.0, -2.5]], dtype=dtype), "a.b": torch.tensor([0.5], dtype=dtype)}
    with open(tmp_path / "x", "wb") as file:
        hugging_face.write_safetensors(file, state)
    back = hugging_face.read_safetensors(tmp_path / "x")
    assert list(back) == ["a", "a.b"] and all(back[n].dtype == dtype and torch.equal(back[n], state[n]) for n in state)


def spoil(folder, name, old, new):
    content = (folder / name).read_bytes()
    assert old in content
    (folder / name).write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("name, old, new", [
    ("config.json", b'"thinksmall"', b'"other"'), ("config.json", b"{", b""), ("config.json", b'"hidden_size"', b'"size"'),
    ("tokenizer.json", b'"vocab"', b'"words"'), ("model.safetensors", b"model.norm.weight", b"model.norm.weighs"),
    ("model.safetensors", b'"F32"', b'"F31"')])
def test_a_folder_that_is_not_whole_is_refused_in_one_line(exported, tmp_path, name, old, new):
    folder = shutil.copytree(exported[0], tmp_path / "spoilt")
    spoil(folder, name, old, new)
    with pytest.raises(InputError, match="cannot be read as a model that export.py wrote"):
        checkpoint.load_run(folder)


def test_weights_that_are_cut_short_are_refused(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "short")
    content = (folder / "model.safetensors").read_bytes()
    for length in (0, 5, 100, len(content) - 1):
        (folder / "model.safetensors").write_bytes(content[:length])
        with pytest.raises(InputError):
            checkpoint.load_run(folder)


def test_a_folder_that_holds_something_is_not_written_to(exported):
    with pytest.raises(InputError, match="holds something"):
        export.main([str(exported[0]), str(exported[0])])


def test_the_pattern_and_the_words_of_the_file_encode_like_the_tokenizer():
    for name in tasks.names():
        task, rng = tasks.load(name), random.Random(seed())
        written = export.tokenizer_json(task.tokenizer)
        pattern, words = written["pre_tokenizer"]["pattern"]["Regex"], written["model"]["vocab"]
        assert [words[entry["content"]] for entry in written["added_tokens"]] == [task.tokenizer.pad, task.tokenizer.eos]
        for _ in range(50):
            problem = task.sample_problem(rng)
            text = problem.prompt + task.demonstration(problem, rng)
            assert [words[piece] for piece in re.findall(pattern, text)] == task.tokenizer.encode(text)


def test_the_card_tells_the_figures_of_the_run(tmp_path):
    task = tasks.load("modular_addition")
    model = GPT(GPTConfig(task.tokenizer.n_vocab, 64, n_layer=1, n_head=2, n_embd=32))
    result = {"problems": 7, "greedy": 0.25, "pass@1": 0.125, "pass@8": 0.5, "length": 12.0}
    export.write_folder(tmp_path, model, task, CONFIG, {
        "before": result, "after": result | {"pass@1": 0.375}, "steps": 3, "seconds": {"warm_start": 1.0, "rl": 2.0, "evaluation": 3.0},
        "baselines": {"random_search": None, "demonstrations": 0.75, "continued_sft": None}})
    card = (tmp_path / "README.md").read_text()
    assert "0.375" in card and "0.750" in card and f"{sum(p.numel() for p in model.parameters()):,} parameters" in card


# ---- with transformers, where it is installed

@pytest.fixture(scope="module")
def theirs(exported):
    transformers = pytest.importorskip("transformers")
    folder = str(exported[0])
    return (transformers.AutoModelForCausalLM.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("name", tasks.names())
def test_their_tokenizer_encodes_and_decodes_like_ours(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    task, rng = tasks.load(name), random.Random(seed())
    model = GPT(GPTConfig(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens, n_layer=1, n_head=2, n_embd=32))
    export.write_folder(tmp_path, model, task, CONFIG)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (task.tokenizer.pad, task.tokenizer.eos)
    for _ in range(200):
        problem = task.sample_problem(rng)
        text = problem.prompt + task.demonstration(problem, rng)
        assert tokenizer.encode(text) == task.tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(Exception):
        tokenizer.encode("ß")


def test_transformers_gives_our_logits_and_our_greedy_answers(exported, theirs):
    """200 prompts of mixed lengths, padded on the left as transformers wants it."""
    (_, model, task), (llama, tokenizer) = exported, theirs
    tokens = torch.randint(task.tokenizer.n_vocab, (4, model.config.block_size), generator=seeded())
    with torch.no_grad():
        assert (llama(tokens).logits - model(tokens)).abs().max() < 1e-5 * model(tokens).abs().max()
    problems = fixed_problems(task, "train", 100) + fixed_problems(task, "val", 100)
    rollout = generate(model, [task.tokenizer.encode(p.prompt) for p in problems], task.max_new_tokens, 0, eos=task.tokenizer.eos)
    batch = tokenizer([p.prompt for p in problems], return_tensors="pt", padding=True)
    texts = tokenizer.batch_decode(llama.generate(batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False,
                                                  max_new_tokens=task.max_new_tokens)[:, batch["input_ids"].shape[1]:],
                                   skip_special_tokens=True)
    clean = lambda text: text.replace("<|pad|>", "").partition("<|eos|>")[0]
    assert len(texts) == len(problems) and [clean(t) for t in rollout.completions(task.tokenizer)] == texts


def test_what_transformers_saves_can_be_loaded_here(exported, theirs, tmp_path):
    for part in theirs:
        part.save_pretrained(tmp_path)
    back, _, _ = checkpoint.load_run(tmp_path)
    assert all(torch.equal(w, exported[1].state_dict()[name]) for name, w in back.state_dict().items())


def test_the_example_of_the_card_runs(exported, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.chdir(exported[0])
    [code] = re.findall(r"```python\n(.*?)```", (exported[0] / "README.md").read_text(), re.S)
    exec(code, {})
    assert capsys.readouterr().out.startswith("Use ")
