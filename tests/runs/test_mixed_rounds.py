"""Rounds that hold the responses of the data and fresh samples: what is known of each, and that neither is spoilt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_PLUGIN
from feedback_records import build_records, write_feedback
from objective_runs import move_away, start
from torch import Tensor

import mmalign
from mmalign import ConfigError, DataError, EncodedResponse, Generated, Record, Response, Rollout
from mmalign.config.run_config import RunConfig
from mmalign.training.evaluation import measure
from mmalign.training.loop import accumulate_gradients
from mmalign.training.rounds import begin_round
from mmalign.run import Run

HYPO = [{"name": "dpo", "beta": 0.5}, {"name": "sampled_kl", "weight": 0.3}]
HPT = [{"name": "hpt_reinforcement", "horizon": 8}, {"name": "hpt_imitation", "weight": 0.5}]
MIXED = {"name": "mixed", "group_size": 3}
STORED, SAMPLED = 4, 3
"""Responses to a prompt: those of `feedback_records`, and the fresh ones."""


def config_of(folder: Path, objective: Any, collector: Any = None, **sections: Any) -> dict[str, Any]:
    data = folder / "records.jsonl"
    if not data.exists():
        write_feedback(data, 8)
    train = {"steps": 2, "batch_size": 4, "learning_rate": 0.05, **sections.pop("train", {})}
    config = {
        "modality": {"name": "toy"},
        "data": {"train": {"path": str(data)}},
        "objective": objective,
        "decoding": {"name": "sample", "max_steps": 6},
        "train": train,
        "plugins": [str(TOY_PLUGIN)],
        "output": str(folder / "run"),
        **sections,
    }
    return config | ({"collector": collector} if collector else {})


def build(folder: Path, objective: Any, collector: Any = None, **sections: Any) -> Run:
    return start(RunConfig.model_validate(config_of(folder, objective, collector, **sections)))


def rewarded(gate: int) -> dict[str, Any]:
    gates = [{"name": "imitated_prompts", "gate": gate, "right_above": 0.4}]
    return {"rewards": [{"name": "zeros"}], "advantage": {"name": "dr_grpo"}, "quantities": gates}


def gradient_of(run: Run) -> Tensor:
    """The gradient of a first round, of a policy that has moved away from its reference."""
    move_away(run, 0.5)
    batch, _ = begin_round(run)
    accumulate_gradients(run, batch, fresh=True)
    gradient: Tensor = run.policy.network.table.grad
    return gradient


# -- rollouts


def sample(text: str) -> Generated:
    return Generated(Response.from_text("x", text), EncodedResponse({}, steps=1, size=1), torch.zeros(1))


def test_a_rollout_may_extend_a_record() -> None:
    record = Record.from_text("p", ["a", "b"])
    record = record.model_copy(update={"responses": (record.responses[0], Response.from_text("s0", "b"))})
    rollout = Rollout.extend(record, [sample("c"), sample("d")])
    assert [one.rid for one in rollout.record.responses] == ["r0", "s0", "s1", "s2"]
    assert [one.text for one in rollout.stored] == ["a", "b"]
    assert [one.response.rid for one in rollout.responses] == ["s1", "s2"]


def test_a_rollout_that_was_built_stores_nothing() -> None:
    assert Rollout.build(Record.from_text("p", ["a"]), [sample("c")]).stored == ()


# -- the batch of a round


def test_what_is_known_of_stored_responses_is_what_an_offline_run_knows(tmp_path: Path) -> None:
    offline, _ = begin_round(build(tmp_path, HYPO[:1]))
    mixed, metrics = begin_round(build(tmp_path, HYPO, MIXED, **rewarded(0) | {"quantities": [], "advantage": None}))
    sampled = mixed.quantities["sampled"]
    assert sampled.tolist() == ([False] * STORED + [True] * SAMPLED) * 4
    for name in ("lengths", "labels", "labelled", "targets", "ratings", "ranks", "prompt_index"):
        assert torch.equal(mixed.quantities[name][~sampled].nan_to_num(), offline.quantities[name].nan_to_num()), name
    steps = offline.quantities["reference_logps"].shape[1]
    assert torch.equal(
        torch.where(mixed.quantities["step_mask"], mixed.quantities["reference_logps"], 0)[~sampled][:, :steps],
        torch.where(offline.quantities["step_mask"], offline.quantities["reference_logps"], 0),
    )
    assert len(mixed.quantities["pairs"]) == len(offline.quantities["pairs"]) == 4 * 7
    assert not sampled[mixed.quantities["pairs"]].any()
    assert metrics["length"] == 6.0 and metrics["reward/unscored"] == 0.0


def test_what_is_known_of_samples_is_not_known_of_stored_responses(tmp_path: Path) -> None:
    run = build(tmp_path, HPT, MIXED, **rewarded(1))
    batch, _ = begin_round(run)
    values = batch.quantities
    sampled, mask = values["sampled"], values["step_mask"]
    for known, own in (
        (~values["behaviour_logps"].isnan() & mask, sampled[:, None] & mask),
        (~values["composite_rewards"].isnan(), sampled),
        (~values["rewards"].isnan().any(dim=1), sampled),
    ):
        assert torch.equal(known, own)
    assert not (values["targets"] & sampled).any() and not (values["labelled"] & sampled).any()
    assert (values["advantages"][~sampled] == 0).all() and (values["advantages"][sampled] != 0).any()


def test_samples_of_a_record_without_feedback_are_no_targets(tmp_path: Path) -> None:
    plain = tmp_path / "records.jsonl"
    plain.write_text("".join(Record.from_text("x" * n, ["0123"], id=str(n)).to_json() + "\n" for n in range(1, 9)))
    batch, _ = begin_round(build(tmp_path, [{"name": "sft"}, {"name": "sampled_kl"}], MIXED))
    assert torch.equal(batch.quantities["targets"], ~batch.quantities["sampled"])


def test_companions_of_pairs_are_found_beside_samples(tmp_path: Path) -> None:
    run = build(tmp_path, [{"name": "rationale_dpo"}, {"name": "sampled_kl"}], MIXED)
    batch, _ = begin_round(run)
    rows = batch.quantities["rationale_row"]
    assert (rows >= 4 * (STORED + SAMPLED)).all()
    assert not batch.quantities["sampled"][rows].any()
    accumulate_gradients(run, batch, fresh=True)


# -- gradients


@pytest.mark.parametrize("size", [1, 5, 100])
def test_the_gradient_of_the_mixture_is_the_sum_of_those_of_its_parts(tmp_path: Path, size: int) -> None:
    """Pairs offline and samples online, each in a run of its own, on one prompt after the other and all at once."""
    pairs = gradient_of(build(tmp_path, HYPO[:1]))
    samples = gradient_of(build(tmp_path, HYPO[1:], {**MIXED, "name": "group"}))
    mixed = gradient_of(build(tmp_path, HYPO, MIXED, train={"micro_batch_size": size}))
    assert min(pairs.abs().max(), samples.abs().max()) > 1e-3
    assert torch.allclose(mixed, pairs + samples, rtol=1e-5, atol=1e-7)


def test_without_a_weight_on_the_samples_hypo_is_dpo(tmp_path: Path) -> None:
    mixed = gradient_of(build(tmp_path, [HYPO[0], {**HYPO[1], "weight": 0.0}], MIXED))
    assert torch.allclose(mixed, gradient_of(build(tmp_path, HYPO[:1])), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [1, 100])
def test_the_gate_below_all_reinforces_and_above_all_imitates(tmp_path: Path, size: int) -> None:
    train = {"micro_batch_size": size}
    online = {key: value for key, value in rewarded(-1).items() if key != "quantities"}
    unclipped = {"name": "policy_gradient", "clip_low": 0.9, "clip_high": 9.0, "aggregation": "constant", "horizon": 8}
    reinforced = gradient_of(build(tmp_path, [unclipped], {**MIXED, "name": "group"}, **online))
    imitated = 0.5 * gradient_of(build(tmp_path, [{"name": "sft"}]))
    for gate, expected in ((-1, reinforced), (SAMPLED, imitated)):
        mixed = gradient_of(build(tmp_path, HPT, MIXED, train=train, **rewarded(gate)))
        assert expected.abs().max() > 1e-3
        assert torch.allclose(mixed, expected, rtol=1e-5, atol=1e-7)


def test_a_prompt_is_either_imitated_or_reinforced(tmp_path: Path) -> None:
    values = begin_round(build(tmp_path, HPT, MIXED, **rewarded(0)))[0].quantities
    right = values["composite_rewards"] > 0.4
    solved = torch.stack([right[values["prompt_index"] == prompt].any() for prompt in range(4)])
    assert solved.any() and not solved.all()
    assert torch.equal(values["reinforced"], values["sampled"] & solved[values["prompt_index"]])
    assert torch.equal(values["imitated"], values["targets"] & ~solved[values["prompt_index"]])


# -- what stands in the way, or does not


def test_a_first_round_in_which_all_prompts_are_imitated_is_no_mistake(tmp_path: Path) -> None:
    run = mmalign.train(build_file(tmp_path, HPT, MIXED, **rewarded(SAMPLED)))
    assert run.step == 2


def test_data_without_pairs_are_told_before_training(tmp_path: Path) -> None:
    bare = [Record.from_text("p", ["012"], id=str(index)) for index in range(4)]
    (tmp_path / "records.jsonl").write_text("".join(record.to_json() + "\n" for record in bare))
    with pytest.raises(DataError, match="'dpo' trains on preference pairs"):
        mmalign.check(build_file(tmp_path, HYPO, MIXED))


def test_a_configuration_with_pairs_passes_the_check(tmp_path: Path) -> None:
    inspection = mmalign.check(build_file(tmp_path, HYPO, MIXED))
    assert inspection.data["train"].pairs == 8 * 7


def test_another_temperature_is_refused(tmp_path: Path) -> None:
    decoding = {"name": "sample", "max_steps": 6, "temperature": 0.7}
    with pytest.raises(ConfigError, match=r"decoding\.temperature: got 0\.7.*expected 1"):
        mmalign.check(build_file(tmp_path, HYPO, MIXED, decoding=decoding))
    mmalign.check(build_file(tmp_path, HYPO[1:], {**MIXED, "name": "group"}, decoding=decoding))


def test_samples_alone_cannot_be_trained_on_offline(tmp_path: Path) -> None:
    with pytest.raises(mmalign.PlanError, match=r"'sampled_kl' needs the quantity 'sampled'.*add `collector"):
        mmalign.check(build_file(tmp_path, HYPO))


def test_evaluation_does_not_see_the_difference(tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(record.to_json() + "\n" for record in build_records(3)))
    sections = {
        "data": {"train": {"path": str(tmp_path / "records.jsonl")}, "eval": {"path": str(held_out)}},
        "evaluation": {"evaluators": [{"name": "preference"}, {"name": "generation", "count": 2}]},
        "rewards": [{"name": "zeros"}],
    }
    measured = [
        measure(build(tmp_path, HYPO[1:], {"name": name, "group_size": 3}, **sections))[0]
        for name in ("group", "mixed")
    ]
    assert measured[0] and measured[0] == measured[1]


def build_file(folder: Path, objective: Any, collector: Any = None, **sections: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(config_of(folder, objective, collector, **sections)))
    return path
