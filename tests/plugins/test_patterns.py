"""Delay patterns of multi-codebook audio tokens."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from mmalign_audio.patterns import code_log_probs, codebook_cross_entropy, delay_codes, frame_log_probs

CODES = torch.tensor([[0, 3, 1], [2, 3, 1]])
DELAYS = [0, 2]


def make_logits(seed: int = 0, places: int = 6) -> torch.Tensor:
    return torch.randn(2, places, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_delayed_sequence_by_hand() -> None:
    assert delay_codes(CODES, DELAYS, special=9).tolist() == [[9, 0, 3, 1, 9, 9], [9, 9, 9, 2, 3, 1]]


def test_every_code_is_predicted_one_place_before_its_own() -> None:
    """Logits that are sure of the next input code, wherever one follows, give every code a log-prob near 0."""
    sequence = delay_codes(CODES, DELAYS, special=4)
    following = torch.cat([sequence[:, 1:], torch.full((2, 1), 4)], dim=1)
    logits = 100 * torch.nn.functional.one_hot(following, 5).double()
    assert code_log_probs(logits, CODES, DELAYS).abs().max() < 1e-12


def test_log_probs_agree_with_a_longhand_reference() -> None:
    logits = make_logits()
    logps = code_log_probs(logits, CODES, DELAYS)
    for book in range(2):
        for frame in range(3):
            row = logits[book, frame + DELAYS[book]].tolist()
            expected = row[CODES[book, frame]] - math.log(sum(map(math.exp, row)))
            assert logps[book, frame].item() == pytest.approx(expected, rel=1e-12)


def test_one_codebook_without_delay_is_plain_text() -> None:
    logits = make_logits(places=4)[:1]
    expected = logits[0, :3].log_softmax(dim=-1)[torch.arange(3), CODES[0]]
    assert torch.equal(code_log_probs(logits, CODES[:1], [0])[0], expected)


def test_a_constant_on_one_head_changes_nothing() -> None:
    logits = make_logits()
    shifted = logits + torch.tensor([0.0, 5.0])[:, None, None]
    assert torch.allclose(code_log_probs(shifted, CODES, DELAYS), code_log_probs(logits, CODES, DELAYS), rtol=1e-12)


def test_logits_before_the_delay_and_after_the_last_code_have_no_gradient() -> None:
    logits = make_logits().requires_grad_()
    code_log_probs(logits, CODES, DELAYS).sum().backward()
    assert logits.grad is not None
    assert (logits.grad != 0).any(dim=-1).tolist() == [[True] * 3 + [False] * 3, [False] * 2 + [True] * 3 + [False]]


def test_leading_axes_are_batches() -> None:
    codes, logits = torch.stack([CODES, CODES.flip(1)]), torch.stack([make_logits(1), make_logits(2)])
    together = code_log_probs(logits, codes, DELAYS)
    apart = [code_log_probs(*one, DELAYS) for one in zip(logits, codes, strict=True)]
    assert torch.equal(together, torch.stack(apart))
    assert torch.equal(delay_codes(codes, DELAYS, 9)[0], delay_codes(CODES, DELAYS, 9))


def test_half_precision_logits_give_float32_log_probs() -> None:
    assert code_log_probs(make_logits().bfloat16(), CODES, DELAYS).dtype == torch.float32


def test_sums_over_frames_and_books_are_the_whole() -> None:
    logps = code_log_probs(make_logits(), CODES, DELAYS)
    frames = frame_log_probs(logps)
    assert frames.shape == (3,)
    assert frames.sum().item() == pytest.approx(logps.sum().item(), rel=1e-12)


def test_training_loss_is_minus_the_mean_log_prob_only_where_all_codes_are_valid() -> None:
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -6.0, math.nan]], dtype=torch.float64)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    assert codebook_cross_entropy(logps, valid).item() == pytest.approx((2 + 5) / 2, rel=1e-15)
    full = logps.nan_to_num(-5.0)
    everything = torch.ones_like(valid)
    assert codebook_cross_entropy(full, everything).item() == pytest.approx(-full.mean().item(), rel=1e-15)


@pytest.mark.parametrize("delays", [[0], [0, -1]])
def test_delays_must_be_one_for_every_codebook(delays: list[int]) -> None:
    with pytest.raises(ValueError, match="delays: expected 2 frames of at least 0"):
        delay_codes(CODES, delays, special=9)


def test_logits_must_reach_to_the_last_delayed_code() -> None:
    with pytest.raises(ValueError, match=r"logits: expected the shape \(2, 6, 'codes'\), got \(2, 5, 4\)"):
        code_log_probs(make_logits(places=5), CODES, DELAYS)


def test_the_package_is_listed_without_torch() -> None:
    code = "import sys, mmalign_audio as a; a.register_conformance(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
