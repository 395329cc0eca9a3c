"""`mmalign generate` of a modality whose responses are images: records, files beside them, contact sheets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_scorer import fix_scores
from image_files import png, put
from image_toy_plugin import draw
from PIL import Image
from typer.testing import CliRunner

from mmalign import ConfigError, DataError, MediaError, Record, load_run, open_image
from mmalign.cli.main import app
from mmalign.config.data import DataConfig
from mmalign.media.checks import check_media
from mmalign.sources.source import open_source
from mmalign.training.evaluation import measure
from mmalign.training.feedback import Sampled, sample_outputs, sample_records
from mmalign.training.sample_writing import write_samples

PLUGIN = Path(__file__).parents[1] / "image_toy_plugin.py"
Build = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(toy_config: Build, write_config: Callable[..., Path], tmp_path: Path) -> str:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x"}\n')
    data = {"train": {"path": str(tmp_path / "prompts.jsonl")}}
    sections = {"modality": {"name": "toy_image"}, "plugins": [str(PLUGIN)], "data": data}
    return str(write_config(toy_config(**sections, rewards=[{"name": "brightness"}])))


def invoke(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def fail(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, list(arguments)).exception


def read(path: Path) -> list[Record]:
    return list(open_source(DataConfig(path=str(path))))


def test_records_name_the_images_that_were_sampled(recipe: str, tmp_path: Path) -> None:
    output = tmp_path / "out" / "made.jsonl"
    printed = invoke(
        "generate", recipe, "--prompt", "a/../b", "--prompt", "yy", "--count", "3", "--output", str(output)
    )
    records = read(output)
    assert [len(record.responses) for record in records] == [3, 3]
    for record in records:
        check_media(record, level="full")
        media = {one.mid: one for one in record.media}
        for response in record.responses:
            (part,) = response.messages[0].content
            one = media[part.media or ""]
            assert hashlib.sha256(Path(one.uri).read_bytes()).hexdigest() == one.sha256
            assert (part.type, one.width, one.height) == ("image", 3, 2)
            brightness = np.asarray(open_image(one, where="")).mean() / 255
            (score,) = [row.value for row in record.scores if (row.item, row.name) == (response.rid, "reward")]
            assert score == pytest.approx(brightness, abs=1e-4), "the image is the one that was scored"
    raw = [json.loads(line) for line in output.read_text().splitlines()]
    assert all(one["uri"].startswith("made_images/") for row in raw for one in row["media"])
    assert sorted(file.name for file in output.parent.iterdir()) == ["made.jsonl", "made_images", "made_sheet.png"]
    assert f"contact sheet: {output.parent / 'made_sheet.png'}" in printed


def test_the_modality_reads_what_it_wrote(recipe: str, tmp_path: Path) -> None:
    output = tmp_path / "made.jsonl"
    invoke("generate", recipe, "--prompt", "x", "--count", "4", "--pairs", "2", "--output", str(output))
    run = load_run(recipe)
    record = read(output)[0]
    assert record.labels and len(run.assembly.modality.encode(record)) == len(record.responses)
    from mmalign import train

    data = json.dumps({"train": {"path": str(output)}})
    assert train(recipe, [f"data={data}", "rewards=[]", "train.steps=2"]).step == 2


def test_without_output_a_sheet_is_left_in_the_current_folder(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = invoke("generate", recipe, "--prompt", "x", "--count", "2")
    assert printed.count("<image 3 x 2 L>") == 2 and "contact sheet: mmalign-sheet.png" in printed
    assert Image.open("mmalign-sheet.png").size == (8 + 2 * 200, 16 + 192 + 16 + 8 + 8)
    invoke("generate", recipe, "--prompt", "x", "--sheet", "sheets/mine.png")
    assert Image.open("sheets/mine.png").width == 408


def test_texts_have_no_sheet(toy_config: Build, write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = str(write_config(toy_config()))
    output = tmp_path / "made.jsonl"
    error = fail("generate", config, "--prompt", "x", "--sheet", str(tmp_path / "s.png"), "--output", str(output))
    assert isinstance(error, ConfigError) and "--sheet: the responses of this model are no images" in str(error)
    assert not output.exists() and not (tmp_path / "s.png").exists()
    invoke("generate", config, "--prompt", "x", "--output", str(output))
    assert output.is_file() and not list(tmp_path.glob("*sheet*")) and not list(tmp_path.glob("*images*"))


def test_a_bad_image_of_a_prompt_is_named_before_anything_is_sampled(recipe: str, tmp_path: Path) -> None:
    put(tmp_path, "a.png", b"text")
    (tmp_path / "p.jsonl").write_text('{"id": "p7", "prompt": "look", "images": ["a.png"]}\n')
    error = fail("generate", recipe, "--data", str(tmp_path / "p.jsonl"))
    assert isinstance(error, MediaError)
    assert str(error).startswith(f"--data: record 'p7': media[0].uri: {tmp_path}/a.png: no image of a known kind")


# -- writing ----------------------------------------------------------------------------------------------------------


def sampled(name: str, *levels: int) -> Sampled:
    record = Record.from_text("q", ["t"], id=name)
    return Sampled(record, {"r0": draw(levels or [0] * 6)})


def test_nothing_is_left_of_a_command_that_fails(tmp_path: Path) -> None:
    output = tmp_path / "made.jsonl"

    def stop() -> Any:
        yield sampled("a")
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(stop(), output)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_output_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    output = tmp_path / "made.jsonl"
    assert write_samples([sampled("a", 1, 1, 1, 1, 1, 1), sampled("b")], output) == {"made_images": 2}

    def stop() -> Any:
        yield sampled("a", 2, 2, 2, 2, 2, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(stop(), output)
    records = read(output)
    assert [record.id for record in records] == ["a", "b"]
    for record in records:
        check_media(record, level="full")
    assert len(list((tmp_path / "made_images").iterdir())) == 2


def test_a_disk_that_refuses_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"made.jsonl: cannot be written"):
        write_samples([sampled("a")], tmp_path / "file" / "made.jsonl")


def test_names_of_records_cannot_leave_the_folder(tmp_path: Path) -> None:
    write_samples([sampled("../../etc/a b\n" + "x" * 300)], tmp_path / "made.jsonl")
    (file,) = (tmp_path / "made_images").iterdir()
    assert len(file.name) < 90 and read(tmp_path / "made.jsonl")[0].media[0].uri == str(file)


def test_images_of_the_prompt_are_found_from_the_new_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    put(tmp_path / "data", "a.png", png())
    (tmp_path / "data" / "p.jsonl").write_text('{"prompt": "look", "images": ["a.png"]}\n')
    (prompt,) = open_source(DataConfig(path="data/p.jsonl"))
    outputs = [Sampled(prompt.with_responses(Record.from_text("", ["t"]).responses), {"r0": "t"})]
    write_samples(outputs, Path("other/deep/made.jsonl"))
    (made,) = read(Path("other/deep/made.jsonl"))
    check_media(made, level="full")
    assert made.responses[0].text == "t"


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_equal_images_are_never_preferred_to_each_other(recipe: str) -> None:
    """All sampled responses have the same text, none; only the images tell them apart."""
    run = load_run(recipe)
    (record,) = sample_records(run, [Record.from_text("x", id="p")], count=8, pairs=4)
    assert record.labels
    images = {one.rid: one for one in record.responses}
    assert {response.text for response in images.values()} == {""}
    (drawn,) = sample_outputs(run, [Record.from_text("x", id="p")], count=8, pairs=4)
    for label in drawn.record.labels:
        (better,), (worse,) = label.order
        assert drawn.outputs[better].tobytes() != drawn.outputs[worse].tobytes()
    cold = load_run(recipe, ["decoding.temperature=0.001"])
    fix_scores(cold, 1.0, 0.5, 0.25, 0.0)
    assert list(sample_records(cold, [Record.from_text("x", id="p")], count=4, pairs=2)) == []


@pytest.mark.parametrize(
    ("name", "shown", "folder", "suffix"),
    [
        ("toy_array", "<array [2, 3] float32, ", "arrays", "npy"),
        ("toy_sound", "<sound 0.00 s, 1 x 8000 Hz>", "sounds", "wav"),
    ],
)
def test_what_is_neither_text_nor_image_is_described_and_written(
    recipe: str, name: str, shown: str, folder: str, suffix: str, tmp_path: Path
) -> None:
    overrides = [f"modality.name={name}", "rewards=[]", f"plugins=[{PLUGIN.with_name('array_toy_plugin.py')}]"]
    assert shown in invoke("generate", recipe, *overrides, "--prompt", "xx")
    output = tmp_path / "made.jsonl"
    printed = invoke("generate", recipe, *overrides, "--prompt", "xx", "--count", "2", "--output", str(output))
    assert printed.startswith(f"{output}: ") and f"{folder} in made_{folder}" in printed
    (record,) = read(output)
    assert {Path(media.uri).suffix for media in record.media} == {f".{suffix}"}
    assert all(Path(media.uri).parent == tmp_path / f"made_{folder}" for media in record.media)


@pytest.mark.parametrize("evaluator", ["generation", "samples"])
def test_examples_of_a_run_name_arrays_by_kind_and_size(evaluator: str, recipe: str, tmp_path: Path) -> None:
    run = load_run(
        recipe,
        [
            "modality.name=toy_array",
            "rewards=[]",
            f"plugins=[{PLUGIN.with_name('array_toy_plugin.py')}]",
            f"data.eval.path={tmp_path / 'prompts.jsonl'}",
            f"evaluation.evaluators=[{{name: {evaluator}}}]",
        ],
    )
    _, examples = measure(run)
    assert examples and all(shown.startswith("<array [2, 3] float32, ") for _, shown in examples)
