"""Completing encodings with networks: what a modality is given, what the engine checks, where measurements go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_plugin import Toy

import mmalign
from mmalign import ConfigError, EncodedResponse, PluginError, RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.networks.augmentation import Networks

BuildConfig = Callable[..., dict[str, Any]]

PLUGIN = """
from mmalign import ModalitySpec, hookimpl

@hookimpl
def register_modalities():
    return [ModalitySpec(name="consulting", summary="Asks.", target="test_networks:Consulting")]
"""


class Consulting(Toy):
    """Digits whose encoding also says what the asked network thinks of a digit 0."""

    asked: str = "policy"
    drop: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.required_networks = frozenset({self.asked})
        self.stochastic_encoding = self.asked == "policy"

    def augment(
        self, networks: Networks, responses: Sequence[EncodedResponse]
    ) -> tuple[list[EncodedResponse], dict[str, Tensor]]:
        assert not torch.is_grad_enabled() or not responses
        with networks.use(self.asked) as network:
            assert not network.training
            opinion = network(torch.tensor([0]), 1.0)[0, 0]
        told = [replace(one, tensors={**one.tensors, "opinion": opinion}) for one in responses]
        known = torch.tensor([float("nan")] * (len(told) - 1) + [float(opinion)])
        return told[1:] if self.drop else told, {"opinion": known}


@pytest.fixture
def build(toy_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    (tmp_path / "consulting.py").write_text(PLUGIN, encoding="utf-8")

    def make(asked: str = "policy", *, drop: bool = False, online: bool = False, **sections: Any) -> RunConfig:
        monkeypatch.setattr(Consulting, "asked", asked)
        monkeypatch.setattr(Consulting, "drop", drop)
        config = toy_config(**sections)
        plugins = [*config["plugins"], str(tmp_path / "consulting.py")]
        return RunConfig.model_validate({**config, "modality": {"name": "consulting"}, "plugins": plugins})

    return make


def rows_of(run: Any, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in read_metrics(run.output) if row["kind"] == kind]


def test_encodings_of_every_batch_are_completed_and_measured(build: Callable[..., RunConfig]) -> None:
    run = mmalign.train(build())
    measured = [row["opinion"] for row in rows_of(run, "train")]
    assert len(set(measured)) == len(measured) == 4, "the policy is asked as it is at each round"
    assert run.before["opinion"] == pytest.approx(measured[0]) and run.after["opinion"] != run.before["opinion"]


def test_the_reference_is_there_where_only_the_modality_asks_for_it(build: Callable[..., RunConfig]) -> None:
    run = mmalign.train(build("reference", objective={"name": "sft"}))
    assert len({row["opinion"] for row in rows_of(run, "train")}) == 1
    assert run.backend.reference is not None


def test_a_moving_reference_is_asked_as_it_is(build: Callable[..., RunConfig]) -> None:
    reference = {"strategy": "sync", "every": 1}
    run = mmalign.train(build("reference", objective={"name": "sft"}, reference=reference))
    assert len({row["opinion"] for row in rows_of(run, "train")}) == 4


def test_a_teacher_that_is_not_there_is_named(build: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=r"teachers.judge: missing; modality 'consulting' asks for a network"):
        mmalign.check(build("judge"))
    run = mmalign.train(build("judge", teachers={"judge": {}}))
    assert len({row["opinion"] for row in rows_of(run, "train")}) == 1


def test_sampled_responses_are_completed_too(build: Callable[..., RunConfig], toy_online: BuildConfig) -> None:
    online = {key: toy_online()[key] for key in ("objective", "collector", "rewards", "advantage")}
    run = mmalign.train(build(**online))
    assert all("opinion" in row for row in rows_of(run, "train"))


def test_responses_that_get_lost_stop_the_run(build: Callable[..., RunConfig]) -> None:
    with pytest.raises(PluginError, match=r"Consulting.augment changed the number of responses"):
        mmalign.train(build(drop=True))


def test_what_is_drawn_anew_is_not_kept(build: Callable[..., RunConfig]) -> None:
    assert mmalign.train(build("policy")).backend.reference_cache is None
    cache = mmalign.train(build("reference", output=str(build().output) + "2")).backend.reference_cache
    assert cache is not None and cache.computed > 0


def test_an_unknown_network_is_named() -> None:
    networks = Networks(torch.device("cpu"), torch.no_grad, {"policy": torch.no_grad})  # type: ignore[dict-item]
    with (
        pytest.raises(PluginError, match="no network 'polcy' in this run; did you mean 'policy'"),
        networks.use("polcy"),
    ):
        pass
