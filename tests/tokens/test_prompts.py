"""Prompts of more than tokens: when two are one, and how their media, marks and positions are joined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign import Decoding
from mmalign.toolkits.tokens.generation import Excluding, draw
from mmalign.toolkits.tokens.packing import pack, pack_prompts
from mmalign.toolkits.tokens.packing_support import packed_inputs
from mmalign.toolkits.tokens.prompts import Prompt, group_equal, join_media, pad_rows

IDS = torch.tensor([5, 9, 9, 6])
# A network that counts on three axes: the two places of an image stand side by side in its third.
PLACES = torch.tensor([[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]])


def image(value: float, size: int = 2) -> Tensor:
    return torch.full((1, size, 2), value)


def shown(value: float, **tensors: Tensor) -> Prompt:
    return Prompt.read({"prompt_ids": IDS, "media.pixels": image(value), **tensors})


def test_a_prompt_is_read_from_encoded_tensors() -> None:
    tensors = {
        "prompt_ids": IDS,
        "prompt_positions": PLACES,
        "media.pixels": image(1.0),
        "mark.kinds": IDS.eq(9).long(),
    }
    prompt = Prompt.read({**tensors, "response_ids": torch.tensor([1])})
    assert prompt.media.keys() == {"pixels"} and prompt.marks.keys() == {"kinds"}
    assert prompt.next_position == 4
    assert Prompt.of(IDS).positions.tolist() == [[0, 1, 2, 3]]
    assert Prompt.of(IDS).kind == () and prompt.kind == ("pixels",)


@pytest.mark.parametrize(
    "other",
    [
        shown(2.0),
        Prompt.of(IDS),
        shown(1.0, prompt_positions=PLACES),
        shown(1.0, **{"mark.kinds": IDS}),
        shown(1.0, **{"media.sizes": IDS}),
    ],
)
def test_equal_tokens_do_not_make_equal_prompts(other: Prompt) -> None:
    prompts = [shown(1.0), other, shown(1.0), other]
    assert group_equal(prompts) == [[0, 2], [1, 3]]


def test_a_row_holds_the_media_of_each_prompt_once_and_in_its_order() -> None:
    prompts = [shown(1.0), Prompt.of(torch.tensor([7])), shown(2.0), shown(1.0)]
    row = pack(prompts, [torch.tensor([1])] * 4)
    assert row.ids.tolist() == [5, 9, 9, 6, 1, 1, 7, 1, 5, 9, 9, 6, 1]
    assert packed_inputs(row)["pixels"][:, 0, 0].tolist() == [1.0, 2.0]
    alone = pack_prompts(prompts)
    assert packed_inputs(alone)["pixels"][:, 0, 0].tolist() == [1.0, 2.0, 1.0]
    assert alone.prompt_ends.tolist() == [3, 4, 8, 12]


def test_padded_rows_have_the_media_of_every_row() -> None:
    inputs = pad_rows([shown(1.0), shown(2.0), shown(1.0)], [torch.tensor([1])] * 3, 0, "right")
    assert inputs["pixels"][:, 0, 0].tolist() == [1.0, 2.0, 1.0]


def test_media_of_several_sizes_are_filled_up_with_zeros() -> None:
    small, large = (Prompt.read({"prompt_ids": IDS, "media.pixels": image(1.0, size)}) for size in (2, 3))
    joined = join_media([small, large])["pixels"]
    assert joined.shape == (2, 3, 2)
    assert joined[:, :, 0].tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]


def test_positions_go_on_behind_the_last_on_all_axes() -> None:
    prompts = [shown(1.0, prompt_positions=PLACES), Prompt.of(torch.tensor([7]))]
    responses = [torch.tensor([1, 1]), torch.tensor([1])]
    row = packed_inputs(pack(prompts, responses))
    assert row["position_ids"].shape == (3, 1, 8)
    assert row["position_ids"][2, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert row["position_ids"][0, 0].tolist() == [0, 1, 1, 3, 4, 5, 0, 1]
    padded = pad_rows(prompts, responses, 0, "left")
    assert padded["position_ids"][:, 0].tolist() == [[0, 1, 1, 3, 4, 5], [0, 1, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert padded["position_ids"][:, 1].tolist() == [[0, 0, 0, 0, 0, 1]] * 3


def test_marks_of_responses_and_of_prompts_without_them_are_zero() -> None:
    prompts = [shown(1.0, **{"mark.kinds": torch.tensor([0, 1, 1, 0])}), Prompt.of(torch.tensor([7]))]
    responses = [torch.tensor([1]), torch.tensor([1, 1])]
    assert packed_inputs(pack(prompts, responses))["kinds"].tolist() == [[0, 1, 1, 0, 0, 0, 0, 0]]
    assert pad_rows(prompts, responses, 0, "right")["kinds"].tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_an_excluded_token_is_never_drawn_and_costs_the_others_no_probability() -> None:
    """The log-prob of a step is that before rules change it, as with every decoding."""
    logits = torch.tensor([[5.0, 1.0, 0.0]]).expand(500, 3)
    ids, logps = draw(logits, torch.empty(500, 0), Excluding(Decoding(temperature=2.0), {0}))
    assert set(ids.tolist()) == {1, 2}
    torch.testing.assert_close(logps, (logits[0] / 2).log_softmax(0)[ids])
