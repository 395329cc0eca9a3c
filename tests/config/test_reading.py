"""Whatever a YAML file or an override holds: a mapping of plain values, or one message with the file and the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmalign import ConfigError, load_config
from mmalign.config.reading import read_config

GOOD = """\
modality: {name: toy}
data: {train: {path: train.jsonl}}
objective: {name: dpo}
train: {steps: 3}
output: runs/test
"""
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))])


def message(tmp_path: Path, content: str | bytes, overrides: tuple[str, ...] = ()) -> str:
    path = tmp_path / "run.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("z: !!bool abc", "FILE: line 6: 'abc' is not a YAML bool"),
        ("z: [1, {y: !!timestamp abc}]", "FILE: line 6: 'abc' is not a YAML timestamp"),
        ("z: !!int abc", "FILE: line 6: 'abc' is not a YAML int"),
        ("!!float abc: 1", "FILE: line 6: 'abc' is not a YAML float"),
        (f"z: {'9' * 5000}", "FILE: line 6: '99999"),
        ("z: !!binary é", "FILE: not valid YAML"),
        ("z: !!omap [1]", "FILE: not valid YAML"),
        ("z: !!set 3", "FILE: not valid YAML"),
        ("z: !unknown 3", "FILE: not valid YAML: could not determine a constructor for the tag '!unknown'"),
        ("z: !!python/object/apply:os.getcwd []", "FILE: not valid YAML: could not determine a constructor"),
        ("z: {<<: 3}", "FILE: not valid YAML"),
        ("z: *nowhere", "FILE: not valid YAML: found undefined alias"),
        ("z: &a [*a]", "FILE: not valid YAML: YAML recursive aliases"),
        (BOMB, "FILE: not valid YAML: YAML node expansion exceeds"),
        ("train: {steps: 4}", "FILE: not valid YAML: while constructing a mapping"),
        ("1: 2", "FILE: [1]: keys should be strings, got 1"),
        ("? [a]\n: b", "FILE: not valid YAML"),
        ("~: 3", "FILE: Incompatible key type"),
        ('z: "\\ud800"', "FILE: not valid YAML"),
        ("z: \x07", "FILE: not valid YAML"),
        ("z: ${nowhere}", "FILE: z: Interpolation key 'nowhere' not found"),
        ("z: ${z}", "FILE: z: Recursive interpolation detected"),
        ("z: ???", "FILE: z: Missing mandatory value"),
        (f"z: {'[' * 3000}", "FILE: not valid YAML: while increasing flow level exceeded"),
        (f"z: {'[' * 900}{']' * 900}", "FILE: nested too deeply"),
        ("z: 1e999", "FILE: z: unknown key 'z'"),
        ("z: 2020-13-45", "FILE: z: unknown key 'z'"),
        ("---\na: 1", "FILE: not valid YAML: expected a single document"),
    ],
)
def test_a_line_that_cannot_be_read(line: str, expected: str, tmp_path: Path) -> None:
    assert message(tmp_path, f"{GOOD}{line}\n").startswith(expected)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    assert message(tmp_path, f"{GOOD}# é\n".encode(encoding)) == "FILE: not a text file in UTF-8"


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(GOOD.encode("utf-8-sig"))
    assert load_config(path).train.steps == 3


@pytest.mark.parametrize("content", ["- 1", "3", "text", "!!set {a}"])
def test_a_file_without_keys(content: str, tmp_path: Path) -> None:
    assert "FILE: " in message(tmp_path, content)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=!!bool abc", "override train.steps: '!!bool abc' is no value that YAML knows"),
        ("train.steps=!!timestamp abc", "override train.steps: "),
        (f"train.steps={'9' * 5000}", "override train.steps: '99999"),
        ("train.steps=${nowhere}", "FILE: train.steps: Interpolation key 'nowhere' not found"),
        (f"train.steps={'[' * 900}{']' * 900}", "override train.steps: "),
        ("plugins=5", "FILE: plugins: expected a list, got 5"),
        ("plugins=[[a.py]]", "FILE: plugins[0]: expected text, got ['a.py']"),
        ("plugins=[{a: b}]", "FILE: plugins[0]: expected text"),
        ("plugins=[null]", "FILE: plugins[0]: expected text, got null"),
        ("objective.weight=.nan", "FILE: objective.weight: expected a finite number, got nan"),
        ("train.adam_betas=[2, 3]", "FILE: train.adam_betas[0]: must be less than 1.0, got 2"),
    ],
)
def test_an_override_that_cannot_be_meant(override: str, expected: str, tmp_path: Path) -> None:
    assert message(tmp_path, GOOD, (override,)).startswith(expected)


def test_numbers_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: 1e-5\nb: '1e-5'\nc: 1.0e-5\nd: &x {k: 0x10}\ne: {<<: *x, j: 07}\nf: 2020-01-01\n")
    assert read_config(path, ["g=1e-3"]) == {
        **{"a": 1e-5, "b": "1e-5", "c": 1e-5, "d": {"k": 16}, "e": {"k": 16, "j": 7}, "f": "2020-01-01", "g": 1e-3},
    }
