"""Sampling and scoring: what was sampled is what is trained on, to the token and to the last digit that matters."""
import copy
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import tasks
from model import GPTConfig, ScalarModel, make_optimizer
from plumbing import buffers
from sample import (Rollout, SamplingConfig, choose, collect, generate, generate_plainly, join, largest_log_ratio, last_values, score,
                    values)
from toys import Bigram, chain, seed, seeded, tiny_gpt

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]
EOS = 1
PROMPTS = [[2, 3, 4], [5], [6, 7, 8, 9, 10], [3, 3]] * 4  # of mixed lengths


# ---- score

TABLE = torch.tensor([[0.50, 0.25, 0.25],   # after token 0
                      [0.10, 0.60, 0.30],   # after token 1
                      [0.20, 0.20, 0.60]]).log()


def test_score_equals_hand_summed_bigram_logprobs():
    """Trap 1: shifted by one, the entries would be .25 .30 .60 in columns 0 to 2, or those of other tokens."""
    logprobs, _ = score(Bigram(TABLE), torch.tensor([[0, 1, 2, 2], [2, 0, 0, 1]]))
    assert logprobs.exp().tolist() == [pytest.approx([1, 0.25, 0.30, 0.60]), pytest.approx([1, 0.20, 0.50, 0.25])]


def test_entropies_are_of_the_choice_the_token_was_made_from():
    _, entropies = score(Bigram(TABLE), torch.tensor([[0, 1, 2]]))
    H = lambda *p: -sum(x * math.log(x) for x in p)
    assert entropies.tolist()[0] == pytest.approx([0, H(0.5, 0.25, 0.25), H(0.1, 0.6, 0.3)])


def test_the_temperature_divides_before_the_softmax():
    """At 1/2 the probabilities are squared and normalised again: (1/4, 1/16, 1/16) / (6/16)."""
    logprobs, _ = score(Bigram(TABLE), torch.tensor([[0, 1], [0, 0]]), temperature=0.5)
    assert logprobs[:, 1].exp().tolist() == pytest.approx([1 / 6, 4 / 6])


def test_score_changes_nothing_in_place():
    """Trap 4."""
    tokens = torch.randint(12, (3, 9))
    kept, model = tokens.clone(), tiny_gpt()
    weights = copy.deepcopy(model.state_dict())
    score(model, tokens, 0.7)
    assert torch.equal(tokens, kept) and all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())


def test_score_of_a_row_ignores_its_neighbours_and_its_padding():
    """Trap 5: rows of length 4 and 9 share a batch; whatever stands behind the end changes nothing before it."""
    model, tokens = tiny_gpt(), torch.randint(12, (2, 9), generator=seeded())
    together, _ = score(model, tokens)
    alone, _ = score(model, tokens[:1, :4])
    tokens[0, 4:] = 0
    padded, _ = score(model, tokens)
    torch.testing.assert_close(alone[0], together[0, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(padded[0, :4], together[0, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(padded[1], together[1], atol=1e-5, rtol=0)


# ---- what a rollout holds

def test_the_mask_holds_the_completion_with_its_first_eos_and_nothing_else():
    """Traps 2 and 3, row by row in plain Python. One prompt holds an EOS of its own, which ends nothing."""
    prompts = [[2], [3, EOS, 2], [2, 3]] * 40
    rollout = generate(Bigram(torch.zeros(4, 4)), prompts, 6, eos=EOS, pad=0, generator=seeded())
    for i, prompt in enumerate(prompts):
        tokens, start = rollout.tokens[i].tolist(), len(prompt)
        assert tokens[:start] == prompt and rollout.prompt_lengths[i] == start
        sampled = tokens[start:start + 6]
        end = start + (sampled.index(EOS) + 1 if EOS in sampled else 6)
        assert rollout.lengths[i] == end and bool(rollout.finished[i]) == (EOS in sampled)
        assert rollout.mask[i].tolist() == [start <= t < end for t in range(len(tokens))]
        assert all(token == 0 for token in tokens[end:])  # padding, and no second EOS
        assert (rollout.logprobs[i][~rollout.mask[i]] == 0).all()
    assert 0 < rollout.finished.float().mean() < 1  # both kinds of row were seen
    assert rollout.sampled_tokens == rollout.mask.sum()


def test_a_row_cut_off_by_the_limit_is_not_finished():
    certain = chain(6, 2, 3, 4, EOS)
    cut, ended = generate(certain, [[2]], 2, eos=EOS), generate(certain, [[2]], 3, eos=EOS)
    assert cut.tokens.tolist() == [[2, 3, 4]] and cut.finished.tolist() == [False]
    assert ended.tokens.tolist() == [[2, 3, 4, EOS]] and ended.finished.tolist() == [True]


def test_without_an_eos_every_row_runs_to_the_limit():
    rollout = generate(Bigram(torch.zeros(4, 4)), [[2], [2, 3]], 5, eos=None, generator=seeded())
    assert rollout.lengths.tolist() == [6, 7] and rollout.mask.sum() == 10 and not rollout.finished.any()


def test_completions_are_the_sampled_text_without_prompt_end_and_padding():
    """Trap 26: rewards, metrics and samples.txt all read this text. Also trap 19: an answer in the prompt is no answer."""
    task = tasks.load("countdown")
    ids = task.tokenizer.encode
    prompt = ids("<answer>3</answer>Use ")
    rollout = generate(chain(task.tokenizer.n_vocab, *ids("Use 5, "), task.tokenizer.eos), [prompt, prompt[-1:]], 4,
                       eos=task.tokenizer.eos)
    assert rollout.completions(task.tokenizer) == ["5, ", "5, "]
    cut = generate(chain(task.tokenizer.n_vocab, *ids("Use 5, 6")), [prompt], 2, eos=task.tokenizer.eos)
    assert cut.completions(task.tokenizer) == ["5, "]  # nothing is cut off a row that did not end in EOS


def test_ids_are_passed_on_and_text_is_never_encoded_again():
    """Trap 32: the policy writes "1" and then "2", which reads "12" but is scored as the two tokens it chose."""
    tokenizer = tasks.load("countdown").tokenizer
    one, two, twelve, use = (tokenizer.encode(text)[0] for text in ("1", "2", "12", "Use "))
    policy = chain(tokenizer.n_vocab, use, one, two, tokenizer.eos)
    rollout = generate(policy, [[use]], 5, eos=tokenizer.eos)
    assert rollout.completions(tokenizer) == ["12"]
    assert rollout.tokens.tolist() == [[use, one, two, tokenizer.eos]] and twelve not in rollout.tokens
    torch.testing.assert_close(score(policy, rollout.tokens)[0], rollout.logprobs)


def test_collect_puts_the_samples_of_a_problem_next_to_each_other():
    task, policy = tasks.load("countdown", cot="off"), tiny_gpt(tasks.load("countdown").tokenizer.n_vocab, 64)
    rng = random.Random(seed())
    problems = [task.sample_problem(rng) for _ in range(3)]
    rollout = collect(policy, task, problems, SamplingConfig(group_size=4, max_new_tokens=2), seeded())
    assert rollout.problems == [problems[i // 4] for i in range(12)]
    for row, problem, start in zip(rollout.tokens.tolist(), rollout.problems, rollout.prompt_lengths.tolist()):
        assert task.tokenizer.decode(row[:start]) == problem.prompt


# ---- values

def critic(n_kv_head=0):
    """With an opinion: as it begins, its head is 0, and so would be everything it says."""
    model = ScalarModel(tiny_gpt(n_kv_head=n_kv_head))
    torch.nn.init.normal_(model.head.weight, generator=seeded(1))
    torch.nn.init.constant_(model.head.bias, 0.5)
    return model


def test_a_value_has_not_seen_its_token():
    """Trap 17: V(s_t) is about the state before token t. Another token at t, and behind it, changes only what comes after."""
    model, tokens = critic(), torch.randint(12, (3, 9), generator=seeded())
    before = values(model, tokens)
    for t in range(1, 9):
        changed = tokens.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 12
        after = values(model, changed)
        assert torch.equal(after[:, :t + 1], before[:, :t + 1])
        assert t == 8 or (after[:, t + 1] != before[:, t + 1]).all()  # and it has seen everything before


def test_a_value_is_what_the_critic_says_after_the_token_before():
    model, tokens = critic(), torch.randint(12, (3, 9), generator=seeded())
    torch.testing.assert_close(values(model, tokens)[:, 1:], model(tokens)[:, :-1])


def test_the_first_value_is_zero_and_the_others_have_a_gradient():
    """Nothing stands before the first token."""
    model = critic()
    V = values(model, torch.randint(12, (3, 9), generator=seeded()))
    assert V.shape == (3, 9) and V.dtype == torch.float32 and not V[:, 0].any() and V[:, 1:].all()
    V.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch, kv_heads", [(1, 2), (3, 2), (512, 2), (3, 1)])
def test_shared_beginnings_change_no_value(batch, kv_heads, device):
    """Traps 5 and 22: beginnings of mixed lengths, some of them neighbours and some not, endings up to the end of the block."""
    model = critic(n_kv_head=kv_heads).to(device)
    a, b, c = [2, 3, 4], [5] * 20, [6]
    heads = [a, a, a, b, b, c, a, c, c]
    tails = [[7], [8, 9, 10, 11], [7, 8], [3], [4, 5, 6, 7], [2] * 23, [9, 9], [5], [5, 4]]
    found = last_values(model, heads, tails, batch)
    for value, head, tail in zip(found, heads, tails):
        torch.testing.assert_close(value, model(torch.tensor([head + tail], device=device))[0, -1], atol=1e-4, rtol=0)


def test_a_value_sees_the_beginning_that_it_shares_and_nothing_of_earlier_calls():
    model = critic()
    first = last_values(model, [[2, 3]] * 2, [[4], [4, 5]])
    last_values(model, [[9] * 12] * 4, [[8] * 12] * 4)
    assert torch.equal(last_values(model, [[2, 3]] * 2, [[4], [4, 5]]), first)
    assert (last_values(model, [[2, 6]] * 2, [[4], [4, 5]]) != first).all()
    assert last_values(model, [], []).shape == (0,)


# ---- rollouts cut and put together

def test_selected_rows_are_a_rollout_of_their_own():
    rollout = generate(tiny_gpt(), PROMPTS[:4], 6, eos=EOS, generator=seeded())
    rollout.problems = ["a", "b", "c", "d"]
    some = rollout.select(torch.tensor([3, 1]))
    for name, value in vars(rollout).items():
        if torch.is_tensor(value):
            assert torch.equal(getattr(some, name), value[[3, 1]]), name
    assert some.problems == ["d", "b"] and some.sampled_tokens == rollout.mask[[3, 1]].sum()


def test_no_rows_are_a_rollout_too():
    none = generate(tiny_gpt(), PROMPTS[:4], 6, eos=EOS, generator=seeded()).select(torch.tensor([], dtype=torch.int64))
    assert len(none.tokens) == len(none.lengths) == len(none.problems) == 0 and none.sampled_tokens == 0


def test_rollouts_are_joined_in_order_and_padded_to_the_longest():
    """Padding is token 0, log-prob 0 and outside of the mask; what a row says does not change."""
    policy = chain(6, 2, 3, 4, 5, EOS)
    short, long = generate(policy, [[5], [4]], 2, eos=EOS), generate(policy, [[2]], 9, eos=EOS)
    short.problems, long.problems = ["a", "b"], ["c"]
    both = join([short, long])
    assert both.tokens.tolist() == [[5, EOS, 0, 0, 0], [4, 5, EOS, 0, 0], [2, 3, 4, 5, EOS]]
    assert both.mask.sum(1).tolist() == [1, 2, 4] and both.lengths.tolist() == [2, 3, 5]
    assert both.problems == ["a", "b", "c"] and both.prompt_lengths.tolist() == [1] * 3 and both.finished.all()
    assert both.sampled_tokens == short.sampled_tokens + long.sampled_tokens


def test_joining_what_was_selected_gives_the_rollout_back():
    rollout = generate(tiny_gpt(), PROMPTS[:4], 6, eos=EOS, generator=seeded())
    again = join([rollout.select(torch.tensor([0, 1])), rollout.select(torch.tensor([], dtype=torch.int64)),
                  rollout.select(torch.tensor([2, 3]))])
    assert isinstance(again, Rollout)
    assert all(torch.equal(getattr(again, name), value) for name, value in vars(rollout).items() if torch.is_tensor(value))


# ---- stored log-probs

@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_stored_logprobs_equal_recomputed_ones(temperature, device):
    """Traps 6 and 7: the distribution that was sampled from is the one that is trained, and the first ratio is 1."""
    model = tiny_gpt().to(device)
    rollout = generate(model, PROMPTS, 16, temperature, eos=EOS, generator=seeded(device=device))
    again, _ = score(model, rollout.tokens, temperature)
    assert ((again - rollout.logprobs) * rollout.mask).abs().max() < 1e-4
    if temperature != 1:  # and the test would notice another temperature
        assert ((score(model, rollout.tokens)[0] - rollout.logprobs) * rollout.mask).abs().max() > 0.1


def test_the_largest_log_ratio_rings_only_when_something_is_wrong():
    """Trap 7: rounding for the policy's own rollout; loud at another temperature, or for another policy."""
    model = tiny_gpt()
    rollout = generate(model, PROMPTS, 16, 0.7, eos=EOS, generator=seeded())
    assert largest_log_ratio(model, rollout, 0.7) < 1e-4 and largest_log_ratio(model, rollout, 0.7, batch=3) < 1e-4
    assert largest_log_ratio(model, rollout, 1.0, batch=3) == pytest.approx(largest_log_ratio(model, rollout, 1.0), rel=1e-3)
    assert largest_log_ratio(model, rollout, 1.0) > 0.1 and largest_log_ratio(tiny_gpt(seed=1), rollout, 0.7) > 0.1


@pytest.mark.parametrize("evict", [True, False])
def test_stored_logprobs_are_right_up_to_the_end_of_the_block_while_rows_leave(evict):
    """Trap 22, end to end: rows end at different steps, and the longest prompt plus its limit fill the block exactly."""
    model, prompts = tiny_gpt(vocab_size=11), PROMPTS * 4
    limits = [19 - 3 * (i // 4 % 6) for i in range(64)]
    rollout = generate(model, prompts, limits, eos=None, generator=seeded(), evict=evict)
    assert rollout.lengths.tolist() == [len(prompt) + limit for prompt, limit in zip(prompts, limits)]
    assert rollout.tokens.shape[1] == 24
    again, _ = score(model, rollout.tokens)
    assert ((again - rollout.logprobs) * rollout.mask).abs().max() < 1e-4


def test_greedy_takes_the_likeliest_token_and_reports_logprobs_at_temperature_1():
    rollout = generate(Bigram(TABLE), [[0]], 2, temperature=0)
    assert rollout.tokens.tolist() == [[0, 0, 0]]
    assert rollout.logprobs.exp().tolist()[0] == pytest.approx([1, 0.5, 0.5])


def test_low_precision_logprobs_are_near_the_recomputed_ones():
    model = tiny_gpt(scale=4.0)
    model.compute_dtype = torch.bfloat16
    rollout = generate(model, PROMPTS, 16, eos=EOS, generator=seeded())
    again, _ = score(model, rollout.tokens)
    assert ((again - rollout.logprobs) * rollout.mask).abs().max() < 0.25 and rollout.logprobs.dtype == torch.float32


# ---- rows and their neighbours

def test_a_row_alone_equals_the_row_in_the_batch():
    """Trap 5, for the sampler: prompts of four lengths, rows that end early, greedy so that luck plays no part."""
    model = tiny_gpt()
    together = generate(model, PROMPTS[:4], 16, 0.0, eos=EOS)
    for i, prompt in enumerate(PROMPTS[:4]):
        alone = generate(model, [prompt], 16, 0.0, eos=EOS)
        end = int(alone.lengths[0])
        assert end == together.lengths[i] and alone.tokens[0].tolist() == together.tokens[i, :end].tolist()
        torch.testing.assert_close(alone.logprobs[0], together.logprobs[i, :end], atol=1e-4, rtol=0)


def test_rows_that_leave_change_nothing_for_those_that_stay():
    model = tiny_gpt(vocab_size=11)
    prompts = [[2 + i % 9] * (1 + i % 5) for i in range(32)]
    limits = [16 - i // 4 for i in range(32)]  # whoever does not end by itself
    left, stayed = (generate(model, prompts, limits, 0.0, eos=EOS, evict=evict) for evict in (True, False))
    assert torch.equal(left.tokens, stayed.tokens) and torch.equal(left.mask, stayed.mask)
    torch.testing.assert_close(left.logprobs, stayed.logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [50.0, float("nan")])
def test_an_earlier_call_leaves_nothing_behind(scale):
    """The cache is reused. What an earlier model left in it, even one that had diverged, must not be seen."""
    model, earlier = tiny_gpt(n_head=4), tiny_gpt(n_head=4, scale=scale)  # a shape, hence a cache, of their own
    expected = generate(model, PROMPTS[:4], 16, 0.0, eos=EOS)
    generate(earlier, [[3] * 8] * 8, 16)
    again = generate(model, PROMPTS[:4], 16, 0.0, eos=EOS)
    assert torch.equal(expected.tokens, again.tokens)
    torch.testing.assert_close(expected.logprobs, again.logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_of_the_weights_is_seen_by_the_next_call(dtype, device):
    """Trap 29: neither a captured graph nor a low-precision copy of the weights may go stale."""
    model = tiny_gpt().to(device)
    model.compute_dtype = dtype
    for n in range(3):
        rollout = generate(model, PROMPTS, 8, generator=seeded(n, device))
        again, _ = score(model, rollout.tokens)
        assert ((again - rollout.logprobs) * rollout.mask).abs().max() < (1e-4 if dtype == torch.float32 else 1.0)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=seeded(n)).to(device), alpha=0.5)  # a large step, in place


# ---- steps as graphs. Without a GPU a stand-in takes their place: what it replays is the step it was given once, with all it holds

@pytest.fixture(params=DEVICES)
def graphs(request, monkeypatch):
    """Has `device`, and `captured`: how many there were."""
    seen, real = SimpleNamespace(device=request.param, captured=0), buffers.capture

    def capture(step, memory):
        seen.captured += 1
        return real(step, memory) if seen.device == "cuda" else SimpleNamespace(replay=step, pool=lambda: None)

    monkeypatch.setattr(buffers, "CAPTURE", (seen.device,))
    monkeypatch.setattr(buffers, "KEPT", {})
    monkeypatch.setattr(buffers, "capture", capture)
    return seen


def calls(model, device):
    """Calls of many sizes, some of them twice -> what each returns."""
    prompts = [PROMPTS[i % 4] for i in range(70)]
    for rows, limit, temperature, stop in ((70, 19, 1.0, None), (3, 9, 1.0, None), (70, 19, 1.0, 3), (70, 19, 1.0, None),
                                           (33, 12, 0.7, None), (70, 19, 0.0, None), (3, 9, 1.0, None), (33, 12, 1.0, None)):
        yield generate(model, prompts[:rows], limit, temperature, EOS, stop=stop, generator=seeded(rows, device))


def assert_the_same(one, other):
    assert torch.equal(one.tokens, other.tokens) and torch.equal(one.mask, other.mask)
    torch.testing.assert_close(one.logprobs, other.logprobs, atol=0 if one.tokens.device.type == "cpu" else 1e-5, rtol=0)


def test_a_graph_does_what_the_step_does(graphs, monkeypatch):
    """And knows nothing of the call it was captured in: other prompts, limits, temperatures and generators follow."""
    model = tiny_gpt(vocab_size=11, block_size=80).to(graphs.device)
    replayed = [*calls(model, graphs.device), *calls(model, graphs.device)]
    assert graphs.captured >= 6
    monkeypatch.setattr(buffers, "KEPT", {})
    monkeypatch.setattr(buffers.Buffers, "replay", lambda self, key, step: step())
    for one, other in zip(replayed, [*calls(model, graphs.device)] * 2, strict=True):
        assert_the_same(one, other)


def test_sizes_rounded_up_for_graphs_change_no_row(graphs, monkeypatch):
    """Greedy, so that luck plays no part: idle rows and masked keys are computed beside the others, and count for nothing."""
    model = tiny_gpt(vocab_size=11, block_size=80).to(graphs.device)
    greedy = lambda: generate(model, PROMPTS * 3, 70, 0.0, EOS)
    rounded = [greedy() for _ in range(3)]
    monkeypatch.setattr(buffers, "CAPTURE", ())
    monkeypatch.setattr(buffers, "KEPT", {})
    exact = greedy()
    for rollout in rounded:
        assert torch.equal(rollout.tokens, exact.tokens)
        torch.testing.assert_close(rollout.logprobs, exact.logprobs, atol=1e-4, rtol=0)


def test_rows_change_places_with_all_that_is_theirs():
    """Of 6 rows 0, 2 and 5 are done. 3 and 4 move into the free places; no row of tokens is left without its place in the batch."""
    buf = buffers.Buffers(GPTConfig(8, 4, n_layer=1, n_head=1, n_embd=2), 6, 4, torch.device("cpu"), torch.float32)
    row = torch.arange(6)
    for x in (buf.rows, buf.positions, buf.ends, buf.chosen):
        x.copy_(row)
    for x in (*buf.cache.keys, *buf.cache.values):
        x.copy_(row[:, None, None, None])
    buf.done[[0, 2, 5]] = True
    buf.evict((~buf.done).nonzero()[:, 0], 6, 4)
    moved = [3, 1, 4, 0, 2, 5]
    assert all(x.tolist() == moved for x in (buf.rows, buf.positions, buf.ends, buf.chosen))
    assert buf.done.tolist() == [False] * 3 + [True] * 3
    assert all(x[:3, 0, 0, 0].tolist() == [3, 1, 4] for x in (*buf.cache.keys, *buf.cache.values))


def test_rows_that_leave_for_a_smaller_graph_are_still_scored_right(graphs):
    """70 rows are computed as 128, then as 64, then as 32."""
    model = tiny_gpt(vocab_size=11, block_size=80).to(graphs.device)
    limits = [20] * 20 + [40] * 30 + [70] * 20
    rollout = generate(model, PROMPTS * 4 + PROMPTS[:6], limits, eos=None, generator=seeded(0, graphs.device))
    again, _ = score(model, rollout.tokens)
    assert ((again - rollout.logprobs) * rollout.mask).abs().max() < 1e-4
    (buf,) = buffers.KEPT.values()
    assert {rows for _, rows, *_ in buf.graphs} == {128, 64, 32}


def test_neither_graphs_nor_buffers_pile_up(graphs):
    """Trap 29: after the first calls nothing is captured and nothing allocated any more."""
    model = tiny_gpt(vocab_size=11, block_size=80).to(graphs.device)
    for _ in range(3):
        [*calls(model, graphs.device)]
    (buf,), captured = buffers.KEPT.values(), graphs.captured
    for _ in range(3):
        [*calls(model, graphs.device)]
    assert graphs.captured == captured and [*buffers.KEPT.values()] == [buf]
    for key in range(600):  # as many other models
        buf.replay(key, lambda: None)
    assert len(buf.graphs) <= 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_follow_the_weights(graphs, dtype):
    """Trap 29: after an optimizer's step, after loading, and in a copy of the model, which has weights of its own."""
    model = tiny_gpt().to(graphs.device)
    model.compute_dtype, first = dtype, copy.deepcopy(model.state_dict())

    def assert_right(model):
        rollout = generate(model, PROMPTS, 16, eos=EOS, generator=seeded(0, graphs.device))
        again, _ = score(model, rollout.tokens)
        assert ((again - rollout.logprobs) * rollout.mask).abs().max() < (1e-4 if dtype == torch.float32 else 1.0)
        return rollout

    [assert_right(model) for _ in range(3)]
    captured, before = graphs.captured, assert_right(model)
    optimizer = make_optimizer(model, 0.05)
    score(model, before.tokens)[0].sum().backward()
    optimizer.step()
    assert not torch.equal(assert_right(model).logprobs, before.logprobs)
    model.load_state_dict(first)
    assert_the_same(assert_right(model), before)
    assert graphs.captured == captured > 0
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.embed.weight.mul_(0.5)
    [assert_right(twin) for _ in range(3)]
    assert graphs.captured > captured
    assert_the_same(assert_right(model), before)


# ---- limits, stops, a forbidden token, equal prompts

def test_every_row_has_its_own_limit():
    """It is cut there and is not finished; who ends before is."""
    certain = chain(6, 2, 3, 4, 5, EOS)
    rollout = generate(certain, [[2], [2], [2], [4, 3]], [2, 9, 4, 1], eos=EOS)
    assert rollout.tokens.tolist() == [[2, 3, 4, 0, 0], [2, 3, 4, 5, EOS], [2, 3, 4, 5, EOS], [4, 3, 4, 0, 0]]
    assert rollout.lengths.tolist() == [3, 5, 5, 3] and rollout.finished.tolist() == [False, True, True, False]
    assert rollout.mask.sum(1).tolist() == [2, 4, 4, 1] and rollout.sampled_tokens == 11


def test_a_row_without_room_stays_as_it_is():
    for limits in ([0, 2], [0, 0]):
        rollout = generate(chain(6, 2, 3, 4), [[5, 2], [2]], limits, eos=EOS)
        assert rollout.lengths.tolist() == [2, 1 + limits[1]] and rollout.sampled_tokens == limits[1]
        assert rollout.tokens[0].tolist() == [5, 2] + [0] * (rollout.tokens.shape[1] - 2)
        assert not rollout.mask[0].any() and not rollout.logprobs[0].any()


@pytest.mark.parametrize("evict", [True, False])
def test_limits_may_fill_the_block_of_a_long_row_and_of_a_short_one(evict):
    """Trap 22: 20 + 4 and 1 + 23 tokens in a block of 24; neither row may end early or write beyond its end."""
    model, prompts, limits = tiny_gpt(), [[2, 3, 4, 5] * 5, [6], [7, 8, 9]], [4, 23, 5]
    together = generate(model, prompts, limits, 0.0, evict=evict)
    assert together.lengths.tolist() == [24, 24, 8]
    for i in range(3):
        alone = generate(model, prompts[i:i + 1], limits[i], 0.0)
        assert alone.tokens[0].tolist() == together.tokens[i, :len(prompts[i]) + limits[i]].tolist()
    again, _ = score(model, together.tokens)
    assert ((again - together.logprobs) * together.mask).abs().max() < 1e-4


def test_a_limit_beyond_the_block_is_an_error_for_that_row_alone():
    prompts = [[2], [2] * 20]
    assert generate(tiny_gpt(), prompts, [23, 4]).lengths.tolist() == [24, 24]
    with pytest.raises(ValueError, match="block_size 24"):
        generate(tiny_gpt(), prompts, [4, 5])


def test_a_stop_ends_a_row_without_finishing_it():
    """It is sampled, counts, and has a log-prob. A stop in the prompt stops nothing; an end before it is an end."""
    certain = chain(7, 2, 3, 4, 5, 6, EOS)
    rollout = generate(certain, [[2], [4], [4, 2], [5]], 9, eos=EOS, stop=4)
    assert rollout.tokens.tolist() == [[2, 3, 4, 0], [4, 5, 6, EOS], [4, 2, 3, 4], [5, 6, EOS, 0]]
    assert rollout.finished.tolist() == [False, True, False, True] and rollout.sampled_tokens == 2 + 3 + 2 + 2


@pytest.mark.parametrize("evict", [True, False])
def test_nothing_is_written_behind_a_stop(evict):
    """Rows that stop leave the batch, or stay and are left alone; the others are scored as without them."""
    model = tiny_gpt(scale=1.0)  # hardly prefers any token
    rollout = generate(model, PROMPTS * 4, 16, eos=EOS, stop=3, generator=seeded(), evict=evict)
    ends, lengths = [], rollout.lengths.tolist()
    for row, start, end, mask in zip(rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), lengths, rollout.mask):
        assert not {EOS, 3} & set(row[start:end - 1]) and (row[end - 1] in (EOS, 3) or end - start == 16)
        assert not any(row[end:]) and mask.sum() == end - start
        ends.append(row[end - 1])
    assert {EOS, 3} <= set(ends) and len(set(lengths)) > 5
    again, _ = score(model, rollout.tokens)
    assert ((again - rollout.logprobs) * rollout.mask).abs().max() < 1e-4


def test_a_forbidden_token_does_not_come_first_but_may_come_later():
    """After 0 the chances are 1/2, 1/4, 1/4. Without token 0 they are 1/2 for each of the others; that is the log-prob, too."""
    rollout = generate(Bigram(TABLE), [[0]] * 4000, 2, forbid=0, generator=seeded())
    first, second = rollout.tokens[:, 1], rollout.tokens[:, 2]
    assert (first.bincount(minlength=3) / 4000).tolist() == pytest.approx([0, 0.5, 0.5], abs=0.045)
    assert rollout.logprobs[:, 1].exp().tolist() == pytest.approx([0.5] * 4000)
    assert float((second[first == 2] == 0).float().mean()) == pytest.approx(0.2, abs=0.05)
    assert generate(Bigram(TABLE), [[1]], 1, 0.0, forbid=1).tokens.tolist() == [[1, 2]]  # the likeliest of what is left


def test_equal_neighbours_are_read_once(monkeypatch):
    model, read = tiny_gpt(), []
    prefill = model.prefill
    monkeypatch.setattr(model, "prefill", lambda tokens, *args: (read.append(len(tokens)), prefill(tokens, *args))[1])
    a, b = [2, 3, 4], [5, 6]
    rollout = generate(model, [a, a, a, b, b, a], 16, 0.0, eos=EOS)
    assert read == [3]
    for row, prompt in zip(rollout.tokens.tolist(), [a, a, a, b, b, a]):
        alone = generate(model, [prompt], 16, 0.0, eos=EOS).tokens[0].tolist()
        assert row[:len(alone)] == alone and not any(row[len(alone):])


@pytest.mark.parametrize("device", DEVICES)
def test_samples_of_equal_prompts_differ_and_are_scored_right(device):
    """Each copy has keys and values of its own from there on: what one of them writes the others do not see."""
    model = tiny_gpt(scale=2.0).to(device)
    prompts = [p for p in PROMPTS[:4] for _ in range(6)]
    rollout = generate(model, prompts, 14, eos=EOS, generator=seeded(device=device))
    assert len({*map(tuple, rollout.tokens.tolist())}) > 12
    again, _ = score(model, rollout.tokens)
    assert ((again - rollout.logprobs) * rollout.mask).abs().max() < 1e-4
    for row, prompt in zip(rollout.tokens.tolist(), prompts):
        assert row[:len(prompt)] == prompt


# ---- randomness

@pytest.mark.parametrize("temperature, expected", [(1.0, [0.1, 0.6, 0.3]), (0.5, [1 / 46, 36 / 46, 9 / 46])])
def test_tokens_are_drawn_with_their_probabilities(temperature, expected):
    tokens, logprobs = choose(TABLE[1].expand(40_000, 3), temperature, seeded())
    assert (tokens.bincount(minlength=3) / 40_000).tolist() == pytest.approx(expected, abs=0.013)
    assert torch.allclose(logprobs, torch.tensor(expected).log()[tokens], atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_the_generator_decides_and_two_calls_differ(device):
    model = tiny_gpt().to(device)
    first, second = seeded(5, device), seeded(5, device)
    a, b, c = (generate(model, PROMPTS, 16, generator=g).tokens for g in (first, first, second))
    assert torch.equal(a, c) and not torch.equal(a, b)


def test_sampling_with_a_generator_leaves_the_global_random_state_alone():
    model = tiny_gpt()
    state = torch.get_rng_state()
    generate(model, PROMPTS, 4, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


# ---- what cannot be sampled

@pytest.mark.parametrize("prompts", [[], [[2], []]])
def test_empty_prompts_are_an_error(prompts):
    with pytest.raises(ValueError, match="empty|at least one"):
        generate(tiny_gpt(), prompts, 4)


def test_what_does_not_fit_into_the_block_is_an_error():
    with pytest.raises(ValueError, match="block_size 24"):
        generate(tiny_gpt(), [[2], [2] * 9], 16)


def test_log_probs_at_temperature_0_are_those_of_temperature_1():
    """As `generate` stores them: dividing by 0 would give nan."""
    model = tiny_gpt(seed=seed())
    tokens = torch.randint(2, 12, (3, 8))
    assert all(torch.equal(a, b) for a, b in zip(score(model, tokens, 0.0), score(model, tokens, 1.0)))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("limits", [0, 1, 5, [0, 3, 9, 1, 6]], ids=str)
@pytest.mark.parametrize("eos", [EOS, None], ids=["ends", "goes on"])
def test_the_plain_sampler_and_the_fast_one_agree(temperature, limits, eos):
    """Same generator, same numbers: equal tokens, and everything else with them. Prompts of uneven lengths, two of them equal."""
    prompts = [[2, 3], [2, 3], [4, 5, 6, 7, 8], [9], [2, 2, 2]]
    model = tiny_gpt(seed=seed(), scale=3.0)
    if temperature == 1.0:  # end often
        with torch.no_grad():
            model.embed.weight[EOS] += 0.3 * model.embed.weight.norm(dim=1).mean()
    plain, fast = (sampler(model, prompts, limits, temperature, eos=eos, generator=seeded(), **more)
                   for sampler, more in ((generate_plainly, {}), (generate, {"evict": False})))
    for name in ("tokens", "prompt_lengths", "lengths", "mask", "finished"):
        assert torch.equal(getattr(plain, name), getattr(fast, name)), name
    torch.testing.assert_close(plain.logprobs, fast.logprobs, atol=1e-4, rtol=0)


def test_what_was_thrown_away_is_paid_for_together():
    rollout = generate(tiny_gpt(), [[2, 3]], 4, generator=seeded())
    assert join([replace(rollout, discarded=3), rollout, replace(rollout, discarded=5)]).discarded == 8
