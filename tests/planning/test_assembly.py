"""Assembly and backend: from a configuration to bound parts, and from records to quantities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign import ConfigError, DataError, MmalignError, PlanError, PluginError, RunConfig, StepContext, TrainingError
from mmalign.api import load_run
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import Rollout
from mmalign.planning.assembly import Assembly
from mmalign.run import Run
from mmalign.training.assembling import load_assembly
from mmalign.training.inspection import inspect_run

Build = Callable[..., dict[str, Any]]


def assemble(config: dict[str, Any]) -> Assembly:
    return load_assembly(RunConfig.model_validate(config))


@pytest.fixture
def load(write_config: Callable[..., Path]) -> Callable[[dict[str, Any]], Run]:
    return lambda config: load_run(write_config(config))


def test_parts_are_bound_to_their_parameters(toy_online: Build) -> None:
    rewards = [{"name": "zeros", "weight": 2.0}, {"name": "length", "target": 3}]
    assembly = assemble(toy_online(rewards=rewards, objective={"name": "grpo", "clip_low": 0.1}))
    assert assembly.online
    assert assembly.scorer is not None and assembly.scorer.names == ("zeros", "length")
    rewards_of_one = torch.tensor([[0.5, -1.0]])
    assert assembly.scorer.composition.compose(rewards_of_one).item() == 2.0 * 0.5 - 1.0
    assert assembly.objectives[0].parameters["clip_low"] == 0.1
    assert assembly.objectives[0].aggregation == "sequence_mean"
    assert assembly.decoding.max_steps == 6
    assert assembly.papers["grpo"]


def test_the_plan_holds_what_the_objective_needs_and_no_more(toy_config: Build) -> None:
    assert "reference_logps" in assemble(toy_config()).plan
    assert "reference_logps" not in assemble(toy_config(objective={"name": "sft"})).plan
    assert assemble(toy_config(objective={"name": "sft"})).targets_only
    both = [{"name": "sft"}, {"name": "dpo", "weight": 0.5}]
    assert not assemble(toy_config(objective=both)).targets_only


def test_an_alias_finds_its_part(toy_online: Build) -> None:
    assert assemble(toy_online(objective={"name": "ppo_clip"})).objectives[0].spec.name == "policy_gradient"


@pytest.mark.parametrize(
    ("sections", "error", "expected"),
    [
        ({"objective": {"name": "dop"}}, ConfigError, r"objective\.name: unknown 'dop'; did you mean"),
        ({"objective": {"name": "dpo", "beat": 1}}, ConfigError, r"objective\.beat.*did you mean 'beta'"),
        ({"objective": {"name": "dpo", "beta": "x"}}, ConfigError, r"objective\.beta: expected a number"),
        ({"modality": {"name": "toi"}}, ConfigError, r"modality\.name: unknown 'toi'; did you mean 'toy'"),
        ({"modality": {"name": "dpo"}}, ConfigError, "'dpo' is the name of a part of another kind: objective"),
        ({"decoding": {"name": "sample", "top_q": 1}}, ConfigError, r"decoding\.top_q"),
        ({"rewards": [{"name": "zeros", "x": 1}]}, ConfigError, r"rewards\.x: unknown key 'x'"),
        ({"evaluation": {"evaluators": [{"name": "generate"}]}}, ConfigError, r"evaluation\.evaluators\.name"),
        ({"objective": {"name": "grpo"}}, PlanError, "objective 'grpo' needs the quantity 'behaviour_logps'"),
        ({"objective": {"name": "reward_model"}}, PlanError, "a modality would have to provide 'scores'"),
        ({"advantage": {"name": "grpo"}}, ConfigError, "'grpo' works in online runs only"),
        ({"checkpoint": {"merged": True}}, ConfigError, r"checkpoint\.merged: modality 'toy' has no merged export"),
        (
            {"modality": {"name": "toy_bound"}, "objective": {"name": "orpo"}},
            PlanError,
            "'orpo' needs exact log-probs, but modality 'toy_bound' gives surrogate ones",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_loads(
    toy_config: Build, sections: dict[str, Any], error: type[MmalignError], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        assemble(toy_config(**sections))


MODPO = {"name": "modpo", "margin_weights": [0.2]}


def test_quantities_get_their_parameters_or_their_defaults(toy_config: Build) -> None:
    given = assemble(toy_config(objective=MODPO, quantities={"name": "margin_rewards", "scores": ["brief"]}))
    parameters = {one.name: one.parameters for one in given.plan.providers}
    assert parameters["margin_rewards"] == {"scores": ("brief",)}
    assert parameters["pairs"] == {}
    by_default = assemble(toy_config(objective={"name": "sppo"}))
    assert {one.name: one.parameters for one in by_default.plan.providers}["win_probabilities"] == {
        "score": "win_probability"
    }


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"objective": MODPO}, r"quantities\[margin_rewards\]\.scores: missing"),
        (
            {"quantities": {"name": "margin_rewards", "scores": ["brief"]}},
            r"quantities\.name: nothing in this run needs the quantity 'margin_rewards'; drop it",
        ),
        (
            {"objective": MODPO, "quantities": {"name": "margin_rewards", "score": ["brief"]}},
            r"quantities\.score: unknown key 'score'; did you mean 'scores'",
        ),
        ({"quantities": {"name": "margin_reward"}}, r"quantities\.name: unknown 'margin_reward'; did you mean"),
    ],
)
def test_wrong_parameters_of_quantities_are_refused(toy_config: Build, sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        assemble(toy_config(**sections))


def test_companions_are_found_in_stored_records_only(toy_online: Build, tmp_path: Path) -> None:
    plugin = tmp_path / "paired_collector.py"
    plugin.write_text(
        "import mmalign\n"
        "class Paired(mmalign.Collector):\n    def collect(self, records, generate):\n        return []\n"
        "@mmalign.hookimpl\ndef register_collectors():\n"
        "    target = 'paired_collector:Paired'\n"
        "    return [mmalign.CollectorSpec(name='paired', summary='.', target=target, provides=('pairs',))]\n",
        encoding="utf-8",
    )
    config = toy_online(collector={"name": "paired"}, objective={"name": "hinge"}, advantage=None)
    config["plugins"].append(str(plugin))
    assert "pairs" in assemble(config).plan
    with pytest.raises(PlanError, match="needs the quantity 'policy_gold_mean_logps', which nothing in this run"):
        assemble({**config, "objective": {"name": "tpo_triple"}})


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"rewards": []}, "rewards: missing; advantage 'grpo' is computed from rewards"),
        ({"advantage": None}, "needs the quantity 'advantages'.*add `advantage"),
    ],
)
def test_an_online_run_without_its_parts_is_refused(toy_online: Build, sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(MmalignError, match=expected):
        assemble(toy_online(**sections))


def test_only_deterministic_rewards_may_be_cached(toy_online: Build) -> None:
    assert assemble(toy_online(rewards={"name": "length", "target": 3, "cache": True})).scorer
    message = r"rewards\.cache: reward 'zeros' is not declared deterministic, so its scores may not be kept"
    with pytest.raises(ConfigError, match=message):
        assemble(toy_online(rewards={"name": "zeros", "cache": True}))


def test_a_reward_may_not_take_a_key_of_the_engine(toy_online: Build, tmp_path: Path) -> None:
    plugin = tmp_path / "greedy_reward.py"
    plugin.write_text(
        "import mmalign\n"
        "class Config(mmalign.Parameters):\n    threshold: float = 0.5\n"
        "@mmalign.hookimpl\ndef register_rewards():\n"
        "    target = 'greedy_reward:Config'\n"
        "    return [mmalign.RewardSpec(name='greedy', summary='.', target=target, config=target)]\n",
        encoding="utf-8",
    )
    config = toy_online(rewards={"name": "greedy"})
    config["plugins"].append(str(plugin))
    with pytest.raises(PluginError, match="reward 'greedy' has a parameter 'threshold', a key that all rewards have"):
        assemble(config)


def test_the_constant_aggregation_needs_a_horizon(toy_config: Build, toy_online: Build) -> None:
    with pytest.raises(ConfigError, match=r"objective\.horizon: missing; aggregation 'constant' divides by it"):
        assemble(toy_config(objective={"name": "likelihood"}))
    given = {"name": "policy_gradient", "aggregation": "constant", "horizon": 9}
    assert assemble(toy_online(objective=given)).objectives[0].horizon == 9


def test_the_file_of_a_configuration_is_in_its_errors(toy_config: Build, write_config: Callable[..., Path]) -> None:
    path = write_config(toy_config(objective={"name": "dpo", "beat": 1}))
    with pytest.raises(ConfigError, match=r"recipe\.yaml: objective\.beat"):
        load_assembly(path)


# -- the backend


def test_frozen_and_policy_quantities_agree_before_training(load: Any, toy_config: Build) -> None:
    run = load(toy_config())
    batch = run.backend.prepare(run.backend.encode(run.held_out))
    values = run.backend.policy_values(batch)
    assert torch.allclose(values["policy_sequence_logps"], batch.quantities["reference_sequence_logps"], atol=1e-6)
    assert values["policy_chosen_sequence_logps"].requires_grad
    assert not batch.quantities["reference_logps"].requires_grad
    assert values["policy_chosen_sequence_logps"].shape == (10,)


def test_scoring_in_parts_keeps_the_order_of_responses(load: Any, toy_config: Build) -> None:
    settings = {"steps": 1, "micro_batch_size": 3}
    run = load(toy_config(train=settings))
    batch = run.backend.encode(run.held_out)
    whole = run.backend.policy(batch.responses, ForwardPlan.of("logps"))["logps"]
    mask = batch.quantities["step_mask"]
    assert torch.allclose(run.backend.policy_logps(batch.responses)[mask], whole.detach()[mask], atol=1e-6)


def test_records_without_responses_change_nothing(load: Any, toy_config: Build) -> None:
    run = load(toy_config())
    bare = [record.with_responses([]) for record in run.held_out[:2]]
    batch = run.backend.prepare(run.backend.encode(bare))
    assert len(batch) == 0 and batch.quantities["reference_logps"].shape == (0, 0)
    mixed = run.backend.prepare(run.backend.encode([*bare, run.held_out[0]]))
    assert len(mixed) == 2


def test_rollouts_become_a_batch_with_rewards_and_advantages(load: Any, toy_online: Build) -> None:
    run = load(toy_online())
    prompts = run.held_out[:3]
    groups = run.backend.generate(prompts, 4)
    rollouts = [Rollout.build(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]
    batch = run.backend.prepare(run.backend.collect(rollouts), rollouts)
    texts = [one.response.text for rollout in rollouts for one in rollout.responses]
    assert batch.quantities["composite_rewards"].tolist() == pytest.approx([text.count("0") / 6 for text in texts])
    assert batch.quantities["advantages"].reshape(3, 4).sum(dim=1).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert batch.quantities["behaviour_logps"].shape == (12, 6)
    assert batch.quantities["prompt_index"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_distance_from_a_frozen_copy_is_measured_at_one_temperature(load: Any, toy_config: Build) -> None:
    # Offline the policy is trained at temperature 1 and sampled at another.
    run = load(toy_config(decoding={"name": "sample", "max_steps": 6, "temperature": 0.25}))
    rollouts = [Rollout.build(run.held_out[0], run.backend.generate(run.held_out[:1], 5)[0])]
    names = ("policy_logps", "reference_logps", "behaviour_logps")
    values = run.backend.quantities_of(rollouts, names)
    assert torch.allclose(values["policy_logps"], values["behaviour_logps"], atol=1e-5)
    assert torch.allclose(values["policy_logps"], values["reference_logps"], atol=1e-5)
    assert run.assembly.modality.temperature == 1.0


def test_rewards_that_are_not_configured_cannot_be_asked_for(load: Any, toy_config: Build) -> None:
    run = load(toy_config())
    assert run.backend.reward_names == ()
    with pytest.raises(TrainingError, match="no rewards are configured"):
        run.backend.score_rollouts([])


def test_a_step_sees_the_records_of_its_own_share_only(load: Any, toy_config: Build) -> None:
    run = load(toy_config())
    share = run.backend.encode(run.held_out).select([2, 3, 8])
    assert [record.id for record in StepContext(run.backend, share).records] == ["p1", "p4"]


def test_a_batch_coupled_quantity_is_the_same_in_every_micro_batch(load: Any, toy_config: Build) -> None:
    run = load(toy_config(objective={"name": "kto"}))
    with torch.no_grad():
        run.policy.network.table.mul_(-2)
    batch = run.backend.prepare_step(run.backend.prepare(run.backend.encode(run.held_out)))
    point = batch.quantities["kl_reference_point"]
    assert point.dim() == 0 and torch.isfinite(point)
    assert all(part.quantities["kl_reference_point"] == point for part in batch.micro_batches(2))


# -- inspection


def test_an_inspection_counts_the_data_and_loads_no_weights(toy_config: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly = assemble(toy_config())
    monkeypatch.setattr(type(assembly.modality), "load", None)
    # One that overrides this is taken at its word; one that does not is loaded for a trial.
    monkeypatch.setattr(type(assembly.modality), "parameter_counts", lambda self: None)
    inspection = inspect_run(assembly)
    train = inspection.data["train"]
    assert (train.records, train.responses, train.pairs, train.labelled) == (10, 20, 10, 20)
    assert train.longest == 4 and train.truncated == 0 and not train.partial
    assert inspection.total_steps == 4
    assert inspection.parameters is None and inspection.memory is None


def test_an_inspection_sees_quantities_that_plugins_compute_from_records(toy_config: Build) -> None:
    """Pairs hold neither ratings nor ranks, so there is nothing to grade."""
    with pytest.raises(DataError, match="'lipo_lambda' trains on prompts with comparable responses"):
        inspect_run(assemble(toy_config(objective={"name": "lipo_lambda"})))


def test_steps_are_counted_from_epochs(toy_config: Build) -> None:
    settings = {"epochs": 3, "batch_size": 4}
    assert inspect_run(assemble(toy_config(train=settings))).total_steps == 8


def test_an_inspection_refuses_data_that_the_objective_cannot_use(
    toy_config: Build, write_records: Callable[..., Path]
) -> None:
    row = {"id": "a", "prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}
    response = {"rid": "r0", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "01"}]}]}
    path = write_records("unpaired.jsonl", [{**row, "responses": [response]}])
    with pytest.raises(DataError, match="objective 'dpo' trains on preference pairs"):
        inspect_run(assemble(toy_config(data={"train": {"path": str(path)}})))
