"""Bad images in data and in runs: refused or left out as the configuration says; resumed runs are what they were."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_files import put
from image_toy_plugin import draw

import mmalign
from mmalign import ConfigError, DataError, MediaError, Record, load_run
from mmalign.config.data import DataConfig
from mmalign.media.checks import MediaCheck, MediaSkips, check_media
from mmalign.media.limits import MediaLimits
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.sources.source import open_source

PLUGIN = Path(__file__).parents[1] / "image_toy_plugin.py"
Build = Callable[..., Path]


def image_row(name: str, chosen: str, rejected: str) -> dict[str, Any]:
    """A preference between two image files."""
    return {
        "id": name,
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "x" * (1 + len(name))}]}],
        "responses": [
            {"rid": rid, "messages": [{"role": "assistant", "content": [{"type": "image", "media": rid}]}]}
            for rid in ("a", "b")
        ],
        "labels": [{"kind": "pair", "order": [["a"], ["b"]]}],
        "media": [{"mid": "a", "type": "image", "uri": chosen}, {"mid": "b", "type": "image", "uri": rejected}],
    }


def write_images(folder: Path, count: int) -> Path:
    """Pairs of a bright image and a dark one; returns the data file."""
    rows = []
    for index in range(count):
        draw([3, 3, index % 4, 3, 2, 3]).save(folder / f"bright{index}.png")
        draw([0, 0, index % 4, 0, 1, 0]).save(folder / f"dark{index}.png")
        rows.append(image_row(f"p{index}", f"bright{index}.png", f"dark{index}.png"))
    path = folder / "images.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path, 8)


@pytest.fixture
def recipe(images: Path, toy_config: Callable[..., dict[str, Any]], write_config: Build) -> Build:
    """Writes a dpo run on images; keywords change `data.train`, `more` the whole configuration."""

    def build(more: dict[str, Any] | None = None, **train: Any) -> Path:
        data = {"train": {"path": str(images), **train}, "check_media": (more or {}).pop("check_media", "header")}
        sections = {"modality": {"name": "toy_image"}, "plugins": [str(PLUGIN)], "data": data, **(more or {})}
        return write_config(toy_config(**sections))

    return build


def cut(file: Path) -> None:
    """Takes the end of a PNG away: its header stays."""
    file.write_bytes(file.read_bytes()[:45])


# -- when data are read -----------------------------------------------------------------------------------------------


def test_a_record_with_a_bad_image_is_a_bad_row(images: Path) -> None:
    (images.parent / "dark3.png").write_text("no image")
    check = MediaCheck().check
    with pytest.raises(DataError, match=r"images.jsonl:4: media\[1\].uri: .*dark3.png: no image of a known kind"):
        open_source(DataConfig(path=str(images)), check_media=check)
    source = open_source(DataConfig(path=str(images), on_error="quarantine"), check_media=check)
    assert (len(source), source.quarantined, source.left_out) == (7, 1, ["p3"])
    (line,) = (images.parent / "images.quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["line"] == 4 and "dark3.png" in json.loads(line)["reason"]


def test_a_header_hides_what_is_cut_off_further_down(images: Path) -> None:
    cut(images.parent / "dark3.png")
    record = open_source(DataConfig(path=str(images)))[3]
    check_media(record)
    check_media(record, level="off")
    with pytest.raises(MediaError, match=r"^media\[1\].uri: .*dark3.png: damaged or cut off"):
        check_media(record, level="full")


def test_a_shared_image_is_looked_at_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [image_row(f"p{index}", "bright0.png", "dark0.png") for index in range(5)]
    images.write_text("".join(json.dumps(row) + "\n" for row in rows))
    looked = []
    header, full = mmalign.media.checks._LOOKS["image"]
    counting = lambda *one, **more: (looked.append(1), header(*one, **more))[1]  # noqa: E731
    monkeypatch.setitem(mmalign.media.checks._LOOKS, "image", (counting, full))
    assert len(open_source(DataConfig(path=str(images)), check_media=MediaCheck().check)) == 5
    assert len(looked) == 2


def test_a_header_of_an_allowed_address_is_left_alone() -> None:
    record = Record.from_dict(image_row("p", "http://127.0.0.1:9/a.png", "http://127.0.0.1:9/b.png"))
    check_media(record, limits=MediaLimits(remote=True))
    with pytest.raises(MediaError, match="allow_remote_media"):
        check_media(record)
    with pytest.raises(MediaError, match="ftp"):
        check_media(Record.from_dict(image_row("p", "ftp://a/b.png", "c.png")), limits=MediaLimits(remote=True))


def test_video_is_left_to_others() -> None:
    row = image_row("p", "a.mp4", "b.mp4")
    for media in row["media"]:
        media["type"] = "video"
    for response in row["responses"]:
        response["messages"][0]["content"][0]["type"] = "video"
    check_media(Record.from_dict(row), level="full")


def test_the_limits_of_the_configuration_count(recipe: Build) -> None:
    with pytest.raises(DataError, match=r"images.jsonl:1: media\[0\].uri: .*more than data.max_image_pixels, 5"):
        mmalign.check(recipe(), ["data.max_image_pixels=5"])
    with pytest.raises(MediaError, match=r"more than data.max_image_pixels, 5"):
        mmalign.check(recipe({"check_media": "off"}), ["data.max_image_pixels=5"])
    with pytest.raises(ConfigError, match=r"data.check_media: unknown value 'fully'; did you mean 'full'"):
        mmalign.check(recipe({"check_media": "fully"}))


def test_check_counts_what_was_left_out(recipe: Build, images: Path) -> None:
    (images.parent / "dark3.png").unlink()
    assert mmalign.check(recipe(on_error="quarantine")).data["train"].quarantined == 1


# -- while a run goes on ----------------------------------------------------------------------------------------------


def train(config: Path, *overrides: str, **options: Any) -> Any:
    return mmalign.train(config, list(overrides), **options)


def test_an_image_that_broke_stops_the_run_with_a_checkpoint(recipe: Build, images: Path, tmp_path: Path) -> None:
    """The message says where and how to go on; going on gives what an unbroken run gives."""
    whole = train(recipe(), f"output={tmp_path / 'whole'}")
    late = whole_order(recipe())[3 * 4 - 1]
    file = images.parent / f"bright{late}.png"
    content = file.read_bytes()
    cut(file)
    with pytest.raises(MediaError, match=rf"record 'p{late}', .*bright{late}.png: damaged.*step \d is saved.*--resume"):
        train(recipe(), f"output={tmp_path / 'stopped'}")
    stopped = [row["step"] for row in read_metrics(tmp_path / "stopped") if row["kind"] == "train"]
    put(images.parent, file.name, content)
    resumed = train(recipe(), f"output={tmp_path / 'stopped'}", resume=True)
    assert stopped == [1]
    assert table(resumed) == table(whole)


def whole_order(config: Path) -> list[int]:
    """The numbers of the records in the order in which a run visits them, in two epochs."""
    from mmalign.sources.stream import RecordStream

    run = load_run(config)
    source = open_source(run.config.data.train)
    return [int(record.id[1:]) for record in RecordStream(source, shuffle=True, seed=0).take(16)]


def table(run: Any) -> list[float]:
    return list(run.policy.network.table.flatten().tolist())


def test_a_quarantined_image_is_skipped_and_counted(
    recipe: Build, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(images.parent / "dark3.png")
    with caplog.at_level(logging.WARNING):
        run = train(recipe({"check_media": "off"}, on_error="quarantine"), "train.steps=4")
    assert run.step == 4
    shares = [row["unreadable"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert sorted(shares) == [0.0, 0.0, 0.25, 0.25], "8 records in batches of 4: once an epoch"
    told = [one.message for one in caplog.records if "skipped" in one.message]
    assert len(told) == 1 and "record 'p3', response 'b'" in told[0] and "dark3.png" in told[0]
    assert run.left_out == {"train": [], "eval": []}


def test_a_batch_without_the_record_is_what_it_would_be_without_it_in_the_data(recipe: Build, images: Path) -> None:
    """One batch of all records: skipping one gives the step of a run on the other seven."""
    cut(images.parent / "dark3.png")
    config = recipe({"check_media": "off"}, on_error="quarantine", shuffle=False)
    skipped = train(config, "train.steps=1", "train.batch_size=8")
    lines = images.read_text().splitlines()
    images.write_text("\n".join(lines[:3] + lines[4:]) + "\n")
    seven = train(recipe(shuffle=False), "train.steps=1", "train.batch_size=7", overwrite=True)
    assert table(skipped) == pytest.approx(table(seven), abs=1e-7)


def test_a_round_without_any_readable_record_stops_the_run(recipe: Build, images: Path) -> None:
    config = recipe({"check_media": "off"}, on_error="quarantine")
    for file in images.parent.glob("*.png"):
        file.unlink()
    with pytest.raises(
        DataError, match=r"none of 4 records has images and sounds that can be read; the last one: .*no such file"
    ):
        train(config)


def test_a_resumed_run_keeps_the_order_it_began_with(recipe: Build, images: Path, tmp_path: Path) -> None:
    """At the start one image is missing; then it comes back, and another goes."""
    missing = images.parent / "dark3.png"
    content = missing.read_bytes()
    missing.unlink()
    config = recipe(on_error="quarantine")
    whole = train(config, "train.steps=6", f"output={tmp_path / 'whole'}")
    train(config, "train.steps=3", f"output={tmp_path / 'parts'}")
    put(images.parent, missing.name, content)
    resumed = train(config, "train.steps=6", f"output={tmp_path / 'parts'}", resume=True)
    assert len(resumed.source) == 7
    assert table(resumed) == table(whole)
    gone = images.parent / "dark5.png"
    kept = gone.read_bytes()
    gone.unlink()
    again = train(config, "train.steps=7", f"output={tmp_path / 'parts'}", resume=True)
    assert len(again.source) == 7, "a record that is bad only now keeps its place"
    assert again.left_out["train"] == ["p3"]
    put(images.parent, gone.name, kept)


def test_nothing_is_left_out_of_a_stream_when_it_begins(recipe: Build, images: Path, tmp_path: Path) -> None:
    (images.parent / "dark0.png").unlink()
    run = train(recipe(on_error="quarantine", streaming=True), "train.steps=2")
    shares = [row["unreadable"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert shares == [0.25, 0.0] and run.stream.position == 8
    with pytest.raises(DataError, match=r"images.jsonl:1: media\[1\].uri: .*no such file"):
        train(recipe(streaming=True), overwrite=True)


def test_held_out_records_are_skipped_by_their_own_setting(
    recipe: Build, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    path = write_images(held_out, 4)
    cut(held_out / "dark1.png")
    data = {"train": {"path": str(images)}, "eval": {"path": str(path), "on_error": "quarantine"}, "check_media": "off"}
    evaluation = {"evaluators": [{"name": "preference"}, {"name": "generation"}]}
    config = recipe({"data": data, "evaluation": evaluation})
    run = train(config, "train.steps=1")
    assert {"loss", "preference/ranking_accuracy", "generation/length"} <= run.after.keys()
    assert caplog.text.count("dark1.png: damaged") == 1
    with pytest.raises(MediaError, match=r"dark1.png: damaged"):
        train(config, "data.eval.on_error=raise", overwrite=True)


# -- the policy itself ------------------------------------------------------------------------------------------------


def test_what_cannot_be_encoded_is_skipped_alike() -> None:
    def fail(record: Record) -> None:
        if record.id == "long":
            raise DataError("too long")

    good, long = Record.from_text("q", id="x"), Record.from_text("q", id="long")
    assert MediaSkips(quarantine=True).apply([good, long], fail) == [(good, None)]
    with pytest.raises(DataError, match=r"^too long$"):
        MediaSkips(quarantine=False).apply([good, long], fail)
    with pytest.raises(DataError, match="none of 1 records can be encoded; the last one: too long"):
        MediaSkips(quarantine=True).apply([long], fail)


def test_an_image_that_is_damaged_behind_its_header_is_set_aside_at_the_start(recipe: Build, images: Path) -> None:
    cut(images.parent / "dark3.png")
    run = train(recipe(on_error="quarantine"), "train.steps=2")
    (line,) = (images.parent / "images.quarantine.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["line"], json.loads(told["text"])["id"]) == (4, "p3") and "dark3.png: damaged" in told["reason"]
    assert (len(run.source), run.left_out["train"], run.skips["train"].skipped) == (7, ["p3"], set())


def test_prompts_are_decoded_only_where_they_may_be_skipped(images: Path) -> None:
    records = list(open_source(DataConfig(path=str(images))))
    cut(images.parent / "dark3.png")
    assert MediaSkips(quarantine=False).keep_readable(records) == records
    skips = MediaSkips(quarantine=True)
    assert skips.keep_readable(records) == records[:3] + records[4:]
    assert sorted(skips.take_flags()) == [0.0] * 7 + [1.0] and skips.take_flags() == []
    assert skips.keep_readable([]) == []
