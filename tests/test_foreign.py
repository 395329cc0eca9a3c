"""Errors of code that is not ours: the part, the author's file and line, and nothing of the engine."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.errors import DataError, PluginError
from mmalign.foreign import foreign_code

PLUGIN = """
import json
from functools import lru_cache

def fails(x):
    y = x / 0
    return y

def fails_in_a_library(x):
    return json.loads("{")

def leaves():
    raise SystemExit(3)

class Part:
    def score(self):
        return self.missing
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_foreign_part.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_foreign_part", raising=False)
    return importlib.import_module("my_foreign_part")


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("fails", (1,), "ZeroDivisionError: division by zero ({file}, line 6, in fails)"),
        ("fails_in_a_library", (1,), "JSONDecodeError: .* ({file}, line 10, in fails_in_a_library)"),
        ("leaves", (), "SystemExit: 3 ({file}, line 13, in leaves)"),
        # The call itself is refused: the place is the beginning of the function.
        ("fails", (1, 2), "TypeError: .*takes 1 positional argument but 2 were given ({file}, line 5, in fails)"),
    ],
)
def test_the_last_line_of_the_author_is_named(plugin: Any, name: str, arguments: tuple, expected: str) -> None:
    function = getattr(plugin, name)
    pattern = expected.format(file=plugin.__file__).replace("(/", r"\(/").replace(" in " + name + ")", f" in {name}\\)")
    with pytest.raises(PluginError, match=f"objective 'x' of my_foreign_part.py failed: {pattern}") as caught:
        with foreign_code("objective 'x'", function):
            function(*arguments)
    assert caught.value.__cause__ is not None


def test_objects_and_partials_have_an_origin_too(plugin: Any) -> None:
    part = plugin.Part()
    with pytest.raises(
        PluginError, match=r"reward 'p' of my_foreign_part.py failed: AttributeError.*line 17, in score"
    ):
        with foreign_code("reward 'p'", part):
            part.score()
    bound = partial(plugin.fails, 1)
    with pytest.raises(PluginError, match=r"of my_foreign_part.py failed: ZeroDivision"), foreign_code("x", bound):
        bound()


@pytest.mark.parametrize(
    "error",
    [DataError("a bad record"), torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_what_the_engine_acts_on_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, foreign_code("objective 'x'", json.loads):
        raise error
    assert caught.value is error


def test_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt), foreign_code("objective 'x'", json.loads):
        raise KeyboardInterrupt
