"""The reward that is any Python function: how it is found, what it is called with, how it fails."""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign import ConfigError, Record, Response, Sample, TrainingError
from mmalign.config.components import RewardComponent
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.python_function import PythonFunction


def write(folder: Path, source: str, name: str = "scoring.py") -> Path:
    file = folder / name
    file.write_text(source, encoding="utf-8")
    return file


def make_samples() -> list[Sample]:
    record = Record.from_text("Two words", ["a", "bbb"]).model_copy(update={"meta": '{"gold": 3}'})
    return [Sample(record, response, response.text.upper()) for response in record.responses]


def test_a_function_in_a_file_gets_what_its_signature_takes(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "def lengths(responses):\n    return [len(response) for response in responses]\n"
        "def gold(records, prompts):\n"
        "    return [record.metadata['gold'] + len(prompt) for record, prompt in zip(records, prompts)]\n"
        "def everything(scale=2, **columns):\n    return [scale * len(columns)] * len(columns['responses'])\n",
    )
    assert PythonFunction(f"{file}:lengths").score(make_samples()) == [1, 3]
    assert PythonFunction(f"{file}:gold").score(make_samples()) == [12, 12]
    assert PythonFunction(f"{file}:everything").score(make_samples()) == [6, 6]


def test_responses_are_the_decoded_outputs(tmp_path: Path) -> None:
    file = write(tmp_path, "def upper(responses):\n    return [float(text.isupper()) for text in responses]\n")
    assert PythonFunction(f"{file}:upper").score(make_samples()) == [1.0, 1.0]


@pytest.mark.parametrize(
    "path", ["scoring_package.inner.same", "scoring_package.inner:same", "scoring_package.inner:Box.same"]
)
def test_a_function_in_a_package(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "scoring_package"
    package.mkdir()
    (package / "__init__.py").touch()
    source = "def same(responses):\n    return [7] * len(responses)\nclass Box:\n    same = staticmethod(same)\n"
    write(package, source, "inner.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert PythonFunction(path).score(make_samples()) == [7, 7]


def test_files_of_one_name_do_not_hide_each_other(tmp_path: Path) -> None:
    files = []
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        files.append(write(folder, f"def value(responses):\n    return [{value}] * len(responses)\n", "json.py"))
    assert [PythonFunction(f"{file}:value").score(make_samples()) for file in files] == [[1, 1], [2, 2]]
    assert sys.modules["json"].__name__ == "json" and hasattr(sys.modules["json"], "dumps")


SOURCE = """
from dataclasses import dataclass
value = 3
def brevity(responses): return [0.0] * len(responses)
def foreign(completions): return [0.0] * len(completions)
def blind(scale=1): return [scale]
def positional(responses, /): return [0.0] * len(responses)
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("{file}:brevty", "has no 'brevty'; did you mean 'brevity'"),
        ("{file}:value", "is a int, expected a function"),
        ("{file}:foreign", "needs 'completions', but is called with prompts, responses, records by name"),
        ("{file}:blind", "takes none of prompts, responses, records"),
        ("{file}:positional", "needs 'responses', but is called with"),
        ("{folder}/missing.py:brevity", "cannot import .*missing.py.*No such file"),
        ("{folder}/broken.py:brevity", "cannot import .*broken.py.*SyntaxError"),
        ("{folder}/lonely.py:brevity", "cannot import .*lonely.py.*No module named 'nowhere_to_be_found'"),
        ("nowhere_to_be_found.brevity", "cannot import 'nowhere_to_be_found'.*path/file.py:function"),
        ("json.dumpz", "has no 'dumpz'; did you mean 'dump'"),
        ("brevity", "expected 'package.module.function' or 'path/file.py:function'"),
        (".relative.brevity", "expected 'package.module.function'"),
        ("builtins.max", "has no signature to read"),
    ],
)
def test_a_function_that_cannot_be_used_is_a_configuration_error(function: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, SOURCE)
    write(tmp_path, "def broken(:\n", "broken.py")
    write(tmp_path, "import nowhere_to_be_found\n", "lonely.py")
    with pytest.raises(ConfigError, match=message) as caught:
        PythonFunction(function.format(file=file, folder=tmp_path))
    assert str(caught.value).startswith("rewards.python.function: ")


def test_a_bug_that_shows_while_importing_keeps_its_own_error(tmp_path: Path) -> None:
    file = write(tmp_path, "1 / 0\n")
    for _ in range(2):  # a module that failed is not found half-made the second time
        with pytest.raises(ZeroDivisionError):
            PythonFunction(f"{file}:brevity")


def test_a_sample_it_raises_on_costs_that_sample_only(tmp_path: Path) -> None:
    file = write(tmp_path, "def inverse(responses):\n    return [1 / len(response) for response in responses]\n")
    scorer = RewardScorer([BoundReward(RewardComponent(name="inverse"), PythonFunction(f"{file}:inverse"))])
    record = Record.from_text("Write.", ["ab"])
    samples = [Sample(record, Response.from_text("r0", "x"), output) for output in ("ab", "", "abcd")]
    scores: list[Any] = scorer.score(samples).flatten().tolist()
    assert scores[0] == 0.5 and scores[1] != scores[1] and scores[2] == 0.25
    assert scorer.failures == {"inverse": 1}


# -- several scores a response


ROWS = {
    "tuples": "[(len(response), 1.0) for response in responses]",
    "lists": "[[len(response), 1.0] for response in responses]",
    "mappings": "[{'one': 1.0, 'length': len(response), 'why': 'long'} for response in responses]",
    "array": "numpy.array([[len(response), 1.0] for response in responses])",
    "tensor": "torch.tensor([[len(response), 1.0] for response in responses])",
}


# A worker that imports torch takes seconds; tensors become lists as arrays do.
@pytest.mark.parametrize(("sort", "workers"), [*((sort, 0) for sort in ROWS), *((sort, 1) for sort in list(ROWS)[:-1])])
def test_rows_are_tuples_mappings_or_arrays(sort: str, workers: int, tmp_path: Path) -> None:
    body = ROWS[sort]
    source = f"def rate(responses):\n    return {body}\n"
    imported = "import torch\n" if "torch" in body else "import numpy\n" if "numpy" in body else ""
    file = write(tmp_path, imported + source)
    reward = PythonFunction(f"{file}:rate", workers=workers, outputs=("length", "one"))
    assert reward.dimensions == ("length", "one")
    assert reward.score(make_samples()) == [[1, 1], [3, 1]]


def test_a_row_that_is_not_whole_costs_one_sample(tmp_path: Path) -> None:
    file = write(
        tmp_path, "def rate(responses):\n    return [(1, 2) if len(one) > 1 else {'a': 1} for one in responses]\n"
    )
    failure, scores = PythonFunction(f"{file}:rate", outputs=("a", "b")).score(make_samples())
    assert str(failure) == "expected numbers for a, b, got {'a': 1}"
    assert scores == [1, 2]


def test_only_workers_score_in_the_background(tmp_path: Path) -> None:
    file = write(tmp_path, "def rate(responses):\n    return [1.0] * len(responses)\n")
    assert not PythonFunction(f"{file}:rate").background
    assert PythonFunction(f"{file}:rate", workers=2).background


IMAGES = """
def redness(responses):
    return [image.convert("RGB").getpixel((0, 0))[0] for image in responses]
def modes(responses):
    return [["RGB", "RGBA", "L", "P", "I;16"].index(image.mode) for image in responses]
"""


def make_images() -> list[Image.Image]:
    """One image of every mode that a worker must get as it was; the last one is read from a file."""
    colour = Image.new("RGB", (3, 2), (10, 20, 30))
    buffer = BytesIO()
    colour.save(buffer, format="PNG")
    grey_16 = Image.fromarray(np.full((2, 3), 300, dtype=np.uint16))
    return [
        colour,
        Image.new("RGBA", (3, 2), (40, 0, 0, 128)),
        colour.convert("L"),
        Image.new("RGB", (3, 2), (70, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE),
        grey_16,
        Image.open(BytesIO(buffer.getvalue())),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_function_may_score_images(workers: int, tmp_path: Path) -> None:
    file = write(tmp_path, IMAGES)
    record = Record.from_text("Draw.", ["x"])
    samples = [Sample(record, record.responses[0], image) for image in make_images()]
    assert PythonFunction(f"{file}:modes", workers=workers).score(samples) == [0, 1, 2, 3, 4, 0]
    colours = PythonFunction(f"{file}:redness", workers=workers).score([*samples[:4], samples[5]])
    assert colours == [10, 40, 18, 70, 10]


def test_an_image_that_cannot_be_read_costs_its_own_sample(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.effect_noise((40, 40), 50).save(buffer, format="PNG")
    broken = Image.open(BytesIO(buffer.getvalue()[:300]))
    record = Record.from_text("Draw.", ["x"])
    samples = [Sample(record, record.responses[0], image) for image in (Image.new("RGB", (2, 2)), broken)]
    first, second = PythonFunction(f"{write(tmp_path, IMAGES)}:redness", workers=1).score(samples)
    assert (first, type(second)) == (0.0, OSError)


RETURNED = """
import decimal, fractions, itertools
import numpy

def array(responses): return numpy.array([0.5] * len(responses))
def generator(responses): return (0.5 for _ in responses)
def endless(responses): return itertools.count()
def numbers(responses): return [numpy.float32(0.5) for _ in responses]
def fraction(responses): return [fractions.Fraction(1, 2) for _ in responses]
def truth(responses): return [True for _ in responses]
def nothing(responses): return None
def none(responses): return [None for _ in responses]
def text(responses): return ["0.5" for _ in responses]
def imaginary(responses): return [0.5j for _ in responses]
def infinite(responses): return [float("inf") for _ in responses]
def single(responses): return 0.5
def names(responses): return {0.5: 1 for _ in responses}
def short(responses): return []
def long(responses): return [0.5] * (len(responses) + 1)
def rows(responses): return [[0.5] for _ in responses]
def raises(responses): raise KeyError("word")

def act(prompts, responses): return globals()[prompts[0]](responses)
"""


@pytest.mark.parametrize("name", re.findall(r"def (\w+)", RETURNED)[:-1])
def test_what_is_returned_is_read_or_refused_alike_in_every_process(name: str, acting: list[PythonFunction]) -> None:
    record = Record.from_text(name, ["a", "bbb"])
    samples = [Sample(record, response, response.text) for response in record.responses]
    seen = []
    for reward in acting:
        try:
            scores = RewardScorer([BoundReward(RewardComponent(name="one"), reward)]).score(samples)
            seen.append(scores.flatten().tolist())
        except TrainingError:
            seen.append("refused")
    read = {"array", "generator", "numbers", "fraction"}
    assert seen == [[0.5, 0.5]] * 2 if name in read else [[1, 1]] * 2 if name == "truth" else ["refused"] * 2


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> list[PythonFunction]:
    """The function in the run's own process, and in a worker."""
    file = write(tmp_path_factory.mktemp("returning"), RETURNED)
    return [PythonFunction(f"{file}:act", workers=workers) for workers in (0, 1)]
