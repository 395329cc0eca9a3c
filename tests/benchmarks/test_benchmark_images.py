"""The benchmark of prompts with images: the same data for all systems, its table, mmalign on a tiny model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from multimodal_models import build_tiny_multimodal_model


def make_case(scripts: Any, system: str = "mmalign", steps: int = 1, prompts: int = 2) -> Any:
    """Makes a case of few pairs."""
    return scripts("measuring").Case("dpo", "images", True, system, steps, prompts)


def make_row(scripts: Any, system: str, **fields: Any) -> dict[str, Any]:
    """Makes a row with one run of four seconds, 100 tokens, 16 responses and 4 GiB; `fields` change the run."""
    run = {"seconds": 4.0, "tokens": 100.0, "responses": 16, "losses": [0.7, 0.6], "peak_bytes": 4 * 2**30, **fields}
    stamp = {"machine": {"device": "abacus", "cores": 10}, "date": "2026-01-02", "load": 0.04}
    return {**asdict(make_case(scripts, system)), **stamp, "runs": [run], "errors": []}


def test_pairs_and_images_are_the_same_at_every_call(scripts: Any, tmp_path: Path) -> None:
    """Two pairs for the warm-up step and two for the measured one, each with an image of its own."""
    workload, case = scripts("image_workload"), make_case(scripts)
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    first, second = (workload.build_image_pairs(case, folder) for folder in folders)
    images = [[Path(row.pop("image")).read_bytes() for row in rows] for rows in (first, second)]
    assert first == second
    assert images[0] == images[1]
    assert len(first) == len(set(images[0])) == 4


def test_a_record_has_the_words_and_the_image_of_its_row(scripts: Any) -> None:
    workload = scripts("image_workload")
    row = {"prompt": "what?", "chosen": "yes", "rejected": "no", "image": "0.png"}
    record = workload.to_record(3, row)
    assert [part["type"] for part in record["prompt"][0]["content"]] == ["image", "text"]
    assert [part["type"] for part in workload.ask(row)[0]["content"]] == ["image", "text"]
    assert record["media"] == [{"mid": "image", "type": "image", "uri": "0.png"}]
    answers = {one["rid"]: one["messages"][0]["content"][0]["text"] for one in record["responses"]}
    assert answers == {"chosen": "yes", "rejected": "no"}
    assert record["labels"] == [{"kind": "pair", "order": [["chosen"], ["rejected"]]}]


def test_the_table_compares_with_trl(scripts: Any) -> None:
    """A quarter of the seconds and half of the memory."""
    failed = {**make_row(scripts, "trl-tuned"), "runs": []}
    mine = make_row(scripts, "mmalign", seconds=1.0, peak_bytes=2**31, losses=[0.7, 0.61])
    table = scripts("image_table").build_table([make_row(scripts, "trl"), failed, mine])
    _, _, trl, tuned, mmalign, _, about = table.splitlines()
    assert trl == "| trl | 4.00 | 2.00 | 25 | 1.00x | 4.00 | 1.00x | 0.7000, 0.6000 |  |"
    assert tuned.startswith("| trl-tuned | failed |")
    assert mmalign == "| mmalign | 1.00 | 8.00 | 100 | 4.00x | 2.00 | 0.50x | 0.7000, 0.6100 | +0.0000, +0.0100 |"
    assert {line.count("|") for line in table.splitlines()[:5]} == {10}
    assert about.startswith("Measured on 2026-01-02: device abacus, cores 10, load 0.0; 2 pairs a step")


def test_the_page_keeps_what_is_outside_of_the_markers(scripts: Any, tmp_path: Path) -> None:
    table, page = scripts("image_table"), tmp_path / "page.md"
    page.write_text("no markers\n")
    assert not table.write_page(page, "table\n")
    assert page.read_text() == "no markers\n"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        assert table.write_page(page, "table\n")
    assert page.read_text() == f"before\n{table.BEGIN}\n\ntable\n\n{table.END}\nafter\n"


@pytest.mark.slow
@pytest.mark.parametrize("system", ["mmalign", "mmalign-padded"])
def test_mmalign_is_measured(scripts: Any, system: str, tmp_path: Path) -> None:
    """One step after the warm-up. The first loss is ln 2; tokens are those of the words and four for an image."""
    model = build_tiny_multimodal_model(tmp_path / "model", "llava")
    case = make_case(scripts, system)
    trace = scripts("measure_images").measure(case, model, tmp_path)
    result = scripts("measuring").build_measurement(case, trace)
    assert result.losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert len(result.losses) == 2
    assert result.responses == 4
    assert result.seconds > 0
    # The tiny tokenizer is byte-level with few merges.
    assert result.tokens > 4 * 50
    assert result.operations == 0.0


def test_results_are_written_after_every_measurement(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed system does not end the comparison; a run into a file of its own leaves the page alone."""
    images, file = scripts("images"), tmp_path / "results.json"
    monkeypatch.setattr(images, "prepare_environment", lambda: None)
    monkeypatch.setattr(images, "find_image_model", lambda: None)
    monkeypatch.setattr(images, "write_page", lambda *_: pytest.fail("the page is left alone"))
    written: list[bool] = []

    def measure(case: Any, script: str) -> dict[str, Any]:
        written.append(file.exists())
        return {"error": "no"} if case.system == "trl" else dict(make_row(scripts, case.system)["runs"][0])

    monkeypatch.setattr(images, "measure", measure)
    assert images.main(["--systems", "trl", "mmalign", "--repeats", "1", "--results", str(file)]) == 1
    assert written == [False, True]
    assert "| trl | failed |" in capsys.readouterr().out
    assert [len(row["runs"]) for row in scripts("rows").load_rows(file)] == [0, 1]
