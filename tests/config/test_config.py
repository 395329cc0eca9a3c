"""Run configurations: reading, overriding, refusing, and writing one that reads back to itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign import ConfigError, RunConfig, load_config
from mmalign.config.reading import Overrides, read_config
from mmalign.config.run_config import dump_config

MINIMAL = """
modality: {name: toy}
data: {train: {path: train.jsonl}}
objective: {name: dpo, beta: 0.5}
train: {steps: 3}
output: runs/test
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "dpo.yaml"
    path.write_text(MINIMAL)
    return path


def failure(path: Path, overrides: Overrides = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_one_objective_and_a_list_of_one_are_the_same(minimal: Path) -> None:
    config = load_config(minimal)
    assert [component.name for component in config.objective] == ["dpo"]
    assert config.objective[0].parameters == {"beta": 0.5}
    assert config.objective[0].weight == 1.0
    assert load_config(minimal, {"objective": [{"name": "dpo", "beta": 0.5}]}) == config


def test_sections_that_are_left_out_have_defaults(minimal: Path) -> None:
    config = load_config(minimal)
    assert config.decoding.name == "sample"
    assert config.data.eval is None and config.collector is None and config.rewards == ()


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.learning_rate=1e-5", lambda config: config.train.learning_rate == 1e-5),
        ("train.steps=7", lambda config: config.train.steps == 7),
        ("train.max_grad_norm=null", lambda config: config.train.max_grad_norm is None),
        ("objective.beta=2", lambda config: config.objective[0].parameters == {"beta": 2}),
        ("rewards=[{name: vader, weight: 2}]", lambda config: config.rewards[0].weight == 2),
        ("data.train.shuffle=false", lambda config: config.data.train.shuffle is False),
        ("output=runs/with=sign", lambda config: config.output == "runs/with=sign"),
        ("modality.note=a: b", lambda config: config.modality.parameters["note"] == "a: b"),
    ],
)
def test_overrides_are_read_as_yaml_values(minimal: Path, override: str, read: Callable[[RunConfig], bool]) -> None:
    assert read(load_config(minimal, [override]))


def test_a_mapping_changes_only_the_keys_that_it_names(minimal: Path) -> None:
    config = load_config(minimal, {"train": {"batch_size": 2}, "modality": {"model": "x"}})
    assert (config.train.steps, config.train.batch_size) == (3, 2)
    assert config.modality.name == "toy" and config.modality.parameters == {"model": "x"}


def test_a_component_replaces_the_one_that_was_there(minimal: Path) -> None:
    config = load_config(minimal, {"modality.model": "x", "modality": {"name": "other"}})
    assert config.modality.name == "other" and config.modality.parameters == {}


def test_overrides_reach_into_lists(minimal: Path) -> None:
    rewards = [{"name": "vader"}, {"name": "length", "target": 3}]
    config = load_config(minimal, {"rewards": rewards, "rewards.1.weight": 0.25})
    assert [reward.weight for reward in config.rewards] == [1.0, 0.25]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.learning_rat=1"], "train.learning_rat: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        (["train.steps=many"], "train.steps: expected a whole number, got 'many'"),
        (["train.batch_size=0"], "train.batch_size: must be at least 1, got 0"),
        (["train.schedule=linaer"], "did you mean 'linear'?"),
        (["train.seed=-1"], "train.seed"),
        (["optimizer.lr=1"], "unknown key 'optimizer'"),
        (["train.steps=null"], "train.steps or train.epochs is needed"),
        (["objective=[]"], "objective"),
        (["objective=[{beta: 1}]"], "name"),
        (["train.steps"], "override 'train.steps': expected key.path=value"),
        (["=3"], "override '=3': expected key.path=value"),
        (["rewards.3.weight=1"], ""),
    ],
)
def test_a_mistake_names_file_place_and_remedy(minimal: Path, overrides: list[str], expected: str) -> None:
    message = failure(minimal, overrides)
    assert expected in message
    if not expected.startswith("override"):
        assert message.startswith(str(minimal))


def test_all_mistakes_are_told_at_once(minimal: Path) -> None:
    message = failure(minimal, ["train.stepps=1", "train.batch_size=x", "evaluation.ever=2"])
    assert len(message.splitlines()) == 3
    for key in ("train.stepps", "train.batch_size", "evaluation.ever"):
        assert key in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "expected a mapping"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: ${b}\n", "b"),
        ("", "modality"),
        ("just words", "unknown key 'just words'"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    message = failure(path)
    assert message.startswith(str(path)) and expected in message


def test_a_missing_file_names_the_nearest(minimal: Path) -> None:
    message = failure(minimal.with_name("dqo.yaml"))
    assert "no such file" in message and f"did you mean {str(minimal)!r}?" in message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc"])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert str(path) in failure(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in failure(tmp_path)


@pytest.mark.parametrize(
    "parameters",
    [
        {"beta": 1e-5, "name_like": "dpo"},
        {"note": "a: b # c", "text": "null", "number": "1e-5", "hexadecimal": "0x1F", "empty": "", "nothing": None},
        {"revision": "7e12345", "version": "1.0", "yes": "yes", "date": "2024-01-01"},
        {"template": "{% for m in messages %}\n${m} {{ m['content'] }}\n{% endfor %}\n", "escaped": "\\${x}"},
        {"nested": {"rank": 8, "layers": [1, 2]}, "name_de": "Grüße", "flag": True},
    ],
)
def test_the_written_configuration_reads_back_to_itself(
    minimal: Path, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    config = load_config(minimal)
    config = config.model_copy(update={"modality": type(config.modality)(name="toy", **parameters)})
    written = tmp_path / "resolved.yaml"
    written.write_text(dump_config(config), encoding="utf-8")
    assert load_config(written) == config
    assert load_config(written).modality.parameters == parameters


def test_interpolations_are_resolved_once(minimal: Path) -> None:
    minimal.write_text(MINIMAL + "evaluation: {every: '${train.steps}'}\n")
    assert load_config(minimal).evaluation.every == 3
    assert read_config(minimal, ["train.steps=9"])["evaluation"]["every"] == 9
