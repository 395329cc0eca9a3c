"""Outputs that are no texts: words for tables, files beside records, and what two of them differ in."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_files import noise
from safetensors.numpy import load_file

from mmalign import DataError, Message, Record, Response, Sound, open_sound
from mmalign.config.data import DataConfig
from mmalign.contract.modality import Modality
from mmalign.media.checks import check_media
from mmalign.media.outputs import describe_output, is_text
from mmalign.sources.source import open_source
from mmalign.training.feedback import Sampled, _content
from mmalign.training.sample_writing import write_samples

SINE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)
OUTPUTS: dict[str, tuple[Any, str]] = {
    "tensor": (torch.tensor([[0.0, 1.5], [-2.0, 3.0]]), "<array [2, 2] float32, -2 to 3>"),
    "half": (torch.ones(3, dtype=torch.bfloat16), "<array [3] bfloat16, 1 to 1>"),
    "array": (np.arange(6).reshape(2, 3), "<array [2, 3] int64, 0 to 5>"),
    "complex": (np.zeros(4, np.complex64), "<array [4] complex64>"),
    "empty": (torch.zeros(0, 3), "<array [0, 3] float32>"),
    "named": (
        {"a": torch.zeros(2), "b": np.ones((1, 2))},
        "<arrays a: [2] float32, 0 to 0, b: [1, 2] float64, 1 to 1>",
    ),
    "sound": (Sound(torch.tensor(SINE), 8000), "<sound 0.10 s, 1 x 8000 Hz>"),
    "stereo": (Sound(np.stack([SINE, SINE], axis=1), 8000), "<sound 0.10 s, 2 x 8000 Hz>"),
    "image": (noise(), "<image 16 x 12 RGB>"),
}


def sampled(output: Any, name: str = "a") -> Sampled:
    response = Response(rid="r0", messages=(Message(role="assistant"),), params='{"temperature": 1.0}')
    return Sampled(Record.from_text("q", id=name).with_responses([response]), {"r0": output})


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_one_line_of_words(name: str) -> None:
    output, words = OUTPUTS[name]
    assert describe_output(output) == words and not is_text(output)
    stub: Any = SimpleNamespace(decode=lambda record, response: output)
    assert Modality.describe(stub, Record.from_text("q", id="a"), Response.from_text("r0", "")) == words


@pytest.mark.parametrize("output", ["text", [(0.0, 1.0)], {}, {"a": 1}, 3.5, None])
def test_what_has_a_text_stays_one(output: Any) -> None:
    assert is_text(output) and describe_output(output) is None


def test_files_hold_what_was_sampled(tmp_path: Path) -> None:
    output = tmp_path / "made.jsonl"
    counts = write_samples([sampled(value, name) for name, (value, _) in OUTPUTS.items()], output)
    assert counts == {"made_arrays": 6, "made_sounds": 2, "made_images": 1}
    records = {record.id: record for record in open_source(DataConfig(path=str(output)))}
    for record in records.values():
        check_media(record, level="full")

    def file(name: str) -> Path:
        (media,) = records[name].media
        (response,) = records[name].responses
        parts = [part.media for part in response.messages[0].content]
        params = json.loads(response.params or "")
        assert params["temperature"] == 1 and media.mid in [*parts, params.get("output")]
        return Path(media.uri)

    assert np.load(file("tensor"), allow_pickle=False).tolist() == [[0.0, 1.5], [-2.0, 3.0]]
    assert np.load(file("half")).tolist() == [1, 1, 1] and np.load(file("array")).dtype == np.int64
    assert {name: value.tolist() for name, value in load_file(file("named")).items()} == {"a": [0, 0], "b": [[1, 1]]}
    for name in ("sound", "stereo"):
        _ = file(name)
        (media,) = records[name].media
        assert media.seconds == 0.1 and media.rate == 8000
        assert np.abs(open_sound(media, where="here", rate=8000) - SINE).max() < 1e-4


@pytest.mark.parametrize("samples", [np.zeros((2, 2, 2)), np.array([0.0, np.nan])])
def test_a_sound_that_is_none_leaves_nothing_behind(samples: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a sampled sound: expected finite samples"):
        write_samples([sampled(Sound(samples, 8000))], tmp_path / "made.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_outputs_without_a_text_differ_by_their_values() -> None:
    empty = Response.from_text("r0", "")
    assert _content(empty, torch.zeros(2)) == _content(empty, torch.zeros(2)) != _content(empty, torch.ones(2))
    assert _content(empty, Sound(SINE, 8000)) != _content(empty, Sound(SINE, 16000))
    assert _content(Response.from_text("r0", "x"), [1]) == "x"
