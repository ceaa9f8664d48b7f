"""rollouts.jsonl: what it holds is what happened, it changes nothing, and it stays small."""
import json

import pytest
import torch

import train
from grpo import group_advantages
from plumbing import rollouts, start
from plumbing import run as run_room
from plumbing.run import Run
from sample import score
from tasks import Problem, load
from toys import seed, uneven

TINY = {"seed": seed(), "numbers": 2, "max_number": 9, "cot": "off", "n_layer": 1, "n_embd": 32, "n_head": 2, "prompts": 3, "group_size": 4,
        "lr": 0.01, "device": "cpu", "max_new_tokens": 12}
COUNTDOWN, PROBLEM = load("countdown"), Problem("Use 3, 5, 7 to make 22.\n", 22, ("countdown", 3, 5, 7, 22))


@pytest.fixture(autouse=True)
def every_step_learns(monkeypatch):
    monkeypatch.setattr(run_room, "rule_rewards", uneven(run_room.rule_rewards))


def new_run(folder, algo="grpo", **more):
    """A run that has not been trained: what is sampled is noise, and that is enough."""
    folder.mkdir(exist_ok=True)
    (folder / "rollouts.jsonl").unlink(missing_ok=True)
    run = Run(folder, algo, "countdown", start.configure(algo, "countdown", TINY | more))
    run.build()
    return run


def logged(run):
    return [json.loads(line) for line in run.read("rollouts.jsonl").splitlines()]


def state(run):
    """Everything that the next step depends on."""
    return [*run.policy.state_dict().values(), run.generator.get_state(), torch.get_rng_state()], run.rng.getstate(), run.tokens


@pytest.mark.parametrize("algo", ["grpo", "ppo", "dpo", "vineppo"])
def test_a_run_is_bit_by_bit_the_same_with_the_log_and_without(algo, tmp_path):
    after = []
    for groups in (0, 2):
        run = new_run(tmp_path, algo, log_rollouts=groups)
        for _ in range(2):
            train.step(run)
            if groups:
                rollouts.log_look(run)
        after.append(state(run))
    (ours, *rest), (theirs, *others) = after
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs)) and rest == others
    assert len(logged(run)) >= 2 * 2 + 3


def one_step(run):
    """-> the rollout and the rewards of a step, the policy's weights before it, its lines in the file."""
    kept = {}

    def collect(problems, original=run.method.collect):
        kept["rollout"] = original(problems)
        return kept["rollout"]

    run.method.collect, before = collect, {name: w.clone() for name, w in run.policy.state_dict().items()}
    train.step(run)
    return kept["rollout"], run.reward(kept["rollout"])[0], before, logged(run)


def of_tokens(sample, name):
    return torch.tensor(sample[name])


def test_a_line_is_what_was_sampled_and_what_the_step_made_of_it(tmp_path):
    run = new_run(tmp_path, log_rollouts=2)
    rollout, rewards, before, groups = one_step(run)
    advantages = group_advantages(rewards, 4)
    after, _ = score(run.policy, rollout.tokens)
    run.policy.load_state_dict(before)
    logprobs, entropies = score(run.policy, rollout.tokens)
    assert [(g["step"], g["kind"], len(g["samples"]), g["clip"]) for g in groups] == [(1, "train", 4, [0.2, 0.2])] * 3
    for b, sample in enumerate(sample for group in groups for sample in group["samples"]):
        here = rollout.mask[b]
        assert "".join(sample["tokens"]).removesuffix("<|eos|>") == rollout.completions(run.task.tokenizer)[b]
        assert groups[b // 4]["problem"] == rollout.problems[b].prompt and abs(sample["reward"] - float(rewards[b])) < 1e-3
        for name, expected in (("logprobs", logprobs), ("entropies", entropies), ("ref_logprobs", logprobs), ("ratios", (after - logprobs).exp()),
                               ("advantages", advantages[:, None].expand_as(logprobs))):
            assert torch.allclose(of_tokens(sample, name), expected[b][here].detach(), atol=2e-3), name
        for piece, p, likeliest in zip(sample["tokens"], sample["logprobs"], sample["alternatives"]):
            assert dict(likeliest).get(piece, torch.tensor(p).exp()) == pytest.approx(float(torch.tensor(p).exp()), abs=1e-3)
            assert [q for _, q in likeliest] == sorted((q for _, q in likeliest), reverse=True) and len(likeliest) <= 5


def test_a_clipped_token_is_one_that_went_too_far_in_the_direction_it_was_asked_to_go(tmp_path):
    run = new_run(tmp_path, log_rollouts=3, clip_low=0.01, clip_high=0.02)
    groups = one_step(run)[-1]
    cut = 0
    for sample in (sample for group in groups for sample in group["samples"]):
        A, rho = of_tokens(sample, "advantages"), of_tokens(sample, "ratios")
        apart = (rho - 1.02).abs().minimum((rho - 0.99).abs()) > 1e-3  # what is rounded may lie on either side
        expected = ((A > 0) & (rho > 1.02)) | ((A < 0) & (rho < 0.99))
        seen = torch.zeros_like(expected)
        seen[sample["clipped"]] = True
        assert torch.equal(seen[apart], expected[apart])
        cut += len(sample["clipped"])
    assert cut > 0


@pytest.mark.parametrize("algo, more", [("grpo", {"dtype": "bfloat16"}), ("offpolicy", {"sampler_dtype": "bfloat16", "mismatch": "tis"})])
def test_where_nothing_has_moved_no_ratio_has_left_1_also_where_sampling_was_rounded(tmp_path, algo, more):
    """The update compares with log-probs of its own there, and so does the log."""
    for sample in (s for group in one_step(new_run(tmp_path, algo, log_rollouts=3, lr=0.0, **more))[-1] for s in group["samples"]):
        assert set(sample["ratios"]) == {1.0} and not sample["clipped"]


def test_gspo_compares_whole_completions(tmp_path):
    for sample in one_step(new_run(tmp_path, "gspo"))[-1][0]["samples"]:
        assert len(set(sample["ratios"])) == 1


@pytest.mark.parametrize("algo, own", [("ppo", {"values", "ref_logprobs", "advantages"}), ("vineppo", {"advantages"}), ("dpo", {"ref_logprobs", "advantages"}),
                                       ("star", {"advantages"}), ("dapo", {"ref_logprobs", "advantages"})])
def test_each_algorithm_leaves_what_it_has(algo, own, tmp_path):
    run = new_run(tmp_path, algo, log_rollouts=1, **({"critic_warmup": 0} if algo == "ppo" else {}))
    groups = one_step(run)[-1]
    names = {"values", "ref_logprobs", "advantages"} & groups[0]["samples"][0].keys()
    assert names == own and all(len(sample[name]) == len(sample["tokens"]) for g in groups for sample in g["samples"] for name in own)


def test_dpos_advantage_is_that_of_its_pair(tmp_path):
    """A pair pulls with +a and -a; at the reference, where the margin is 0, a = beta / 2. A sample without a partner: 0."""
    groups = one_step(new_run(tmp_path, "dpo", log_rollouts=1, mini_batches=1, beta=0.2))[-1]
    pulls = sorted(sample["advantages"][0] for sample in groups[0]["samples"])
    assert pulls[0] == pytest.approx(-0.1, abs=1e-3) and pulls[-1] == pytest.approx(0.1, abs=1e-3) and sum(pulls) == pytest.approx(0, abs=1e-3)


def test_ppo_has_a_critic_and_as_many_samples_as_the_others(tmp_path):
    run = new_run(tmp_path, "ppo", log_rollouts=1, group_size=1, prompts=12)
    groups = one_step(run)[-1]
    assert [len(group["samples"]) for group in groups] == [1] * 8


def test_a_look_sees_the_same_problems_and_is_written_once(tmp_path):
    run = new_run(tmp_path)
    rollouts.log_look(run)
    rollouts.log_look(run)
    first = logged(run)
    run.step = 5
    rollouts.log_look(run)
    later = logged(run)[len(first):]
    assert [(g["step"], g["kind"]) for g in first] == [(0, "val")] * 3 and [g["step"] for g in later] == [5] * 3
    assert [g["samples"] for g in later] == [g["samples"] for g in first]  # nothing was trained: the same random numbers, the same samples
    assert "advantages" not in first[0]["samples"][0] and "entropies" in first[0]["samples"][0]


# ---- the truth of steps

def truths(text, task=COUNTDOWN, problem=PROBLEM):
    pieces = [task.tokenizer.decode([token]) for token in task.tokenizer.encode(text)]
    return [truth for _, *truth in rollouts.step_truths(task, problem, pieces)]


@pytest.mark.parametrize("thoughts, expected", [
    ("5 * 3 = 15, 15 + 7 = 22, found\n", [[True, True], [True, True], [True, None]]),
    ("7 + 5 = 12, 12 + 3 = 15, failed\n", [[True, False], [True, False], [True, None]]),     # true, but from 12 and 3 nothing leads to 22
    ("7 + 5 = 13, 13 + 3 = 16, failed\n", [[False, False], [None, False], [True, None]]),    # what follows from a false step: nobody knows
    ("5 * 3 = 15, 15 + 7 = 22, failed\n", [[True, True], [True, True], [False, None]]),      # the mark is false
    ("7 + 5 = 13, failed\n5 * 3 = 15, ", [[False, False], [True, None], [True, True]]),      # an attempt begins anew
])
def test_the_truth_of_a_countdown_step(thoughts, expected):
    assert truths(f"<think>{thoughts}</think><answer>(5 * 3) + 7</answer>") == expected


def test_the_truth_of_a_chain():
    task = load("iterated_squaring")
    problem = Problem("Square 5, 3 times mod 983.\n", "374", task.key(5, 3))
    assert truths("<think>25, 625, 374, </think><answer>374</answer>", task, problem) == [[True, True]] * 3
    assert truths("<think>25, 624, 374, </think><answer>374</answer>", task, problem) == [[True, True], [False, False], [None, False]]
    assert truths("<think>25, .\n625, ", task, problem) == [[True, True], [False, False]]  # whatever a weak model writes: it has no marks


# ---- the file

def test_the_file_is_bounded_and_keeps_its_ends_apart(tmp_path, monkeypatch):
    run = new_run(tmp_path)
    rollouts.log_look(run)
    monkeypatch.setattr(rollouts, "LARGEST", 4 * (run.folder / "rollouts.jsonl").stat().st_size)
    for run.step in range(1, 10):
        rollouts.log_look(run)
        assert (run.folder / "rollouts.jsonl").stat().st_size <= rollouts.LARGEST
    steps = sorted({g["step"] for g in logged(run)})
    assert steps[0] == 0 and steps[-1] >= 8 and len(steps) > 1


def test_what_lies_beyond_the_checkpoint_is_cut_off(tmp_path):
    run = new_run(tmp_path)
    lines = ['{"step": %d, "kind": "train", "problem": ""}\n' % step for step in range(1, 5)]
    run.write("rollouts.jsonl", "".join(lines) + '{"step": 5, "ki')
    run.step = 2
    rollouts.cut_back(run)
    assert run.read("rollouts.jsonl") == "".join(lines[:2])
