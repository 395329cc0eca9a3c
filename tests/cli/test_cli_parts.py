"""The light commands, through `main` as a user calls them, and the schema that `mmalign schema` writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmalign import __version__
from mmalign.cli.context import current_registry
from mmalign.cli.main import COMMANDS, main
from mmalign.cli.parts import PLURALS
from mmalign.config.run_config import COMPONENT_KINDS, RunConfig
from mmalign.config.schema import json_schema
from mmalign.plugins.registry import Registry

PLUGIN_FILE = """
import mmalign

class Config(mmalign.Parameters):
    words: int = 3
    '''Words [at most] that are free.'''

class B(mmalign.Reward):
    def score(self, samples):
        return [0.0 for _ in samples]

@mmalign.hookimpl
def register_rewards():
    return [
        mmalign.RewardSpec(name="brevity", summary="Fewer [b]words[/b].", target="odd_rewards:B",
                           config="odd_rewards:Config", paper="Brevity (arXiv:0000.00000)", aliases=("short",)),
        mmalign.RewardSpec(name="needy", summary="Never here.", target="odd_rewards:N",
                           config="nowhere_to_be_found:C", requires=("nowhere_to_be_found",)),
    ]
"""


@pytest.fixture(scope="module")
def schema_of_this_machine() -> dict[str, Any]:
    return json_schema(RunConfig, COMPONENT_KINDS, current_registry())


@pytest.fixture
def odd_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What the commands see: the installed plugins and a plugin file with an available and an unavailable part."""
    file = tmp_path / "odd_rewards.py"
    file.write_text(PLUGIN_FILE)
    registry = current_registry([file])
    monkeypatch.setattr("mmalign.cli.parts.current_registry", lambda: registry)
    monkeypatch.setenv("COLUMNS", "200")
    return registry


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mmalign", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


Capture = pytest.CaptureFixture[str]


def test_help_lists_every_command_and_imports_none() -> None:
    code = "import sys, mmalign.cli.main as c; sys.argv[1:] = ['--help']\ntry: c.main()\nexcept SystemExit: pass\n"
    check = "sys.exit(bool({'torch', 'pydantic', 'mmalign.cli.parts', 'mmalign.cli.train'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    for name, command in COMMANDS.items():
        assert name in result.stdout
        assert command.help in result.stdout


def test_every_command_of_the_table_exists(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for name in COMMANDS:
        assert run(monkeypatch, name, "--help") == 0, name
        assert f"mmalign {name}" in capsys.readouterr().out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"mmalign {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "no such command 'lst'; did you mean 'list'?"),
        (["list", "rewrds"], "error: unknown kind 'rewrds'; did you mean 'rewards'?"),
        (["explain", "sampel"], "error: unknown part 'sampel'; did you mean 'sample'?"),
        (["explain", "sample", "--kind", "rewards"], "error: unknown part 'sample'; known:"),
        (
            ["--no-plugin", "decoding", "list"],
            "error: --no-plugin: unknown plugin 'decoding'; did you mean 'decodings'?",
        ),
        (["list", "--jsn"], "No such option: --jsn"),
        (["schema", "-o", "no/such/folder/schema.json"], "error: --output: cannot write 'no/such/folder/schema.json'"),
    ],
)
def test_mistakes_exit_with_2_and_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mmalign.cli.parts.current_registry", fail)
    monkeypatch.setattr(sys, "argv", ["mmalign", "plugins"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_plugins_as_json(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "--no-plugin", "rewards", "plugins", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["decodings"]["provides"] == {"decoding": ["greedy", "sample"]}
    assert {"name", "distribution", "version", "status", "error", "provides"} <= set(rows["decodings"])
    assert (rows["rewards"]["status"], rows["rewards"]["provides"]) == ("disabled", {})


def test_an_import_string_to_nowhere_breaks_its_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    file = tmp_path / "odd_rewards.py"
    file.write_text(PLUGIN_FILE.replace("odd_rewards:B", "odd_rewards:Brevity"))
    registry = current_registry([file])
    monkeypatch.setattr("mmalign.cli.parts.current_registry", lambda: registry)
    assert run(monkeypatch, "plugins", "--json") == 0
    (told,) = [one for one in json.loads(capsys.readouterr().out) if one["name"] == "odd_rewards"]
    assert told["status"] == "broken"
    assert told["error"].startswith(
        "reward 'brevity': import string 'odd_rewards:Brevity': 'odd_rewards' has no 'Brevity'"
    )
    assert run(monkeypatch, "plugins", "--check") == 2
    assert "plugin 'odd_rewards' is broken: reward 'brevity': import string" in capsys.readouterr().err


@pytest.mark.usefixtures("odd_registry")
def test_plugins_as_a_table(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "plugins") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("odd_rewards"))
    assert "ok" in row.split()
    assert "rewards: brevity, needy" in row


@pytest.mark.parametrize("kind", ["decoding", "decodings", "Decodings"])
def test_list_takes_singular_and_plural(monkeypatch: pytest.MonkeyPatch, capsys: Capture, kind: str) -> None:
    assert run(monkeypatch, "list", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["name"]) for row in rows] == [("decoding", n) for n in ("diffusion", "greedy", "sample")]
    assert {row["status"] for row in rows} == {"ok"}


def test_list_without_a_kind_shows_all(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, odd_registry: Registry
) -> None:
    assert run(monkeypatch, "list") == 0
    shown = capsys.readouterr().out
    for kind, plural in PLURALS.items():
        assert (plural in shown) == bool(odd_registry.entries(kind))
        assert all(name in shown for name in odd_registry.names(kind))
    assert "unavailable: needs nowhere_to_be_found, which is not installed; pip install nowhere_to_be_found" in shown


@pytest.mark.usefixtures("odd_registry")
@pytest.mark.parametrize("name", ["brevity", "short"])
def test_explain_shows_what_the_spec_says(monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str) -> None:
    assert run(monkeypatch, "explain", name) == 0
    shown = capsys.readouterr().out
    for words in ("brevity (reward)", "Fewer [b]words[/b].", "Brevity (arXiv:0000.00000)", "odd_rewards"):
        assert words in shown
    row = next(line for line in shown.splitlines() if line.startswith("words"))
    assert row.split(maxsplit=3) == ["words", "int", "3", "Words [at most] that are free."]


@pytest.mark.usefixtures("odd_registry")
def test_explain_tells_what_an_unavailable_part_needs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "explain", "needy") == 0
    shown = capsys.readouterr().out
    assert "pip install nowhere_to_be_found" in shown
    assert "parameters are not known" in shown


@pytest.mark.parametrize(("name", "shown"), [("dpo", False), ("policy_gradient", True)])
def test_explain_shows_the_aggregation_of_steps_only(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str, shown: bool
) -> None:
    assert run(monkeypatch, "explain", name) == 0
    facts = capsys.readouterr().out.partition("\nplugin ")[0]
    assert ("aggregation" in facts) == shown


def test_explain_shows_the_whole_path_and_line_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run(monkeypatch, "explain", "opmd") == 0
    shown = "".join(capsys.readouterr().out.split())
    file, line = re.search(r"definedin(/.*/policy_gradient/opmd\.py):(\d+)needs", shown).groups()
    assert Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].startswith("def opmd_loss(")


def test_explain_shows_what_an_objective_can_be_used_with(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, "explain", "kto") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for fact in (
        "modalities diffusion, diffusion_path, text, vision_language",
        "needs met by stored responses",
        "batch-coupled kl_reference_point",
    ):
        assert fact in lines
    assert "golden vectors kto" in lines


def test_explain_says_that_a_name_is_an_alias(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "explain", "ipo_mean") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert (first, second) == ("ipo_mean is an alias of ipo, another name of the same part.", "ipo (objective)")


def test_explain_as_json_shows_limits(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "explain", "alpha_po", "--json") == 0
    (part,) = json.loads(capsys.readouterr().out)
    assert part["needs met by"] == ["stored responses", "sampled responses"]
    assert (part["batch-coupled"], part["golden vectors"]) == ([], [])


def test_explain_as_json_lists_parameters(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "explain", "sample", "--kind", "decoding", "--json") == 0
    (part,) = json.loads(capsys.readouterr().out)
    assert part["target"] == "mmalign_decodings.sampling:SampleDecoding"
    assert {"name", "type", "default", "help"} == set(part["parameters"][0])
    assert "temperature" in [row["name"] for row in part["parameters"]]


def test_schema_file_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "schema.json"
    assert run(monkeypatch, "schema", "--output", str(output)) == 0
    assert json.loads(output.read_text())["properties"].keys() == RunConfig.model_fields.keys()


def test_schema_offers_every_part_with_its_parameters(schema_of_this_machine: dict[str, Any]) -> None:
    definitions = schema_of_this_machine["$defs"]
    registry = current_registry()
    for kind in set(COMPONENT_KINDS.values()):
        offered = [option["$ref"] for option in definitions[kind].get("oneOf", [])]
        assert offered == [f"#/$defs/{kind}.{name}" for name in registry.names(kind)]
    sample = definitions["decoding.sample"]
    assert sample["properties"]["name"] == {"const": "sample"}
    assert sample["properties"]["temperature"]["exclusiveMinimum"] == 0
    assert sample["additionalProperties"] is False
    assert "weight" not in sample["properties"]
    assert "weight" in definitions["reward.length"]["properties"]


def test_schema_takes_one_component_or_a_list(schema_of_this_machine: dict[str, Any]) -> None:
    one, many = schema_of_this_machine["properties"]["objective"]["anyOf"]
    assert one == many["items"] == {"$ref": "#/$defs/objective"}
    assert many["minItems"] == 1
    transforms = schema_of_this_machine["$defs"]["DataConfig"]["properties"]["transforms"]
    assert [option.get("type", "one") for option in transforms["anyOf"]] == ["one", "array"]
    assert {"type": "null"} in schema_of_this_machine["properties"]["collector"]["anyOf"]


def test_schema_has_no_dangling_reference(schema_of_this_machine: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    targets = {f"#/$defs/{name}" for name in schema_of_this_machine["$defs"]}
    assert len(references(schema_of_this_machine)) > 20
    assert set(references(schema_of_this_machine)) <= targets


def test_schema_of_an_unavailable_part_allows_any_parameter(odd_registry: Registry) -> None:
    needy = json_schema(RunConfig, COMPONENT_KINDS, odd_registry)["$defs"]["reward.needy"]
    assert needy["properties"]["name"] == {"const": "needy"}
    assert "additionalProperties" not in needy


def test_keys_of_a_configuration_are_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "explain", "train.learning_rate") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "train.learning_rate (configuration)" in lines and "Peak learning rate." in lines
    assert "type float > 0, <= 100" in lines and "default 1e-05" in lines
    assert run(monkeypatch, "explain", "learning_rate") == 0
    assert "train.learning_rate (configuration)" in capsys.readouterr().out
    assert run(monkeypatch, "explain", "checkpoint", "--json") == 0
    assert "checkpoint.keep" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert run(monkeypatch, "explain", "objective") == 0
    assert "mmalign list objective" in capsys.readouterr().out


def test_a_misspelt_key_is_answered_with_those_of_its_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "explain", "train.lerning_rate") == 2
    error = capsys.readouterr().err
    assert "unknown key 'train.lerning_rate'; did you mean 'train.learning_rate'?" in error
    assert "data.train.path" not in error


def test_python_m_takes_nothing_from_the_current_folder(tmp_path: Path) -> None:
    """Neither a plugin that is announced there, nor a module in the place of a library."""
    (tmp_path / "x.egg-info").mkdir()
    (tmp_path / "x.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\n")
    (tmp_path / "x.egg-info" / "entry_points.txt").write_text("[mmalign]\nx = evil_here\n")
    for name in ("evil_here", "typer", "yaml"):
        (tmp_path / f"{name}.py").write_text("print('code of the folder ran')\n")
    command = [sys.executable, "-m", "mmalign", "list", "objectives"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "dpo" in result.stdout and "code of the folder ran" not in result.stdout
