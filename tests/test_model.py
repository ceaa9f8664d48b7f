"""The GPT: causal, positional, and the same whether it reads everything at once or token by token."""
import copy
import math

import pytest
import torch
import torch.nn.functional as F

from model import GPT, GPTConfig, KVCache, Muon, ScalarModel, make_optimizer, rotate
from toys import seed, seeded, tiny_gpt


def random_tokens(B, T, vocab_size=12, seed=0):
    return torch.randint(vocab_size, (B, T), generator=seeded(seed))


def test_logits_are_float32_and_one_row_of_them_belongs_to_each_token():
    logits = tiny_gpt()(random_tokens(3, 7))
    assert logits.shape == (3, 7, 12) and logits.dtype == torch.float32


def test_a_token_changes_no_logits_before_it():
    model, tokens = tiny_gpt(), random_tokens(1, 10)
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 12
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6]) and not torch.allclose(before[:, 6:], after[:, 6:])


def test_the_order_of_tokens_matters():
    """Without positions, one layer of attention would see a bag of words."""
    model = tiny_gpt()
    model.blocks = model.blocks[:1]
    a, b = model(torch.tensor([[1, 2, 3]]))[0, -1], model(torch.tensor([[2, 1, 3]]))[0, -1]
    assert not torch.allclose(a, b, atol=1e-2)


def test_rotary_scores_depend_on_the_distance_alone():
    turn = tiny_gpt().rope  # (block_size, D/2)
    q, k = torch.randn(2, 8, 1, 1, 16).unbind()  # eight pairs
    score = lambda i, j: (rotate(q, turn[i:i + 1, None]) * rotate(k, turn[j:j + 1, None])).sum((1, 2, 3))
    assert torch.allclose(score(5, 2), score(20, 17), atol=1e-4) and torch.allclose(score(3, 3), (q * k).sum((1, 2, 3)), atol=1e-4)
    assert not torch.allclose(score(5, 2), score(5, 3), atol=1e-3)


def test_a_new_model_knows_nothing():
    """Its loss is that of guessing: ln V."""
    tokens = random_tokens(8, 16)
    loss = F.cross_entropy(tiny_gpt(scale=1.0)(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(12), abs=0.2)


def test_every_weight_gets_a_gradient():
    model = tiny_gpt()
    torch.log_softmax(model(random_tokens(2, 8)), -1)[..., 3].sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_the_embedding_is_tied_and_nothing_has_a_bias():
    names = [name for name, _ in tiny_gpt().named_parameters()]
    assert not any("bias" in name or "head" in name for name in names)
    assert sum(tuple(p.shape) == (12, 32) for p in tiny_gpt().parameters()) == 1


def test_sizes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="multiple of 2"):
        GPT(GPTConfig(12, 24, n_head=4, n_embd=36))
    with pytest.raises(ValueError, match="n_kv_head 3"):
        tiny_gpt(n_head=4, n_kv_head=3)
    with pytest.raises(ValueError, match="block_size 24"):
        tiny_gpt()(random_tokens(1, 25))


def test_a_compiled_model_trains_alike_under_the_same_names():
    """Two lengths, so that shapes have to stay open. Everything but the last stage, which needs a C++ compiler, and minutes."""
    model = tiny_gpt(scale=2.0)
    model.blocks = model.blocks[:1]
    compiled = copy.deepcopy(model)
    compiled.compile(dynamic=True, backend="aot_eager")
    for length in (8, 11):
        for each in (model, compiled):
            each.zero_grad()
            torch.log_softmax(each(random_tokens(3, length)), -1)[..., 3].sum().backward()
        for p, q in zip(model.parameters(), compiled.parameters()):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=1e-4)
    assert compiled.state_dict().keys() == model.state_dict().keys()
    compiled.load_state_dict(model.state_dict())


# ---- cached decoding

def read_step_by_step(model, tokens, starts, cache, until):
    """Feed the given rows through prefill and decode; yield (step, logits (B, V)). Row i has a prompt of starts[i] tokens."""
    longest = int(starts.max())
    prompts = tokens[:, :longest].clone()
    prompts[torch.arange(longest) >= starts[:, None]] = 0  # right padding
    yield 0, model.prefill(prompts, starts, cache)
    for step in range(until):
        positions, rows = starts + step, torch.arange(len(tokens))
        yield step + 1, model.decode(tokens[rows, positions], positions, cache, longest + step + 1)


@torch.no_grad()
def test_grouped_queries_are_heads_whose_keys_and_values_are_shared():
    """Query heads 0 and 1 read key-value head 0, heads 2 and 3 head 1: as a model that holds each of them twice."""
    grouped, full, tokens = tiny_gpt(n_head=4, n_kv_head=2), tiny_gpt(n_head=4), random_tokens(3, 24)
    twice = lambda w: w.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict({name: twice(w) if name.endswith((".k.weight", ".v.weight")) else w for name, w in grouped.state_dict().items()})
    torch.testing.assert_close(grouped(tokens), full(tokens), atol=1e-5, rtol=0)
    assert KVCache(grouped.config, 5, 7, "cpu", torch.float32).keys[0].shape == (5, 2, 7, 8)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("starts", [(4, 4, 4), (1, 6, 3)], ids=["equal prompts", "mixed prompts"])
@torch.no_grad()
def test_cached_decoding_equals_the_full_forward_at_every_step(starts, kv_heads):
    """Trap 22, up to the last position of the block. The cache is dirty and too large, as it is after an earlier call."""
    model, tokens, starts = tiny_gpt(n_head=4, n_kv_head=kv_heads), random_tokens(3, 24), torch.tensor(starts)
    full = model(tokens)
    cache = KVCache(model.config, 5, 40, "cpu", torch.float32)
    for buffer in cache.keys + cache.values:
        buffer.normal_(std=10)
    steps = 24 - int(starts.max())
    for step, logits in read_step_by_step(model, tokens, starts, cache, steps):
        torch.testing.assert_close(logits, full[torch.arange(3), starts + step - 1], atol=1e-4, rtol=0)
    assert int(starts.max()) + step == 24  # the longest row has been read to the end of the block


@torch.no_grad()
def test_cached_decoding_goes_on_rightly_after_rows_have_left():
    """Trap 22: rows 0 and 2 leave after three steps, and the others move up."""
    model, tokens, starts = tiny_gpt(), random_tokens(5, 24), torch.tensor([2, 6, 1, 4, 3])
    full, cache = model(tokens), KVCache(model.config, 5, 24, "cpu", torch.float32)
    for step, _ in read_step_by_step(model, tokens, starts, cache, 3):
        pass
    live = torch.tensor([1, 3, 4])
    cache.copy_rows(live, slice(3), 6 + step)
    for step in range(3, 18):
        positions = starts[live] + step
        logits = model.decode(tokens[live, positions], positions, cache, 6 + step + 1)
        torch.testing.assert_close(logits, full[live, positions], atol=1e-4, rtol=0)
    assert positions.max() == 23


@torch.no_grad()
def test_low_precision_decoding_is_near_the_full_forward():
    model, tokens, starts = tiny_gpt(scale=4.0), random_tokens(3, 24), torch.tensor([1, 6, 3])
    model.compute_dtype = torch.bfloat16
    full, cache = model(tokens), KVCache(model.config, 3, 24, "cpu", torch.bfloat16)
    for step, logits in read_step_by_step(model, tokens, starts, cache, 18):
        torch.testing.assert_close(logits, full[torch.arange(3), starts + step - 1], atol=0.25, rtol=0)
    assert full.dtype == torch.float32 and model.embed.weight.dtype == torch.float32


def test_a_copy_of_the_model_is_its_weights_and_nothing_else():
    """Trap 29: references are made by deepcopy, so the model must not hold the cache. Checkpoints stay small, too."""
    model = tiny_gpt()
    with torch.no_grad():
        model.prefill(random_tokens(4, 8), torch.tensor([8] * 4), KVCache(model.config, 4, 24, "cpu", torch.float32))
    held = {name for name, _ in copy.deepcopy(model).named_buffers()}
    assert held <= {"rope"} and set(model.state_dict()) == {name for name, _ in model.named_parameters()}


# ---- a model that says one number

def test_a_scalar_model_starts_with_no_opinion():
    """0 everywhere, in float32, one number a token."""
    says = ScalarModel(tiny_gpt())(random_tokens(3, 7))
    assert says.shape == (3, 7) and says.dtype == torch.float32 and not says.any()


def test_its_trunk_knows_what_the_policy_knows():
    policy, tokens = tiny_gpt(), random_tokens(3, 7)
    assert torch.equal(ScalarModel(policy).backbone(tokens), policy(tokens))


def test_training_its_trunk_leaves_the_policy_alone():
    """A shared backbone would let the critic's gradient into the policy. A frozen policy still has a critic that can learn."""
    policy = tiny_gpt().requires_grad_(False)
    model, before = ScalarModel(policy), copy.deepcopy(policy.state_dict())
    optimizer, start = make_optimizer(model, 1e-2), copy.deepcopy(model.state_dict())
    for _ in range(2):  # the head first: as long as it is 0 the backbone has no gradient
        optimizer.zero_grad()
        (model(random_tokens(2, 8)) - 1).square().sum().backward()
        optimizer.step()
    assert not any(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert all(torch.equal(w, before[name]) for name, w in policy.state_dict().items())
    assert not any(p.requires_grad for p in policy.parameters())


def test_what_it_says_of_a_state_does_not_depend_on_what_follows():
    model, tokens = ScalarModel(tiny_gpt()), random_tokens(1, 10)
    torch.nn.init.normal_(model.head.weight)
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 12
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6]) and (before[:, 6:] != after[:, 6:]).all()


def test_in_low_precision_it_still_answers_in_float32():
    policy = tiny_gpt()
    policy.compute_dtype = torch.bfloat16
    model = ScalarModel(policy)
    torch.nn.init.normal_(model.head.weight)
    full = ScalarModel(tiny_gpt())
    full.head.load_state_dict(model.head.state_dict())
    low, high = model(random_tokens(2, 8)), full(random_tokens(2, 8))
    assert low.dtype == torch.float32 and not torch.equal(low, high)
    torch.testing.assert_close(low, high, atol=0.5, rtol=0.05)


# ---- the optimizer

def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = tiny_gpt()
    muon, adamw = ({id(p) for p in o.param_groups[0]["params"]} for o in make_optimizer(model, 1e-3, 0.02).optimizers)
    hidden = {id(p) for name, p in model.named_parameters() if name.startswith("blocks") and p.ndim == 2}
    assert muon == hidden and adamw == {id(p) for p in model.parameters()} - hidden


def test_without_muon_adamw_takes_everything():
    (adamw,) = make_optimizer(tiny_gpt(), 1e-3).optimizers
    assert len(adamw.param_groups[0]["params"]) == len(list(tiny_gpt().parameters()))


@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
def test_the_schedule_scales_every_rate(muon_lr):
    """A schedule of 0 moves nothing; and it is a factor on the first rate, not on the last one used."""
    def moved(*schedules):
        model = tiny_gpt()
        optimizer, before = make_optimizer(model, 1e-3, muon_lr), copy.deepcopy(model.state_dict())
        for schedule in schedules:
            optimizer.zero_grad()
            model(random_tokens(2, 8))[..., 3].sum().backward()
            optimizer.step(schedule)
        return [float((p.detach() - before[name]).abs().max()) for name, p in model.named_parameters()]
    assert max(moved(0.0)) == 0
    assert moved(0.5) == pytest.approx([m / 2 for m in moved(1.0)], rel=1e-2)
    assert min(moved(0.0, 1.0)) > 1e-5


def test_a_restored_optimizer_takes_the_same_next_step():
    """Trap 25: its moments are part of a run."""
    def step(model, optimizer):
        optimizer.zero_grad()
        model(random_tokens(2, 8))[..., 3].sum().backward()
        optimizer.step()
    model = tiny_gpt()
    optimizer = make_optimizer(model, 1e-3, 0.02)
    step(model, optimizer)
    twin = copy.deepcopy(model)
    restored = make_optimizer(twin, 1e-3, 0.02)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer), step(twin, restored)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
def test_a_gradient_that_is_not_finite_moves_nothing(muon_lr, bad):
    """One bad batch shall not end a run: no weight is touched, and no moment either, so that the next step is the usual one."""
    def step(model, optimizer):
        optimizer.zero_grad()
        model(random_tokens(2, 8))[..., 3].sum().backward()
        return optimizer.step()
    model, twin = tiny_gpt(), tiny_gpt()
    optimizer, other = make_optimizer(model, 1e-3, muon_lr), make_optimizer(twin, 1e-3, muon_lr)
    step(model, optimizer), step(twin, other)  # now there is momentum
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    model.embed.weight.grad[3, 5] = bad
    assert not math.isfinite(optimizer.step(max_norm=1.0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))
    assert step(model, optimizer) == step(twin, other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))


def test_gradients_are_scaled_down_to_the_largest_norm_and_never_up():
    """3 and 4 make a norm of 5. Down to 1 they are 0.6 and 0.8, and in proportion; up to 10 they stay. What is returned is 5."""
    for max_norm, expected in ((1.0, [0.6, 0.8]), (10.0, [3, 4]), (math.inf, [3, 4])):
        model = tiny_gpt()
        optimizer = make_optimizer(model, 1e-3, 0.02)  # the norm is over all weights, whoever steps them
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        gradients = model.embed.weight.grad, model.blocks[0].q.weight.grad
        gradients[0][0, 0], gradients[1][0, 0] = 3.0, 4.0
        assert optimizer.step(max_norm=max_norm) == pytest.approx(5)
        assert [float(g[0, 0]) for g in gradients] == pytest.approx(expected, rel=1e-4)


def test_in_bfloat16_the_logits_are_computed_in_float32():
    """Trap 35: a product inside of autocast is rounded to bfloat16, and `.float()` afterwards is bfloat16 in float32's clothes."""
    model = tiny_gpt(seed=seed())
    model.compute_dtype = torch.bfloat16
    tokens = torch.randint(2, 12, (4, 9))
    cache = KVCache(model.config, 4, 9, model.device, torch.bfloat16)
    scalar = ScalarModel(model)
    torch.nn.init.normal_(scalar.head.weight)
    with torch.no_grad():
        for found in (model(tokens), model.prefill(tokens, torch.tensor([9, 9, 9, 9]), cache),
                      model.decode(tokens[:, 0], torch.tensor([3, 3, 3, 3]), cache, 9), scalar(tokens)):
            assert found.dtype == torch.float32 and (found != found.bfloat16().float()).any()


def test_a_row_that_is_too_long_names_the_setting():
    with pytest.raises(ValueError, match="max_new_tokens"):
        tiny_gpt(block_size=8)(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize("shapes", [[(8, 8), (24, 8), (8, 24), (8, 8)]])
def test_muon_is_that_of_torch_in_float32(shapes):
    """torch.optim.Muon multiplies in bfloat16: equal to its precision, over several steps."""
    generator = seeded()
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    before = [p.detach().clone() for p in ours]
    optimizers = Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0)
    for _ in range(3):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q, start in zip(ours, theirs, before):
        assert (p - q).norm() < 0.02 * (p - start).norm()


def test_adamw_remembers_squares_for_twenty_steps_and_forgets_no_weight():
    """Gradients 1, then 3, by hand: moments 0.39 / 0.19 and 0.4975 / 0.0975. torch's own memory is 1000 steps, and its own weight
    decay moves what has no gradient."""
    model = tiny_gpt()
    optimizer = make_optimizer(model, lr=0.01)
    weight = model.norm.weight
    for gradient, moved in ((1.0, 0.01), (3.0, 0.01 * (0.39 / 0.19) / (0.4975 / 0.0975) ** 0.5)):
        before = weight.detach().clone()
        for p in model.parameters():
            p.grad = torch.full_like(p, gradient if p is weight else 0.0)
        optimizer.step()
        assert (before - weight).tolist() == pytest.approx([moved] * 32, rel=1e-3)
    assert torch.equal(model.embed.weight, tiny_gpt().embed.weight)  # no gradient, no step


def test_what_is_added_to_the_stream_begins_smaller():
    """2 layers add to it 4 times: half of 0.02, so that the sum has the size of one."""
    torch.manual_seed(seed())
    for name, p in GPT(GPTConfig(64, 24, n_layer=2, n_head=2, n_embd=64)).named_parameters():
        if p.ndim == 2:
            assert float(p.detach().std()) == pytest.approx(0.01 if name.endswith(("out.weight", "down.weight")) else 0.02, rel=0.1)
