"""The modality: what is scored is what was sampled, and text that is not a path is refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mmalign_trajectories.modality import TrajectoryModality
from mmalign_trajectories.policy import GaussianPolicy

from mmalign import ConfigError, DataError, Decoding, Model, Record

TASK = '{"start": [0, 0], "goal": [1, 2]}'


def build(*, hidden: int = 8, std: float = 0.5, weights: str | None = None) -> TrajectoryModality:
    return TrajectoryModality(hidden=hidden, std=std, weights=weights)


def load(modality: TrajectoryModality, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return modality.load(device=torch.device("cpu"), dtype=torch.float32)


def make_record(*paths: Sequence[Sequence[float]], prompt: str = TASK) -> Record:
    return Record.from_text(prompt, [json.dumps(path) for path in paths], id="walk")


def without_mean() -> GaussianPolicy:
    """A policy whose moves are Gaussian around 0."""
    policy = GaussianPolicy(hidden=8, std=0.5)
    for parameter in policy.mean.parameters():
        torch.nn.init.zeros_(parameter)
    return policy


# -- scoring --------------------------------------------------------------------------------------------------------


def test_a_log_prob_worked_out_by_hand() -> None:
    modality = build()
    encoded = modality.encode(make_record([[0.5, -1.0]]))
    logps, mask = modality.step_log_probs(without_mean(), encoded)
    # -(0.5^2 + 1^2) / (2 * 0.25) - 2 ln 0.5 - ln 2 pi = -2.5 + 1.386294 - 1.837877
    assert logps.tolist() == [[pytest.approx(-2.951583, abs=1e-6)]]
    assert mask.tolist() == [[True]]


def test_the_temperature_multiplies_the_standard_deviation() -> None:
    modality = build()
    modality.temperature = 2.0
    encoded = modality.encode(make_record([[0.5, -1.0]]))
    logps, _ = modality.step_log_probs(without_mean(), encoded)
    # With a standard deviation of 1: -(0.5^2 + 1^2) / 2 - ln 2 pi
    assert logps.tolist() == [[pytest.approx(-2.462877, abs=1e-6)]]


def test_a_step_is_a_move_from_the_point_before() -> None:
    modality = build()
    network = load(modality).network
    path = [[0.3, 0.1], [0.4, 0.6], [1.0, 1.9]]
    logps, _ = modality.step_log_probs(network, modality.encode(make_record(path)))
    visited = torch.tensor([[0.0, 0.0], *path])
    goal = torch.tensor([1.0, 2.0])
    for step, (point, after) in enumerate(pairwise(visited)):
        normal = torch.distributions.Normal(network.mean(torch.cat([point, goal])), torch.tensor(0.5))
        assert logps[0, step].item() == pytest.approx(normal.log_prob(after - point).sum().item(), rel=1e-5)


def test_padding_changes_no_score() -> None:
    modality = build()
    network = load(modality).network
    short, long = modality.encode(make_record([[0.5, 0.5]], [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))
    together, mask = modality.step_log_probs(network, [short, long])
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    for row, encoded in enumerate((short, long)):
        alone, _ = modality.step_log_probs(network, [encoded])
        torch.testing.assert_close(together[row, : encoded.steps], alone[0])


def test_every_weight_gets_a_gradient() -> None:
    modality = build()
    network = load(modality).network
    logps, mask = modality.step_log_probs(network, modality.encode(make_record([[0.5, 0.5], [1.0, 1.0]])))
    logps[mask].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


# -- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_behaviour_log_probs_are_those_of_the_sampled_steps(temperature: float) -> None:
    modality = build()
    network = load(modality).network
    prompts = [make_record(), make_record(prompt='{"start": [3, -1], "goal": [0, 0]}')]
    groups = modality.generate(network, prompts, Decoding(temperature=temperature, max_steps=5), 3)
    assert [len(group) for group in groups] == [3, 3]
    sampled = [one for group in groups for one in group]
    modality.temperature = temperature
    logps, mask = modality.step_log_probs(network, [one.encoded for one in sampled])
    assert mask.all()
    torch.testing.assert_close(logps, torch.stack([one.behaviour_logps for one in sampled]), atol=1e-5, rtol=1e-5)


def test_a_sampled_path_survives_being_stored_as_text() -> None:
    modality = build()
    prompt = make_record(prompt='{"start": [3, -1], "goal": [0, 0]}')
    ((sampled,),) = modality.generate(load(modality).network, [prompt], Decoding(max_steps=5), 1)
    (again,) = modality.encode(prompt.with_responses([sampled.response]))
    assert again.steps == sampled.encoded.steps == 5
    for name, tensor in sampled.encoded.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, atol=2e-5, rtol=0)
    assert modality.decode(prompt, sampled.response)[0] == pytest.approx(again.tensors["positions"][1].tolist())


def test_equal_seeds_walk_equal_paths() -> None:
    modality = build()
    network = load(modality).network
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        ((sampled,),) = modality.generate(network, [make_record()], Decoding(max_steps=3), 1)
        texts.append(sampled.response.text)
    assert texts[0] == texts[1] != texts[2]


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("go north", "Invalid JSON"),
        ('{"start": [0, 0]}', "goal: Field required"),
        ('{"start": [0, 0, 0], "goal": [1, 2]}', "start"),
        ('{"start": [0, NaN], "goal": [1, 2]}', "start.1"),
        ('{"start": [0, 0], "goal": [1, 2], "gaol": [1, 2]}', "gaol"),
    ],
)
def test_a_prompt_that_names_no_task_is_refused(prompt: str, reason: str) -> None:
    with pytest.raises(DataError, match=r"record 'walk': prompt: .*expected JSON such as") as caught:
        build().encode(make_record([[0.0, 0.0]], prompt=prompt))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("straight on", "Invalid JSON"),
        ("[]", "at least 1 item"),
        ("[1, 2]", "0: Input should be a valid array"),
        ("[[1, 2], [3]]", "1.1: Field required"),
        ("[[1, Infinity]]", "0.1"),
    ],
)
def test_a_response_that_is_no_path_is_refused(response: str, reason: str) -> None:
    with pytest.raises(DataError, match=r"record 'walk', response 'r0': .*expected points such as") as caught:
        build().encode(Record.from_text(TASK, [response], id="walk"))
    assert reason in str(caught.value)


# -- weights --------------------------------------------------------------------------------------------------------


def test_the_counted_weights_are_the_loaded_ones() -> None:
    modality = build(hidden=5)
    loaded = sum(parameter.numel() for parameter in load(modality).network.parameters())
    # 4 x 5 + 5, 5 x 2 + 2, and the standard deviation
    assert modality.parameter_counts() == (loaded, loaded) == (38, 38)


def test_saved_weights_are_a_start(tmp_path: Path) -> None:
    modality = build()
    model = load(modality, seed=1)
    modality.save(model, str(tmp_path))
    again = load(build(weights=str(tmp_path / "model.safetensors")), seed=2)
    encoded = modality.encode(make_record([[0.5, 0.5]]))
    torch.testing.assert_close(
        modality.step_log_probs(again.network, encoded), modality.step_log_probs(model.network, encoded)
    )


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(ConfigError, match=r"modality\.weights: no such file"):
        load(build(weights=str(file)))
    modality = build(hidden=8)
    modality.save(load(modality), str(tmp_path))
    with pytest.raises(ConfigError, match="is `hidden` right"):
        load(build(hidden=9, weights=str(file)))
    file.write_bytes(b"not weights")
    with pytest.raises(ConfigError, match="does not fit"):
        load(build(weights=str(file)))
