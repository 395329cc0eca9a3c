"""`mmalign data validate|convert|show`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from image_files import png, put
from rich.console import Console
from typer.testing import CliRunner

from mmalign.cli.data import app
from mmalign.data.records import Record
from mmalign.errors import ConfigError, DataError
from mmalign.sources.show import paint, print_record

EXAMPLES = Path(__file__).parents[1] / "data" / "example_records.jsonl"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_validate_counts(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "q", "completion": "a", "label": true}\n')
    result = run("validate", str(EXAMPLES), str(tmp_path / "t.jsonl"), "--check-media", "off", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "records": 8,
        "responses": 16,
        "pairs": 7,
        "unary": 2,
        "bad": 0,
        "sources": 2,
    }


def test_validate_lists_faults_of_one_kind_together(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "q"}\n' + "3\n" * 5 + '{"prompt": 1}\n{"prompt": 2}\n"x"\n')
    result = run("validate", str(path), "--max-errors", "2")
    assert isinstance(result.exception, DataError)
    first, second, rest = str(result.exception).splitlines()
    assert first.startswith(
        f"{path}:2: expected a JSON object, got int (4 more like it: {path}:3, {path}:4, {path}:5, ..."
    )
    assert second.startswith(f"{path}:7: prompt: expected a string or a list") and "(1 more like it" in second
    assert rest == "... and 1 more bad rows"


def test_validate_takes_columns_overrides_and_formats(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("question;answer\nq;a\nr;b\n")
    arguments = [str(path), "--format", "{name: csv, delimiter: ';'}", "--columns", "question=prompt,answer=completion"]
    result = run("validate", *arguments, "data.train.limit=1", "data.train.max_pairs=3", "--json")
    assert json.loads(result.stdout)["responses"] == 2
    assert "unknown key 'max_pair'" in str(run("validate", *arguments, "data.train.max_pair=3").exception)
    assert "expected theirs=ours" in str(run("validate", str(path), "--columns", "question").exception)
    assert "unknown 'cvs'; did you mean 'csv'" in str(run("validate", str(path), "--format", "cvs").exception)


def test_the_data_of_a_configuration_are_validated_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"q": "x"}\n')
    (tmp_path / "c.yaml").write_text(f"data: {{train: {{path: {tmp_path}/t.jsonl}}, eval: {{path: nowhere.jsonl}}}}\n")
    config = ["--config", str(tmp_path / "c.yaml")]
    missing = run("validate", *config, "data.train.columns={q: prompt}")
    assert "data.eval.path: no such file 'nowhere.jsonl'" in str(missing.exception)
    both = ["data.train.columns={q: prompt}", f"data.eval={{path: {tmp_path}/t.jsonl, columns: {{q: prompt}}}}"]
    assert run("validate", *config, *both).exit_code == 0
    assert "prompt user: x" in run("show", f"{tmp_path}/t.jsonl", "--columns", "q=prompt", "data.train.limit=1").stdout


def test_columns_that_no_model_sees_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "q", "source": "x"}\n' * 2)
    said = run("validate", str(tmp_path / "t.jsonl")).stderr
    assert said.strip().endswith("as trl has no such columns: source (2 rows)")


def test_validate_looks_at_images(tmp_path: Path) -> None:
    result = run("validate", str(EXAMPLES))
    assert f"{EXAMPLES}:1: media[0].uri: " in str(result.exception) and "no such file" in str(result.exception)


def test_validate_moves_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "q"}\n3\n')
    result = run("validate", str(path), "--on-error", "quarantine")
    assert result.exit_code == 0
    assert "1 bad rows moved to" in result.stderr
    assert (tmp_path / "t.quarantine.jsonl").exists()


def test_convert_round_trip(tmp_path: Path) -> None:
    table, back = tmp_path / "r.parquet", tmp_path / "r.jsonl"
    assert run("convert", str(EXAMPLES), str(table)).exit_code == 0
    assert run("convert", str(table), str(back)).exit_code == 0
    assert back.read_text() == "".join(Record.from_json(line).to_json() + "\n" for line in EXAMPLES.open())


def test_convert_trl_round_trip(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
        "margin": 2.0,
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    for source, output, to in (("t.jsonl", "r.jsonl", "mmalign"), ("r.jsonl", "t.parquet", "trl")):
        assert run("convert", str(tmp_path / source), str(tmp_path / output), "--to", to).exit_code == 0
    assert run("convert", str(tmp_path / "t.parquet"), str(tmp_path / "u.jsonl")).exit_code == 0
    assert (tmp_path / "u.jsonl").read_text() == (tmp_path / "r.jsonl").read_text()


def test_convert_refusal_names_the_line_and_writes_nothing(tmp_path: Path) -> None:
    result = run("convert", str(EXAMPLES), str(tmp_path / "t.jsonl"), "--to", "trl")
    assert isinstance(result.exception, DataError)
    assert f"{EXAMPLES}:2: labels:" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_show_prints_messages_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "[bold]q[/] \\u001b[31m", "completion": "a"}\n' * 3)
    result = run("show", str(tmp_path / "t.jsonl"), "--limit", "1")
    assert "prompt user: [bold]q[/] ␛[31m" in result.stdout
    assert result.stdout.count("r0 assistant: a") == 1


def test_show_tells_what_an_image_file_says_of_itself(tmp_path: Path) -> None:
    put(tmp_path, "a.png", png())
    put(tmp_path, "b.png", b"\x1b[31m text")
    (tmp_path / "t.jsonl").write_text('{"prompt": "q", "completion": "a", "images": ["a.png", "b.png"]}\n')
    shown = " ".join(run("show", str(tmp_path / "t.jsonl")).stdout.split())
    assert "<image m1: 16 x 12 RGB PNG>" in shown
    assert "b.png: no image of a known kind" in shown and "\x1b" not in shown


def test_show_needs_data() -> None:
    assert isinstance(run("show").exception, ConfigError)


class TwoPieces:
    """A modality whose prompts are context and whose responses are trained on."""

    def encode(self, record: Record) -> list[Any]:
        from mmalign.contract.values import EncodedResponse

        return [EncodedResponse({}, steps=2, size=5, truncated=1) for _ in record.responses]

    def render(self, encoded: Any) -> list[tuple[str, bool]]:
        return [("<user>[q]", False), ("yes", True)]


@pytest.mark.parametrize(("colour", "expected"), [(None, "<user>[q]⟦yes⟧"), ("standard", "\x1b[1;32myes")])
def test_show_marks_what_the_loss_counts(colour: Any, expected: str) -> None:
    console = Console(file=io.StringIO(), color_system=colour, force_terminal=colour is not None)
    print_record(Record.from_text("q", ["yes"], id="x"), TwoPieces(), console)
    output = console.file.getvalue()
    assert expected in output
    assert "r0 (2 of 5 positions trained on, 1 cut off)" in output


def test_paint_styles_context_and_trained_pieces() -> None:
    text = paint([("ctx", False), ("out", True)])
    assert [(span.start, span.end, span.style) for span in text.spans] == [(0, 3, "dim"), (3, 6, "bold green")]
