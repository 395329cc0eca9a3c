"""Signatures read from source, without importing it, and from objects where the source does not tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmalign import PluginError
from mmalign.contract.signatures import read_signature, resolve

SOURCE = '''
raise_on_import = 1 / 0

def loss(policy_logps, *, beta, gamma=1.0):
    """A loss."""

async def many(*rest, **options): ...

class Head:
    def __init__(self, model, *, width): ...

    def forward(self, policy_hidden, step_mask): ...

ALIAS = loss
'''
BUILT = """
import functools

def keep(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call

@keep
def decorated(values, *, beta): ...

def build():
    def inner(ratings, labels): ...
    return inner

built = build()
number = 3
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in (("cannot_be_imported", SOURCE), ("built_functions", BUILT)):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_plain_function_is_read_without_an_import(tmp_path: Path) -> None:
    signature = read_signature("cannot_be_imported:loss")
    assert signature.positional == ("policy_logps",)
    assert signature.keywords == ("beta", "gamma")
    assert signature.defaults == {"gamma"}
    assert signature.place == f"loss ({tmp_path / 'cannot_be_imported.py'}, line 4)"
    assert "cannot_be_imported" not in sys.modules


def test_a_method_is_read_without_self() -> None:
    signature = read_signature("cannot_be_imported:Head", "forward")
    assert (signature.name, signature.positional) == ("Head.forward", ("policy_hidden", "step_mask"))
    assert not signature.builds
    assert read_signature("cannot_be_imported:loss", "forward").builds


def test_stars_are_told() -> None:
    signature = read_signature("cannot_be_imported:many")
    assert signature.variadic == ("*rest", "**options")
    assert signature.takes_any_keyword


def test_what_the_source_does_not_tell_is_imported() -> None:
    assert read_signature("built_functions:decorated").positional == ("values",)
    assert read_signature("built_functions:built").positional == ("ratings", "labels")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        read_signature("cannot_be_imported:ALIAS")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere_at_all:loss", "there is no module 'nowhere_at_all'"),
        ("built_functions:biult", "'built_functions' has no 'biult'; did you mean 'built'"),
        ("built_functions:number", "'number' is no function"),
    ],
)
def test_what_leads_nowhere_is_named(path: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        read_signature(path)


def test_import_strings_are_resolved_without_running_their_module() -> None:
    resolve("cannot_be_imported:Head")
    resolve("cannot_be_imported:ALIAS")
    assert "cannot_be_imported" not in sys.modules
    for path in ("built_functions:nothing", "nowhere_at_all:loss"):
        with pytest.raises(PluginError):
            resolve(path)
