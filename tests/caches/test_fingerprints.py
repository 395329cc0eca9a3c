"""Digests: equal for equal content, wherever it lies; other for anything that could change a result."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from mmalign.references.fingerprints import hash_code, hash_tensor, hash_tensors

VALUES = torch.arange(12, dtype=torch.float32).reshape(3, 4)


def test_the_layout_in_memory_does_not_count() -> None:
    assert hash_tensor(VALUES.T.contiguous().T) == hash_tensor(VALUES)
    assert hash_tensor(torch.nn.Parameter(VALUES)) == hash_tensor(VALUES)


@pytest.mark.parametrize(
    "other",
    [VALUES.nextafter(VALUES + 1), VALUES.T, VALUES.reshape(4, 3), VALUES.double(), VALUES.view(torch.int32), -VALUES],
    ids=["last bit", "transposed", "reshaped", "wider", "another dtype", "zero has another sign"],
)
def test_content_shape_and_dtype_count(other: torch.Tensor) -> None:
    assert hash_tensor(other) != hash_tensor(VALUES)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
def test_every_dtype_has_a_digest(dtype: torch.dtype) -> None:
    zeros = [torch.zeros(shape, dtype=dtype) for shape in ((), (0,), (1,), (2,))]
    assert len({hash_tensor(one) for one in zeros}) == 4


def test_the_order_of_tensors_counts() -> None:
    one, two = torch.zeros(2), torch.ones(2)
    assert hash_tensors([one, two]) == hash_tensors(iter([one, two])) != hash_tensors([two, one])


@pytest.mark.parametrize("name", ["hashed_module.py", "hashed_package/part.py"])
def test_a_change_of_code_counts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    package = name.partition("/")[0].removesuffix(".py")
    if file.parent != tmp_path:
        (file.parent / "__init__.py").write_text("")
    file.write_text("class Part: pass\n")
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    before = hash_code(module.Part)
    assert hash_code(module.Part) == before
    file.write_text("class Part: changed = True\n")
    assert hash_code(module.Part) != before
    assert hash_code(module.Part, versioned=[package]) == hash_code(int)
    del sys.modules[package]
