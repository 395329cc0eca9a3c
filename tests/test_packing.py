"""Packed rows: what is where, and attention that never leaves its block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmalign import packing
from mmalign.packing import pack, packed_attention

HEADS, SIZE = 2, 8


def example() -> packing.PackedRow:
    prompts = [torch.tensor(ids) for ids in ([1, 2], [7], [1, 2])]
    return pack(prompts, [torch.tensor(ids) for ids in ([3], [8, 9], [4, 5])])


def test_equal_prompts_are_in_the_row_once_and_positions_go_on_from_them() -> None:
    row = example()
    assert row.ids.tolist() == [1, 2, 3, 4, 5, 7, 8, 9]
    assert row.positions.tolist() == [0, 1, 2, 2, 3, 0, 1, 2]
    assert row.layout.owner.tolist() == [0, 1, 0]
    assert row.prompt_ends.tolist() == [1, 5, 1]
    assert row.starts.tolist() == [2, 6, 3]


def test_a_response_sees_its_prompt_and_its_own_past() -> None:
    mask = example().layout.mask[:, 0].int().tolist()  # [N, R, P + R]
    assert mask[0][0] == [1, 1, 1, 0]
    assert mask[1] == [[1, 0, 1, 0], [1, 0, 1, 1]]
    assert mask[2] == [[1, 1, 1, 0], [1, 1, 1, 1]]


def attend(dtype: torch.dtype, *, requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    row = example()
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, len(row.ids), SIZE, generator=generator).to(dtype).requires_grad_(requires_grad)
        for heads in (HEADS, 1, 1)
    )
    attended, _ = packed_attention(nn.Identity(), query, key, value, None, layout=row.layout, scaling=0.3)
    return attended, query, value


def longhand(query: Tensor, key: Tensor, value: Tensor, seen: list[int], at: int) -> Tensor:
    scores = torch.stack([(query[0, :, at] * key[0, 0, other]).sum(-1) for other in seen], dim=-1) * 0.3  # [H, seen]
    return scores.softmax(dim=-1) @ value[0, 0, seen]


# Position in the row and what it sees, by hand from the ids above.
SEEN = {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 3], 4: [0, 1, 3, 4], 5: [5], 6: [5, 6], 7: [5, 6, 7]}


def test_attention_equals_the_longhand_sum() -> None:
    row = example()
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 8, SIZE, generator=generator) for heads in (HEADS, 1, 1))
    attended, _ = packed_attention(nn.Identity(), query, key, value, None, layout=row.layout, scaling=0.3)
    assert attended.shape == (1, 8, HEADS, SIZE)
    for at, seen in SEEN.items():
        torch.testing.assert_close(attended[0, at], longhand(query, key, value, seen, at), rtol=1e-5, atol=1e-6)


def test_plain_products_equal_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, query, value = attend(torch.bfloat16, requires_grad=True)
    plain.float().square().sum().backward()
    gradients = [query.grad, value.grad]
    monkeypatch.setattr(packing, "SMALL", 0)
    fused, query, value = attend(torch.bfloat16, requires_grad=True)
    fused.float().square().sum().backward()
    torch.testing.assert_close(plain, fused, rtol=0.02, atol=0.02)
    for got, expected in zip(gradients, [query.grad, value.grad], strict=True):
        assert got is not None and expected is not None and got.norm() > 0
        assert float((got - expected).float().norm() / expected.float().norm()) < 0.02
