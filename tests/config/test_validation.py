"""Validation: each kind of mistake is one line with its place, what was got and what was expected."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmalign.config.parameters import ParameterRow, parameters_table
from mmalign.config.run_config import RunConfig
from mmalign.config.sections import TrainConfig
from mmalign.config.validation import load_config_model, validate, validate_parameters
from mmalign.contract.specs import Parameters, RewardSpec
from mmalign.errors import ConfigError, PluginError


class Adapter(Parameters):
    rank: int = Field(default=8, ge=1)
    """Rank of the update."""
    dropout: float = 0.0


class Part(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    weight: float = 1.0


class Method(Parameters):
    beta: float = Field(default=0.1, gt=0, le=10)
    """Strength of the
    anchor."""
    schedule: Literal["linear", "cosine"] = "linear"
    adapter: Adapter | None = None
    layers: int | list[int] = 1
    rewards: tuple[Part, ...] = Field(default=(), max_length=2)
    betas: tuple[float, float] = (0.9, 0.99)
    path: str = "here"
    flag: bool = False

    @model_validator(mode="after")
    def _check(self) -> Method:
        if self.path == "nowhere":
            raise ValueError("path leads nowhere")
        return self


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            {"bata": 1},
            "m.bata: unknown key 'bata'; did you mean 'beta'? known: "
            "adapter, beta, betas, flag, layers, path, rewards, schedule",
        ),
        ({"beta": "abc"}, "m.beta: expected a number, got 'abc'"),
        ({"beta": None}, "m.beta: expected a number, got null"),
        ({"beta": True}, "m.beta: expected a number, got true"),
        ({"beta": 0}, "m.beta: must be greater than 0.0, got 0"),
        ({"beta": 11}, "m.beta: must be at most 10.0, got 11"),
        ({"schedule": "linaer"}, "m.schedule: unknown value 'linaer'; did you mean 'linear'? known: cosine, linear"),
        ({"schedule": 3}, "m.schedule: expected 'linear' or 'cosine', got 3"),
        ({"adapter": {"rnk": 2}}, "m.adapter.rnk: unknown key 'rnk'; did you mean 'rank'? known: dropout, rank"),
        ({"adapter": {"rank": 2.5}}, "m.adapter.rank: expected a whole number, got 2.5"),
        ({"adapter": {"rank": 0}}, "m.adapter.rank: must be at least 1, got 0"),
        ({"adapter": {"rank": False}}, "m.adapter.rank: expected a number, got false"),
        ({"adapter": {"dropout": True}}, "m.adapter.dropout: expected a number, got true"),
        ({"adapter": 3}, "m.adapter: expected a mapping of keys to values, got 3"),
        ({"layers": "all"}, "m.layers: expected a whole number or a list, got 'all'"),
        ({"rewards": {"name": "a"}}, "m.rewards: expected a list, got {'name': 'a'}"),
        ({"rewards": [{"name": "a"}, {"name": 3}]}, "m.rewards[1].name: expected text, got 3"),
        ({"rewards": [{"name": "a", "weight": True}]}, "m.rewards[0].weight: expected a number, got true"),
        ({"rewards": [{}]}, "m.rewards[0].name: missing; this key has no default"),
        ({"rewards": [{"name": "a"}] * 3}, "m.rewards: expected at most 2 item(s), got 3"),
        ({"betas": [0.9]}, "m.betas[1]: missing; this key has no default"),
        ({"flag": "maybe"}, "m.flag: expected true or false, got 'maybe'"),
        ({"path": "nowhere"}, "m: path leads nowhere"),
    ],
)
def test_mistake_is_one_line_with_its_place(data: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Method, data, "m", "run.yaml")
    assert str(caught.value) == f"run.yaml: {line}"


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Method, {"beta": -1, "layers": "x", "pth": "", "rewards": [{"weight": "y"}]}, "", "run.yaml")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "beta",
        "layers",
        "rewards[0].name",
        "rewards[0].weight",
        "pth",
    ]


def test_place_of_a_single_mapping_has_no_index() -> None:
    data = {"modality": {"name": "text"}, "data": {"train": {"path": "a"}}, "output": "o", "objective": {"weight": 2}}
    with pytest.raises(ConfigError, match=r"^objective\.name: missing"):
        validate(RunConfig, data, "")


def test_good_data_become_the_model() -> None:
    model = validate(Method, {"beta": 1, "adapter": {"rank": 4}, "flag": True}, "")
    assert (model.beta, model.adapter, model.flag) == (1.0, Adapter(rank=4), True)


def test_parameters_are_checked_by_the_model_that_the_spec_names() -> None:
    spec = RewardSpec(name="r", summary="", target="a:b", config="mmalign.config.run_config:TrainConfig")
    assert validate_parameters(spec, {"steps": 3}, "rewards[0]") == TrainConfig(steps=3)
    with pytest.raises(ConfigError, match=r"^f\.yaml: rewards\[0\]\.stps: unknown key 'stps'; did you mean 'steps'"):
        validate_parameters(spec, {"stps": 3}, "rewards[0]", "f.yaml")


def test_config_that_is_no_model_is_an_error_of_the_plugin() -> None:
    with pytest.raises(
        PluginError, match=r"reward 'r': config 'mmalign\.config\.run_config:dump_config' is .* subclass of"
    ):
        load_config_model(
            RewardSpec(name="r", summary="", target="a:b", config="mmalign.config.run_config:dump_config")
        )


def test_parameters_table_shows_types_bounds_defaults_and_help() -> None:
    rows = {row.name: row for row in parameters_table(Method)}
    assert rows["beta"] == ParameterRow("beta", "float > 0, <= 10", "0.1", "Strength of the anchor.")
    assert rows["schedule"].type == "'linear' | 'cosine'"
    assert rows["adapter"][1:3] == ("Adapter | None", "null")
    assert rows["adapter.rank"] == ParameterRow("adapter.rank", "int >= 1", "8", "Rank of the update.")
    assert rows["betas"][1:3] == ("tuple[float, float]", "[0.9, 0.99]")
    assert rows["rewards.name"].default == "required"
