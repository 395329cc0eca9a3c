"""Distillation from aligned teachers: DCKD and ADPA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import Anchor
from mmalign.toolkits.tokens.decoders import Decoder, DecoderOutput
from mmalign.toolkits.tokens.logps import score_steps
from mmalign_objectives.distillation.adpa import adpa_loss, dckd_loss
from mmalign_objectives.supervised.sft import sft_loss

LOGPS = torch.tensor([-1.0, -0.5, -2.0], dtype=torch.float64)
ALIGNED = torch.tensor([-1.5, -3.0, -0.25], dtype=torch.float64)
UNALIGNED = torch.tensor([-2.5, -1.0, -0.25], dtype=torch.float64)


class Identity(Decoder):
    """States are logits."""

    def run(self, inputs: object, *, use_cache: bool = False) -> DecoderOutput:
        raise NotImplementedError

    def logits(self, states: Tensor) -> Tensor:
        return states

    def head_weights(self) -> tuple[Tensor, ...]:
        return ()

    plain_logits = logits


EXPECTED = ForwardPlan.of(dpo_teacher=["expected_logps"], reference_teacher=["expected_logps"])


def compare(student: Tensor, teachers: dict[str, Tensor], plan: ForwardPlan) -> dict[str, Tensor]:
    """What the scoring pass says of logits [S, V]."""
    anchors = {name: Anchor(logits, lambda value: value) for name, logits in teachers.items()}
    targets = torch.zeros(len(student), dtype=torch.long)
    return score_steps(Identity(torch.nn.Identity()), student, targets, plan, temperature=1.0, chunk=4, anchors=anchors)


def logits(seed: int) -> Tensor:
    return torch.randn(6, 11, generator=torch.Generator().manual_seed(seed))


def test_dckd_by_hand() -> None:
    """Likelihood 1, KLs 0.5 and 0.25, weight 2: 1 + 2 * 0.75 = 2.5."""
    one = torch.ones(1, dtype=torch.float64)
    losses, metrics = dckd_loss(-one, one / 2, one / 4, kl_weight=2.0)
    assert losses.tolist() == [2.5]
    assert metrics["nll"].tolist() == [1.0]


def test_dckd_agrees_with_a_longhand_reference() -> None:
    chosen, rejected = ALIGNED.abs(), UNALIGNED.abs()
    losses, _ = dckd_loss(LOGPS, chosen, rejected, kl_weight=0.7)
    expected = [-p + 0.7 * c + 0.7 * r for p, c, r in zip(*map(Tensor.tolist, (LOGPS, chosen, rejected)), strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-14)


def test_a_student_that_is_the_teacher_has_no_kl() -> None:
    """So that DCKD is supervised fine-tuning there, and the KL has no gradient."""
    student = logits(0).requires_grad_()
    kl = compare(student, {"teacher": logits(0)}, ForwardPlan.of(teacher=["forward_kl"]))["teacher_forward_kl"]
    (gradient,) = torch.autograd.grad(kl.sum(), student)
    assert kl.abs().max() < 1e-6 and gradient.abs().max() < 1e-6
    losses, _ = dckd_loss(LOGPS, torch.zeros_like(LOGPS), torch.zeros_like(LOGPS), kl_weight=3.0)
    assert torch.equal(losses, -LOGPS)


def test_adpa_by_hand() -> None:
    """Likelihood 1, log-ratio 1, beta 0.1, gamma 2: 1 - 2 * 0.1 = 0.8."""
    losses, metrics = adpa_loss(LOGPS, ALIGNED, UNALIGNED, beta=0.1, gamma=2.0)
    assert losses[0].item() == pytest.approx(0.8, rel=1e-15)
    assert metrics["advantages"].tolist() == pytest.approx([0.1, -0.2, 0.0], abs=1e-15)


def test_adpa_without_advantages_is_supervised_fine_tuning() -> None:
    losses, _ = adpa_loss(LOGPS, ALIGNED, ALIGNED, beta=0.1, gamma=2.0)
    assert torch.equal(losses, sft_loss(LOGPS[:, None])[0][:, 0])


def test_expected_advantage_of_the_aligned_teacher_itself_is_beta_times_a_kl() -> None:
    teachers = {"dpo_teacher": logits(1), "reference_teacher": logits(2)}
    plan = ForwardPlan.of(dpo_teacher=["expected_logps"], reference_teacher=["expected_logps", "reverse_kl"])
    outputs = compare(logits(1), teachers, plan)
    names = ("dpo_teacher_expected_logps", "reference_teacher_expected_logps", "reference_teacher_reverse_kl")
    aligned, unaligned, kl = (outputs[name] for name in names)
    _, metrics = adpa_loss(torch.zeros(6), aligned, unaligned, beta=0.3, gamma=1.0)
    torch.testing.assert_close(metrics["advantages"], 0.3 * kl)
    assert (metrics["advantages"] > 0).all()


def test_expected_advantage_and_its_gradient_are_those_of_the_whole_vocabulary() -> None:
    teachers = {"dpo_teacher": logits(1), "reference_teacher": logits(2)}
    student = logits(3).requires_grad_()
    aligned, unaligned = compare(student, teachers, EXPECTED).values()
    losses, _ = adpa_loss(torch.zeros(6), aligned, unaligned, beta=0.3, gamma=2.0)
    advantages = 0.3 * (logits(1).log_softmax(-1) - logits(2).log_softmax(-1))
    expected = -2.0 * (student.softmax(-1) * advantages).sum(-1)
    torch.testing.assert_close(losses, expected)
    (ours,), (theirs,) = (torch.autograd.grad(value.sum(), student) for value in (losses, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_adpa_moves_the_student_to_what_the_aligned_teacher_has_raised() -> None:
    teachers = {"dpo_teacher": torch.tensor([[1.0, 0.0]]), "reference_teacher": torch.zeros(1, 2)}
    student = torch.zeros(1, 2, requires_grad=True)
    aligned, unaligned = compare(student, teachers, EXPECTED).values()
    losses, _ = adpa_loss(torch.zeros(1), aligned, unaligned, beta=1.0, gamma=1.0)
    (gradient,) = torch.autograd.grad(losses.sum(), student)
    assert gradient[0, 0] < 0 < gradient[0, 1]
