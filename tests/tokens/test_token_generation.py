"""Sampling of tokens: log-probs, ends, limits, order, seeds, what rules see, and places that are taken again."""

from __future__ import annotations

import pytest
import torch
from token_models import END, IdTokens, ids_of, score_longhand
from torch import Tensor

from mmalign import Decoding, Record
from mmalign.toolkits.tokens.generation import draw
from mmalign.toolkits.tokens.packing_support import can_pack

PROMPTS = [Record.from_text("0 40 41 42 43 44"), Record.from_text("0 45"), Record.from_text("0 46 47 48")]


def flat(groups):
    return [one for group in groups for one in group]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_behaviour_logps_are_those_of_scoring(network, temperature):
    modality = IdTokens(network)
    modality.temperature = temperature
    torch.manual_seed(0)
    generated = flat(modality.generate(network, PROMPTS, Decoding(temperature=temperature, max_steps=9), 4))
    logps, mask = modality.step_log_probs(network, [one.encoded for one in generated])
    for row, one in enumerate(generated):
        torch.testing.assert_close(logps[row][mask[row]], one.behaviour_logps, rtol=1e-4, atol=1e-4)
        assert one.behaviour_logps.dtype == torch.float32 and not one.behaviour_logps.requires_grad


class Ending(Decoding):
    """Ends the first row at step 2, the others at step 5."""

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        logits = logits.clone()
        logits[:, END] = -torch.inf
        ends = torch.zeros(len(logits), dtype=torch.bool)
        ends[0] = generated.shape[1] >= 2
        ends |= generated.shape[1] >= 5
        logits[ends] = -torch.inf
        logits[ends, END] = 0.0
        return logits


def test_a_response_ends_with_its_end_token_although_padding_is_the_same_token(llama):
    modality = IdTokens(llama)
    [group] = modality.generate(llama, PROMPTS[:1], Ending(max_steps=20), 5)
    lengths = [one.encoded.steps for one in group]
    assert lengths[0] == 3 and max(lengths) <= 6
    for one in group:
        ids = one.encoded.tensors["response_ids"].tolist()
        assert ids[-1] == END and ids.count(END) == 1 and one.finished
        assert one.encoded.tensors["response_mask"].all()
        assert len(one.behaviour_logps) == one.encoded.steps == len(ids)
        assert one.encoded.size == len(ids) + 6


def test_the_step_limit_leaves_a_response_unfinished(llama):
    class Endless(Decoding):
        def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
            return logits.index_fill(1, torch.tensor([END]), -torch.inf)

    [[one]] = IdTokens(llama).generate(llama, PROMPTS[:1], Endless(max_steps=3), 1)
    assert one.encoded.steps == 3 and not one.finished


def test_sampling_is_reproduced_by_its_seed(llama):
    def sample(seed: int) -> list[str]:
        torch.manual_seed(seed)
        return [one.response.text for one in flat(IdTokens(llama).generate(llama, PROMPTS, Decoding(max_steps=8), 2))]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_groups_keep_the_order_of_records_whatever_the_batch_size(llama):
    modality = IdTokens(llama)
    modality.generation_batch_size = 4  # cuts groups of three apart
    groups = modality.generate(llama, PROMPTS, Decoding(max_steps=4), 3)
    assert [len(group) for group in groups] == [3, 3, 3]
    for record, group in zip(PROMPTS, groups, strict=True):
        assert [one.response.rid for one in group] == ["r0", "r1", "r2"]
        for one in group:
            assert one.encoded.tensors["prompt_ids"].tolist() == ids_of(record.prompt_text).tolist()
            expected = score_longhand(llama, one.encoded)[0]
            torch.testing.assert_close(one.behaviour_logps, expected, rtol=1e-4, atol=1e-4)


def test_tokens_are_drawn_with_their_probabilities_and_impossible_ones_never():
    """100,000 draws: five standard deviations are 0.008 at most."""
    torch.manual_seed(0)
    logits = torch.tensor([-torch.inf, 0.5, 0.2, 0.3, -torch.inf]).log().nan_to_num(nan=-torch.inf).expand(100_000, -1)
    ids, logps = draw(logits, torch.empty(len(logits), 0), Decoding())
    shares = torch.bincount(ids, minlength=5) / len(ids)
    assert shares[[0, 4]].tolist() == [0, 0]
    torch.testing.assert_close(shares[1:4], torch.tensor([0.5, 0.2, 0.3]), rtol=0, atol=0.008)
    torch.testing.assert_close(logps, logits[0].log_softmax(0)[ids])


@pytest.mark.parametrize(("packing", "first"), [("auto", (1, 6 + 2)), ("off", (2, 6))])
def test_a_prompt_is_read_once_for_all_its_responses(llama, packing, first):
    modality = IdTokens(llama)
    modality.packing = packing
    can_pack(llama)  # tried once, on a few tokens
    seen = []
    llama.model.embed_tokens.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    modality.generate(llama, PROMPTS[:2], Decoding(max_steps=2), 5)
    assert seen == [first, (10, 1)]


class Lengths(Decoding):
    """Ends the response in row i of a batch after a number of steps that a generator draws."""

    def __init__(self, longest: int) -> None:
        super().__init__(max_steps=longest)
        self.generator = torch.Generator().manual_seed(0)

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        ends = torch.rand(len(logits), generator=self.generator) < 0.3
        adjusted = logits.index_fill(1, torch.tensor([END]), -torch.inf)
        adjusted[ends] = torch.where(torch.arange(logits.shape[1]) == END, 0.0, -torch.inf)
        return adjusted


MANY = [Record.from_text(" ".join(map(str, [0, *range(40, 41 + length)]))) for length in (7, 1, 4, 2, 9, 3, 5)]


@pytest.mark.parametrize("capacity", [1, 3, 4, 6, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_places_are_taken_again_and_nothing_is_mixed_up(network, capacity, seed):
    """Groups of three to seven prompts; the places of responses that have ended go to the next prompts."""
    modality = IdTokens(network)
    modality.generation_batch_size = capacity
    torch.manual_seed(seed)
    groups = modality.generate(network, MANY, Lengths(longest=7), 3)
    assert [len(group) for group in groups] == [3] * len(MANY)
    lengths = []
    for record, group in zip(MANY, groups, strict=True):
        for one in group:
            ids = one.encoded.tensors["response_ids"].tolist()
            lengths.append(len(ids))
            assert one.encoded.tensors["prompt_ids"].tolist() == ids_of(record.prompt_text).tolist()
            assert one.finished is (ids[-1] == END) and ids.count(END) == one.finished
            assert one.finished or len(ids) == 7
            expected = score_longhand(network, one.encoded)[0]
            torch.testing.assert_close(one.behaviour_logps, expected, rtol=1e-4, atol=1e-4)
    assert len(set(lengths)) > 2


def test_the_batch_stays_full_while_prompts_wait(llama):
    """Groups of two, four places: as soon as two have ended the next group comes in."""
    modality = IdTokens(llama)
    modality.generation_batch_size = 4
    can_pack(llama)
    rows: list[int] = []
    llama.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: rows.append(len(inputs[0])) if inputs[0].shape[1] == 1 else None
    )
    torch.manual_seed(0)
    groups = modality.generate(llama, MANY, Lengths(longest=30), 2)
    steps = [one.encoded.steps for group in groups for one in group]
    in_batches = sum(max(steps[start : start + 4]) - 1 for start in range(0, len(steps), 4))
    assert max(rows) == 4 and len(rows) < in_batches


def test_a_rule_sees_rows_of_equally_many_steps(llama):
    seen: list[tuple[int, ...]] = []

    class Watching(Lengths):
        def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
            assert len(generated) == len(logits) and not (generated == END).any()
            seen.append(tuple(generated.shape))
            return super().adjust(logits, generated)

    modality = IdTokens(llama)
    modality.generation_batch_size = 4
    modality.generate(llama, MANY, Watching(longest=20), 4)
    assert {shape[1] for shape in seen} > {0, 1, 2}


def test_networks_that_cannot_pack_are_sampled_in_padded_batches(llama):
    modality = IdTokens(llama)
    modality.packing, modality.generation_batch_size = "off", 4
    groups = modality.generate(llama, MANY, Lengths(longest=7), 3)
    for one in flat(groups):
        torch.testing.assert_close(one.behaviour_logps, score_longhand(llama, one.encoded)[0], rtol=1e-4, atol=1e-4)


def test_adjust_sees_tempered_logits_and_the_steps_so_far(llama):
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(Decoding):
        def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
            seen.append((logits.clone(), generated.clone()))
            return logits.index_fill(1, torch.tensor([END]), -torch.inf)

    [[one]] = IdTokens(llama).generate(llama, PROMPTS[:1], Watching(temperature=0.5, max_steps=3), 1)
    ids = one.encoded.tensors["response_ids"]
    assert [generated.tolist() for _, generated in seen] == [[[]], [ids[:1].tolist()], [ids[:2].tolist()]]
    torch.testing.assert_close(seen[0][0][0], llama(one.encoded.tensors["prompt_ids"][None]).logits[0, -1] / 0.5)


def test_generation_leaves_training_mode_and_gradients_as_they_were(llama):
    llama.train()
    IdTokens(llama).generate(llama, PROMPTS[:1], Decoding(max_steps=2), 1)
    assert llama.training and torch.is_grad_enabled()


@pytest.mark.parametrize(("size", "count", "prompts"), [(64, 8, 8), (64, 6, 32), (4, 8, 1), (3, 3, 1), (1, 5, 1)])
def test_a_batch_of_sequences_ends_after_so_many_prompts(size: int, count: int, prompts: int) -> None:
    from mmalign_text.modality import TextModality

    modality = TextModality.__new__(TextModality)
    modality.generation_batch_size = size
    assert modality.prompts_per_draw(count) == prompts
    assert prompts * count % size == 0
