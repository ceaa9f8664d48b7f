"""On-policy distillation: what the mean of A_t grad log pi is, by enumeration, and where it is biased."""
import itertools

import pytest
import torch

import checkpoint
import tasks
from config import InputError
from methods.distill import Distill, DistillConfig
from model import GPT, GPTConfig
from sample import score
from toys import Bigram, seeded, written

P, T = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])


@pytest.fixture
def make(monkeypatch):
    """A student and its teacher, both written down; one step, which is not taken."""
    def build(policy, teacher, **settings):
        monkeypatch.setattr("methods.distill.load_teacher", lambda path, task, policy: teacher)
        defaults = {"teacher": "somewhere", "mini_batches": 1, "micro_batch": 1000, "max_grad_norm": 1e9}
        algorithm = Distill(policy, None, DistillConfig(**(defaults | settings)), seeded())
        algorithm.optimizer.step = lambda **_: 0.0
        return algorithm
    return build


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


def test_a_student_like_its_teacher_has_nothing_to_learn(make):
    policy = Bigram(P.log().expand(3, 3).clone())
    metrics = make(policy, Bigram(P.log().expand(3, 3).clone())).update(written(policy, [[0, 1, 2], [0, 0]]), None)
    assert metrics["teacher_kl"] == 0 and not policy.table.grad.any()


def test_the_mean_gradient_of_one_choice_is_that_of_the_kl(make):
    """Without any luck: four rows of one token that come as often as they pull. Token 0 is twice too likely, token 2 half as likely."""
    policy = Bigram(P.log().expand(3, 3).clone())
    metrics = make(policy, Bigram(T.log().expand(3, 3))).update(written(policy, [[0, 0], [0, 0], [0, 1], [0, 2]]), None)
    logits = P.log().clone().requires_grad_()
    exact, = torch.autograd.grad(kl(logits.softmax(0), T), logits)
    torch.testing.assert_close(policy.table.grad[0], exact)
    assert metrics["teacher_kl"] == pytest.approx(float(kl(P, T)), abs=1e-6)


def both_choices(make, divergence):
    """All completions of two tokens, each as often as it comes out of 16 -> the mean gradient, and those of the KL of completions
    and of its choices by themselves. Teacher and student part after a 0."""
    student = torch.stack([torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])])
    teacher = torch.stack([torch.tensor([0.25, 0.75]), torch.tensor([0.75, 0.25])])
    writes = teacher if divergence == "forward" else student
    rows = [[0, a, b] for a, b in itertools.product((0, 1), repeat=2) for _ in range(round(16 * float(writes[0, a] * writes[a, b])))]
    policy = Bigram(student.log().clone())
    algorithm = make(policy, Bigram(teacher.log()), divergence=divergence)
    algorithm.update(written(algorithm.behavior, rows), None)
    table = student.log().clone().requires_grad_()
    pi = table.softmax(-1)
    whole, parts = 0.0, 0.0
    for a, b in itertools.product((0, 1), repeat=2):
        p, q = pi[0, a] * pi[a, b], teacher[0, a] * teacher[a, b]
        whole = whole + (q * (q / p).log() if divergence == "forward" else p * (p / q).log())
    for state, weight in ((0, 1.0), *enumerate(student[0].tolist())):
        parts = parts + weight * kl(pi[state], teacher[state])
    of = lambda value: torch.autograd.grad(value, table, retain_graph=True)[0]
    return 2 * policy.table.grad, of(whole), of(parts)  # the loss is a mean over two tokens a row


def test_a_token_does_not_pay_for_where_it_leads(make):
    """The known bias: the gradient of the KL of each choice, in the states that the student comes to, as if these were given."""
    found, whole, parts = both_choices(make, "reverse")
    torch.testing.assert_close(found, parts)
    assert not torch.allclose(found, whole, atol=1e-2)


def test_imitating_the_teacher_has_the_exact_gradient_of_the_forward_kl(make):
    found, whole, _ = both_choices(make, "forward")
    torch.testing.assert_close(found, whole)


def test_who_writes(make):
    policy, teacher = Bigram(torch.zeros(3, 3)), Bigram(torch.zeros(3, 3))
    assert make(policy, teacher).behavior is policy and make(policy, teacher, divergence="forward").behavior is teacher


def test_without_a_teacher_it_says_how_to_name_one():
    with pytest.raises(InputError, match="--teacher RUN"):
        Distill(Bigram(torch.zeros(3, 3)), None, DistillConfig())


def test_the_teacher_is_read_from_its_run_and_not_trained(tmp_path):
    task = tasks.load("countdown", numbers=2, max_number=12, cot="off", max_target=25)
    teacher, policy = (GPT(GPTConfig(task.tokenizer.n_vocab, 32, n_layer=1, n_head=2, n_embd=32)) for _ in "12")
    checkpoint.save(tmp_path / "teacher.pt", teacher, task, {"algo": "grpo", "task": "countdown"})
    algorithm = Distill(policy, task, DistillConfig(teacher=str(tmp_path / "teacher.pt"), max_new_tokens=8))
    rollout = written(policy, [[2, 3, 4], [5, 6]])
    algorithm.update(rollout, None)
    torch.testing.assert_close(score(algorithm.teacher, rollout.tokens)[0], score(teacher, rollout.tokens)[0].detach())
    assert not any(p.requires_grad for p in algorithm.teacher.parameters())
