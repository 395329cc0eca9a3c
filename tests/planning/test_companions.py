"""Companions: the rows that they add, what is known of those, and that pairs are never torn from them."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign import Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import Plan, plan_quantities, take_row
from mmalign.contract.values import EncodedResponse
from mmalign.planning.companions import add_record_quantities

NAN = pytest.approx(math.nan, nan_ok=True)
LENGTHS = {"a": 1, "b": 2, "c": 3, "why": 5}


def answer_why(record: Record, chosen: int, rejected: int) -> Record | None:
    """A new response to the same prompt, for records that are named so."""
    return Record.from_text("p", ["why"]) if record.id == "asked" else None


def pick_last(record: Record, chosen: int, rejected: int) -> Record:
    """One of the record's own responses."""
    return record.with_responses([record.responses[-1]])


def encode(record: Record) -> list[EncodedResponse]:
    return [EncodedResponse({}, steps=LENGTHS[one.text], size=10, shared=4) for one in record.responses]


def add(batch: Batch, *roles: Provider) -> Batch:
    return add_record_quantities(batch, Plan((Provider("pairs", "M2", "data"), *roles)), encode)


def role(name: str) -> Provider:
    return Provider(
        f"{name}_row", "MI", "companion", compute=f"{__name__}:{name}", given=("record", "chosen", "rejected")
    )


@pytest.fixture
def batch() -> Batch:
    records = []
    for id in ("plain", "asked", "asked"):
        record = Record.from_text("p", ["a", "b", "c"], id=id).to_dict()
        labels = [{"kind": "pair", "order": [["r1"], ["r0"]]}]
        scores = [{"item": "r0", "name": "quality", "level": "response", "value": 2.0}]
        records.append(Record.from_dict({**record, "labels": labels, "scores": scores}))
    return build_batch(records, [encode(record) for record in records], targets_only=False)


def test_without_roles_nothing_changes(batch: Batch) -> None:
    assert add_record_quantities(batch, Plan(()), encode) is batch
    assert len(add(batch)) == len(batch)


def test_a_response_that_is_there_is_not_added_again(batch: Batch) -> None:
    extended = add(batch, role("pick_last"))
    assert len(extended) == len(batch)
    assert extended.quantities["pick_last_row"].tolist() == [2, 5, 8]


def test_a_new_response_is_a_row_of_which_nothing_is_known(batch: Batch) -> None:
    """Nine rows; the second and the third record ask for one more each."""
    extended = add(batch, role("answer_why"))
    values = extended.quantities
    assert values["answer_why_row"].tolist() == [-1, 9, 10]
    assert values["prompt_index"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [1, 2]
    assert values["lengths"].tolist()[9:] == [5, 5]
    assert values["step_mask"].sum(dim=1).tolist() == [1, 2, 3] * 3 + [5, 5]
    assert values["ratings"][9:].isnan().all() and values["ranks"][9:].isnan().all()
    assert not values["labelled"][9:].any() and not values["targets"][9:].any()
    assert torch.equal(values["pairs"], batch.quantities["pairs"])
    assert len(batch) == 9 and len(batch.quantities["lengths"]) == 9


@pytest.mark.parametrize("size", [1, 3, 100])
def test_micro_batches_keep_pairs_with_their_companions(batch: Batch, size: int) -> None:
    extended = add(batch, role("answer_why"), role("pick_last"))
    found = []
    for part in extended.micro_batches(size):
        lengths = part.quantities["lengths"]
        for (chosen, rejected), why, last in zip(
            part.quantities["pairs"].tolist(),
            part.quantities["answer_why_row"].tolist(),
            part.quantities["pick_last_row"].tolist(),
            strict=True,
        ):
            found.append([int(lengths[row]) if row >= 0 else -1 for row in (chosen, rejected, why, last)])
    assert sorted(found) == [[2, 1, -1, 3], [2, 1, 5, 3], [2, 1, 5, 3]]


def test_what_is_taken_from_a_companion_is_nan_where_there_is_none() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    taken = take_row(values, torch.tensor([1, -1]))
    assert taken[0].item() == 2.0 and math.isnan(taken[1].item())
    torch.where(taken.isnan(), 0, taken).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0]
    assert take_row(torch.tensor([3, 4]), torch.tensor([0, -1]))[0].item() == 3.0


def test_names_with_a_role_are_derived() -> None:
    available = {one.name: one for one in (role("why"), Provider("policy_logps", "NT", "policy"))}
    available |= {name: Provider(name, axes, "data") for name, axes in (("step_mask", "NT"), ("lengths", "N"))}
    plan = plan_quantities({"objective 'x'": ("policy_why_mean_logps", "why_lengths", "why_row")}, available)
    stages = {one.name: (one.axes, one.stage) for one in plan.providers}
    assert stages["policy_why_mean_logps"] == ("M", "policy")
    assert stages["why_lengths"] == ("M", "frozen")
    assert stages["why_row"] == ("MI", "companion")


def with_variant(*order: list[str]) -> Record:
    """Two responses, a pair of them, and a label that names one of them under another prompt."""
    prompt = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    labels = [{"kind": "pair", "order": [["r1"], ["r0"]]}, {"kind": "rank", "order": order, "strength": 0.5}]
    variants = [{"vid": "v1", "prompt": prompt}]
    return Record.from_dict({**Record.from_text("p", ["a", "b"]).to_dict(), "labels": labels, "variants": variants})


def test_labels_on_responses_under_other_prompts_are_pairs() -> None:
    """r0 beats r1 under the variant prompt, which beats r1: three more pairs, one new row."""
    record = with_variant(["r0"], ["r1@v1"], ["r1"])
    batch = build_batch([record], [encode(record)], targets_only=False)
    shares = batch.with_quantities(
        {"share": torch.ones(1), "why_row": torch.tensor([0])}, {"share": "M", "why_row": "MI"}
    )
    extended = add(shares).quantities
    assert extended["pairs"].tolist() == [[1, 0], [0, 2], [0, 1], [2, 1]]
    assert extended["lengths"].tolist() == [1, 2, 2]
    assert extended["pair_strength"].tolist() == [pytest.approx(math.nan, nan_ok=True), 0.5, 0.5, 0.5]
    assert extended["share"].isnan().tolist() == [False, True, True, True]
    assert extended["why_row"].tolist() == [0, -1, -1, -1]


def number_pairs(batch: Batch) -> torch.Tensor:
    """A quantity of pairs: the number of its own pair, as the records tell."""
    return torch.arange(float(len(batch.comparisons())))


def double_numbers(batch: Batch) -> torch.Tensor:
    """A quantity that is computed from one of pairs."""
    return 2 * batch.quantities["number_pairs"]


def count_rows(batch: Batch) -> torch.Tensor:
    """A quantity of the records' own responses."""
    return torch.full((len(batch),), float(len(batch)))


@pytest.mark.parametrize("planned", [True, False])
def test_quantities_of_pairs_are_known_of_pairs_under_other_prompts(planned: bool) -> None:
    """Two records with one plain and one further pair each; those of responses are NaN for the added rows."""
    records = [with_variant(["r0"], ["r1@v1"]), with_variant(["r1@v1"], ["r0"])]
    batch = build_batch(records, [encode(record) for record in records], targets_only=False)
    axes = {"number_pairs": "M", "double_numbers": "M", "count_rows": "N"}
    needs = {"double_numbers": ("number_pairs",)}
    providers = [
        Provider(name, own, "data", needs.get(name, ()), compute=f"{__name__}:{name}", given=("batch",))
        for name, own in axes.items()
    ]
    pairs = [Provider("pairs", "M2", "data")] if planned else []
    values = add_record_quantities(batch, Plan((*pairs, *providers)), encode).quantities
    assert values["pairs"].tolist() == [[1, 0], [3, 2], [0, 4], [5, 2]]
    assert values["number_pairs"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert values["double_numbers"].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert values["count_rows"].tolist() == [4.0] * 4 + [NAN] * 2


def test_comparisons_are_told_in_the_order_of_the_pairs() -> None:
    records = [with_variant(["r0"], ["r1@v1"]), with_variant(["r1@v1"], ["r0"])]
    batch = build_batch(records, [encode(record) for record in records], targets_only=False)
    told = [(record.id, chosen, rejected, label.kind) for record, chosen, rejected, label in batch.comparisons()]
    plain = ("", "r1", "r0", "pair")
    assert told == [plain, plain, ("", "r0", "r1@v1", "rank"), ("", "r1@v1", "r0", "rank")]


def test_an_item_has_the_prompt_of_its_variant() -> None:
    record = with_variant(["r0"], ["r1@v1"])
    assert record.item_record("r1@v1").prompt_text == "q"
    assert record.item_record("r1").prompt_text == "p"
    assert [one.text for one in record.item_record("r1@v1").responses] == ["b"]


def test_ties_and_nodes_give_no_pairs() -> None:
    assert with_variant(["r0", "r1@v1"]).variant_comparisons() == []
    tree = {**with_variant(["r1@v1"], ["r0"]).to_dict(), "tree": [{"nid": "n"}]}
    tree["labels"][1]["order"] = [["r1@v1"], ["node:n"]]
    assert Record.from_dict(tree).variant_comparisons() == []
