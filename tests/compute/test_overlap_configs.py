"""Configurations whose scoring cannot overlap with sampling are refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scoring_server import ScoringServer, use

from mmalign import ConfigError, Engine
from mmalign.config.run_config import RunConfig
from mmalign.config.validation import validate
from mmalign.planning.assembly import assemble, load_registry_for

Build = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"collector": None, "advantage": None, "objective": {"name": "dpo"}}, "without `collector` or `rewards`"),
        ({"rewards": [{"name": "zeros"}]}, "none of the rewards scores in the background, as `http` does; drop it"),
        (
            {"train": {"steps": 1, "overlap_parts": 2, "batch_size": 1}},
            r"the 1 prompts of a round are sampled at once, so nothing would overlap; sample fewer",
        ),
        ({"train": {"steps": 1, "overlap_parts": 0}}, r"train\.overlap_parts: must be at least 1, got 0"),
    ],
)
def test_an_overlap_of_nothing_is_refused(
    sections: dict[str, Any], message: str, toy_online: Build, scoring_server: ScoringServer
) -> None:
    given = {"rewards": [use(scoring_server)], "train": {"steps": 1, "overlap_parts": 2}} | sections
    config = toy_online(**given)
    with pytest.raises(ConfigError, match=message):
        assemble(validate(RunConfig, config, ""), load_registry_for(config))


def test_parts_that_cannot_be_alone_are_refused(
    toy_online: Build, scoring_server: ScoringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmalign_collectors.group import GroupCollector
    from mmalign_engines.hf import InProcessEngine

    config = toy_online(rewards=[use(scoring_server)], train={"steps": 1, "overlap_parts": 2})
    checked = validate(RunConfig, config, "")
    registry = load_registry_for(config)
    with monkeypatch.context() as patch:
        patch.setattr(InProcessEngine, "prompts_per_draw", Engine.prompts_per_draw)
        with pytest.raises(ConfigError, match="engine 'hf' with modality 'toy' cannot sample in parts"):
            assemble(checked, registry)
    with monkeypatch.context() as patch:
        patch.setattr(GroupCollector, "independent_group", None)
        patch.setattr(GroupCollector, "__init__", lambda self, group_size: None)
        with pytest.raises(ConfigError, match=r"train\.overlap_parts: collector 'group' needs all prompts at once"):
            assemble(checked, registry)
