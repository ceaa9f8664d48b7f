"""DAgger: what of its own attempts the policy is shown again, what the teacher writes behind them, and that this alone is imitated."""
from types import SimpleNamespace

import pytest
import torch

import tasks
from config import InputError
from methods.dagger import DAgger, DAggerConfig, own_attempts
from pretend_gpu import PretendGPU
from sft import sft_step
from toys import seeded, tiny_gpt, written

TASK = tasks.load("countdown", attempts=2)
PROBLEM = TASK.problem((3, 5, 7), 22)
ENCODE, EOS = TASK.tokenizer.encode, TASK.tokenizer.eos
ONE, TWO, THREE = "7 - 5 = 2, 3 * 2 = 6, failed\n", "7 + 5 = 12, 12 + 3 = 15, failed\n", "5 - 3 = 2, 7 * 2 = 14, failed\n"
FOUND, ANSWER = "5 * 3 = 15, 15 + 7 = 22, found\n", "</think><answer>(5 * 3) + 7</answer>"


def make(task=TASK, **settings):
    policy = tiny_gpt(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens)
    return DAgger(policy, task, DAggerConfig(**({"max_grad_norm": 1e9, "micro_batch": 64} | settings)), seeded())


def wrote(method, *texts):
    prompt = ENCODE(PROBLEM.prompt)
    rollout = written(method.policy, [prompt + ENCODE(text) + [EOS] for text in texts], len(prompt))
    rollout.problems = [PROBLEM] * len(texts)
    return rollout


def parts(method, rollout):
    """The rows that are imitated -> [(what stands before the mask, what is under it)], texts."""
    tokens, mask, _ = method.corrected(rollout)
    assert not (mask & (tokens == method.task.tokenizer.pad)).any()
    for row, m in zip(tokens, mask):  # the end is learned too (trap 3)
        assert row[m][-1] == EOS and row[m].tolist().count(EOS) == 1
    decode = lambda ids: method.task.tokenizer.decode([i for i in ids if i not in (EOS, method.task.tokenizer.pad)])
    return [(decode(row[~m].tolist()), decode(row[m].tolist())) for row, m in zip(tokens, mask)]


@pytest.mark.parametrize("text, kept", [
    (ONE + TWO + FOUND + ANSWER, [ONE, TWO]),                                       # up to what it found
    (ONE + "7 + 5 = 12, 12 + 3 = 16, failed\n" + TWO, [ONE]),                       # false arithmetic
    (ONE + "7 + 7 = 14, 14 + 3 = 17, failed\n" + TWO, [ONE]),                       # a number that is not given twice
    (TWO.replace("failed", "found") + ONE + ANSWER, [TWO]),                         # a false mark: the true one, and no further
    (ONE + FOUND.replace("found", "failed") + TWO, [ONE]),                          # the other false mark
    (ONE + "7 + 5 = 12, failed\n", [ONE]), (ONE + "7 + 5 = 12, 12 + 3", [ONE]),     # half an attempt; cut off
    (FOUND + ANSWER, []), ("</think><answer>3</answer>", []), ("", []), ("failed\n", []),
    (ONE + TWO + THREE, [ONE, TWO, THREE]),
], ids=range(12))
def test_what_a_teacher_might_have_written_is_kept(text, kept):
    assert own_attempts(TASK, PROBLEM, "<think>" + text) == kept
    assert own_attempts(TASK, PROBLEM, text) == kept  # a policy may forget the word


def test_only_what_the_teacher_writes_is_imitated():
    """Before the mask: the prompt and the policy's own attempts, but for the last token, the mark or the word that begins; under it a
    solution of the teacher's, and its answer."""
    method, seen = make(), set()
    for before, under in parts(method, wrote(method, *["<think>" + ONE + TWO + FOUND + ANSWER] * 60)):
        begun, own = before.removeprefix(PROBLEM.prompt), under.partition("found\n")
        seen.add(begun)
        mark = "<think>" if not begun else "failed\n"
        assert under.startswith(mark) and own[1] and TASK.verify(PROBLEM, f"<think>{under}")
        assert TASK.check_attempt(PROBLEM, own[0].removeprefix(mark).removesuffix(", ")) == 22
    assert seen == {"", "<think>" + ONE.removesuffix("failed\n"), "<think>" + (ONE + TWO).removesuffix("failed\n")}  # cut at any place


@pytest.mark.parametrize("keep, most", [(100, 2), (1, 1), (0, 0)])
def test_no_more_is_kept_than_there_is_room_for_or_was_asked_for(keep, most):
    """--attempts 2 leaves room for three, and the last one is the teacher's."""
    method = make(keep=keep)
    rows = parts(method, wrote(method, *["<think>" + ONE + TWO + THREE] * 40))
    found = {before.count("failed\n") + under.startswith("failed\n") for before, under in rows}
    assert found == set(range(most + 1))


def test_what_only_reads_like_an_attempt_is_not_kept():
    """Trap 32: a 1 and a 2 read like a 12, and the policy was in another state."""
    method = make()
    rollout = wrote(method, *["<think>" + ONE + TWO] * 20)
    one, two, twelve = (ENCODE(number)[0] for number in ("1", "2", "12"))
    rows = []
    for row, length in zip(rollout.tokens.tolist(), rollout.lengths.tolist()):
        place = row.index(twelve)
        rows.append(row[:place] + [one, two] + row[place + 1:length])
    split = written(method.policy, rows, int(rollout.prompt_lengths[0]))
    split.problems = rollout.problems
    assert split.completions(TASK.tokenizer) == rollout.completions(TASK.tokenizer)
    assert {before for before, _ in parts(method, split)} == {PROBLEM.prompt}


def test_the_update_is_a_step_of_imitation(monkeypatch):
    method = make()
    rollout = wrote(method, "<think>" + ONE + FOUND + ANSWER, "<think>" + FOUND + ANSWER, "")
    tokens, mask, attempts = method.corrected(rollout)
    monkeypatch.setattr(method, "corrected", lambda _: (tokens, mask, attempts))
    method.optimizer.step = lambda **_: 0.0
    metrics = method.update(rollout, torch.zeros(3))
    twin = make().policy
    loss, _ = sft_step(twin, SimpleNamespace(zero_grad=lambda: None, step=lambda *_: 0.0), tokens, mask, micro_batch=2)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5) and metrics["updates"] == 1
    for a, b in zip(method.policy.parameters(), twin.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_the_teacher_is_sure_whatever_the_task_says():
    weak = tasks.load("countdown", attempts=3, expert_share=0.0, cheat_share=1.0)
    method = make(weak)
    assert all(weak.verify(PROBLEM, f"<think>{under}") for _, under in parts(method, wrote(method, *[""] * 20)))


def test_it_also_teaches_stream_of_search():
    task = tasks.load("stream_of_search")
    method = make(task)
    full = tasks.load("stream_of_search", attempts=10)  # as many as there is room for
    teacher, other = make(full), full.parse_problem("Use 1, 2, 3, 4 to make 10.\n")
    prompt, attempt = full.tokenizer.encode(other.prompt), "4 - 3 = 1, 2 - 1 = 1, 1 - 1 = 0, failed\n"
    rollout = written(teacher.policy, [prompt + full.tokenizer.encode("<think>" + 10 * attempt)] * 40, len(prompt))
    rollout.problems = [other] * 40
    assert teacher.corrected(rollout)[0].shape[1] <= teacher.policy.config.block_size
    problems = [task.parse_problem(prompt) for prompt in ("Use 10, 20, 30, 40 to make 100.\n", "Use 2, 3, 4, 5 to make 14.\n")]
    rollout = method.collect(problems)
    tokens, mask, _ = method.corrected(rollout)
    hopeless = task.parse_problem("Use 1, 1, 1, 1 to make 100.\n")
    _, nothing, _ = method.corrected(method.collect([hopeless]))
    assert not nothing.any()  # the teacher has no solution: it does not teach to give up
    for problem, row, length in zip(problems, tokens.tolist(), mask.sum(1).tolist()):
        text = task.tokenizer.decode([i for i in row if i not in (task.tokenizer.eos, task.tokenizer.pad)]).removeprefix(problem.prompt)
        assert task.verify(problem, text) and length > 20


def test_on_a_gpu_a_step_mixes_no_devices():
    with PretendGPU() as gpu:
        policy = tiny_gpt(TASK.tokenizer.n_vocab, TASK.max_prompt_tokens + TASK.max_new_tokens).to("cuda")
        method = DAgger(policy, TASK, DAggerConfig(), torch.Generator("cuda"))
        assert method.update(method.collect([PROBLEM] * 4), torch.zeros(4))["updates"] == 1
    assert not gpu.errors, gpu.errors


@pytest.mark.parametrize("name, options", [("modular_addition", {}), ("countdown", {"cot": "off"})])
def test_without_attempts_there_is_nothing_to_go_on_with(name, options):
    with pytest.raises(InputError, match="--algo dagger"):
        make(tasks.load(name, **options))
