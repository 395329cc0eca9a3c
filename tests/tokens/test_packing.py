"""Packed rows: what is where, and attention that never leaves its block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mmalign.toolkits.tokens import packed_attention as attention
from mmalign.toolkits.tokens import packing
from mmalign.toolkits.tokens.packed_attention import attend_by_flex, attend_by_segments, packed_attention
from mmalign.toolkits.tokens.packing import PackedLayout, pack
from mmalign.toolkits.tokens.prompts import Prompt

HEADS, SIZE = 4, 8
SCALE = 0.3
KERNELS: list[Callable[..., Tensor]] = [attend_by_segments, attend_by_flex]


def example() -> packing.PackedRow:
    prompts = [Prompt.of(torch.tensor(ids)) for ids in ([1, 2], [7], [1, 2])]
    return pack(prompts, [torch.tensor(ids) for ids in ([3], [8, 9], [4, 5])])


def states(length: int, dtype: torch.dtype = torch.float64, key_heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, length, SIZE, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for heads in (HEADS, key_heads, key_heads)
    ]


def seen(layout: PackedLayout) -> Tensor:
    """Who sees whom [L, L], by the words of the module: its own prompt and its own response, up to itself."""
    places = list(zip(layout.group.tolist(), layout.branch.tolist(), strict=True))
    return torch.tensor(
        [
            [of[0] == to[0] and to[1] in (-1, of[1]) and j <= i for j, to in enumerate(places)]
            for i, of in enumerate(places)
        ]
    )


def test_equal_prompts_are_in_the_row_once_and_positions_go_on_from_them() -> None:
    row = example()
    assert row.ids.tolist() == [1, 2, 3, 4, 5, 7, 8, 9]
    assert row.positions.tolist() == [[0, 1, 2, 2, 3, 0, 1, 2]]
    assert row.layout.group.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert row.layout.branch.tolist() == [-1, -1, 0, 2, 2, -1, 1, 1]
    assert row.prompt_ends.tolist() == [1, 5, 1]
    assert row.starts.tolist() == [2, 6, 3]


# Position in the row and what it sees, by hand from the ids above.
SEEN = {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 3], 4: [0, 1, 3, 4], 5: [5], 6: [5, 6], 7: [5, 6, 7]}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("attend", KERNELS)
def test_attention_equals_the_longhand_sum(attend: Callable[..., Tensor]) -> None:
    query, key, value = (one.detach() for one in states(8, key_heads=1))
    attended = attend(query, key, value, example().layout, SCALE)
    assert attended.shape == (1, 8, HEADS, SIZE)
    for at, others in SEEN.items():
        scores = torch.stack([(query[0, :, at] * key[0, 0, other]).sum(-1) for other in others], dim=-1) * SCALE
        torch.testing.assert_close(attended[0, at], scores.softmax(dim=-1) @ value[0, 0, others], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tile", [1, 2, 3, 256])
def test_values_and_gradients_are_those_of_masked_attention(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where texts are longer than a segment."""
    monkeypatch.setattr(packing, "TILE", tile)
    prompts = [Prompt.of(torch.arange(length)) for length in (5, 3, 5, 1)]
    layout = pack(prompts, [torch.arange(length) for length in (4, 1, 7, 2)]).layout
    ours, theirs = states(len(layout.group)), states(len(layout.group))
    weights = torch.randn(1, len(layout.group), HEADS, SIZE, dtype=torch.float64)
    got = attend_by_segments(*ours, layout, SCALE)
    expected = scaled_dot_product_attention(*theirs, seen(layout), scale=SCALE, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_half_precision_is_as_near_to_the_exact_result_as_the_fused_kernel() -> None:
    layout = example().layout
    exact = attend_by_segments(*states(8), layout, SCALE)
    plain = attend_by_segments(*states(8, torch.bfloat16), layout, SCALE)
    query, key, value = states(8, torch.bfloat16)
    fused = scaled_dot_product_attention(query, key, value, seen(layout), scale=SCALE, enable_gqa=True)
    assert plain.dtype == torch.bfloat16
    assert (plain - exact).abs().max() < 2 * (fused.transpose(1, 2) - exact).abs().max() + 1e-3


def test_autocast_decides_the_precision_of_attention() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        attended, _ = packed_attention(nn.Identity(), *states(8, torch.float32), None, layout=example().layout)
    assert attended.dtype == torch.bfloat16


def test_the_scale_is_that_of_the_head_size_if_none_is_given() -> None:
    arguments = (nn.Identity(), *states(8), None)
    given, _ = packed_attention(*arguments, layout=example().layout, scaling=SIZE**-0.5)
    own, _ = packed_attention(*arguments, layout=example().layout)
    assert torch.equal(given, own)


def test_memory_does_not_grow_with_the_square_of_a_text() -> None:
    """No tensor of scores is larger than one segment's."""
    layout = pack([Prompt.of(torch.arange(1000))], [torch.arange(1000)]).layout
    assert max(segment.stop - segment.start for segment in layout.segments) == packing.TILE
    assert attention._future(torch.device("cpu")).shape == (packing.TILE, packing.TILE)
