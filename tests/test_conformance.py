"""The conformance runner: how cases are looked up and compared, and what it says of malformed files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.contract.specs import ConformanceSpec
from mmalign.errors import DataError
from mmalign.plugins.conformance import CaseResult, run_conformance


def double(inputs: Any, hparams: Any) -> Any:
    """A method of this test: twice `x`, times `scale`."""
    if hparams.get("skip"):
        return None
    value = inputs["x"] * 2 * hparams.get("scale", 1)
    return {"y": value, "total": value.sum()} if hparams.get("as_dict") else value


def triple(inputs: Any, hparams: Any) -> Any:
    return inputs["x"] * 3


def fail(inputs: Any, hparams: Any) -> Any:
    raise ValueError("shapes do not fit")


def tabulate(inputs: Any, hparams: Any) -> Any:
    """A table of powers of `x`, for the exponents that the expected rows name."""
    rows = [{"power": inputs["x"] ** exponent, "t": exponent} for exponent in inputs["t"]]
    return rows[: hparams.get("rows")]


REGISTRY: Any = SimpleNamespace(
    entries=lambda kind: [
        SimpleNamespace(spec=spec)
        for spec in (
            ConformanceSpec("needs z", f"{__name__}:triple", inputs=("x", "z")),
            ConformanceSpec("double", f"{__name__}:double", inputs=("x",)),
            ConformanceSpec("double", f"{__name__}:triple", hparams=("skip",)),
            ConformanceSpec("fail", f"{__name__}:fail"),
            ConformanceSpec("table", f"{__name__}:tabulate", inputs=("x",), given=("t",)),
        )
    ]
)


@pytest.fixture(autouse=True)
def _find_functions_of_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {f"{__name__}:{function.__name__}": function for function in (double, triple, fail, tabulate)}
    monkeypatch.setattr("mmalign.import_strings.load_object", found.__getitem__)


def write(tmp_path: Path, *cases: dict[str, Any], shared: Any = None) -> Path:
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"meta": {}, "shared": shared or {}, "cases": list(cases)}))
    return path


def run_one(tmp_path: Path, shared: Any = None, **case: Any) -> CaseResult:
    path = write(tmp_path, {"id": "any", "method": "double", "expected": [2.0], **case}, shared=shared)
    (result,) = run_conformance(path, REGISTRY)
    return result


def test_inputs_come_from_shared_arrays_and_from_the_case(tmp_path: Path) -> None:
    shared = {"x": [1.0, -4.0]}
    assert run_one(tmp_path, shared, uses=["x"], expected=[2.0, -8.0]).status == "passed"
    assert run_one(tmp_path, shared, uses=["x"], inputs={"x": [1.0]}, expected=[2.0]).status == "passed"


def test_hyper_parameters_reach_the_function_and_unknown_ones_do_no_harm(tmp_path: Path) -> None:
    hparams = {"scale": 3, "note": "measured twice", "seed": 7}
    assert run_one(tmp_path, inputs={"x": [1]}, hparams=hparams, expected=[6]).status == "passed"


@pytest.mark.parametrize(
    ("x", "expected", "tol", "status"),
    [
        ([1.0], [2.0 + 1e-7], 1e-6, "passed"),
        ([1.0], [2.0 + 1e-7], 1e-9, "failed"),
        ([1e6], [2e6 + 1.0], 1e-6, "passed"),  # relative above 1 ...
        ([0.0], [1e-7], 1e-6, "passed"),  # ... absolute below
        ([[1.0, 2.0]], [[2.0, 4.0]], 0, "passed"),
        (1.0, 2.0, 0, "passed"),
        ([None], [None], 1e9, "failed"),  # null is NaN as an input, and NaN equals nothing
        ([1e308], [None], 0, "passed"),  # as an expected value it is infinity
        ([1.0], [None], 1e9, "failed"),
        ([1.0, 2.0], [2.0], 1e9, "failed"),  # shapes are not broadcast
        ([1.0], ["two"], 1e9, "failed"),
        ([], [], 0, "passed"),
    ],
)
def test_comparison(tmp_path: Path, x: Any, expected: Any, tol: float, status: str) -> None:
    hparams = {"scale": 10} if x == [1e308] else {}
    assert run_one(tmp_path, inputs={"x": x}, expected=expected, tol=tol, hparams=hparams).status == status


def test_the_error_is_relative_and_the_largest(tmp_path: Path) -> None:
    result = run_one(tmp_path, inputs={"x": [1.0, 5.0]}, expected=[2.5, 8.0], tol=1e-3)
    assert result.max_rel_err == pytest.approx(0.25)
    assert "off by 0.25, allowed 0.001" in result.detail


def test_shapes_that_differ_are_told(tmp_path: Path) -> None:
    result = run_one(tmp_path, inputs={"x": [1.0, 5.0]}, expected=[2.0])
    assert "got shape [2], expected [1]" in result.detail
    assert result.max_rel_err is not None
    assert math.isnan(result.max_rel_err)


@pytest.mark.parametrize(
    ("expected", "status"),
    [
        ({"y": [2.0], "total": 2.0}, "passed"),
        ({"y": [2.0]}, "passed"),
        ({"y": [2.0], "other": 1.0}, "not_implemented"),
        ({"y": [3.0], "other": 1.0}, "failed"),
        ({"other": {"nested": 1.0}}, "not_implemented"),
        ([2.0], "passed"),  # a bare value is compared with the first result
    ],
)
def test_expected_dictionaries(tmp_path: Path, expected: Any, status: str) -> None:
    result = run_one(tmp_path, inputs={"x": [1.0]}, hparams={"as_dict": True}, expected=expected)
    assert result.status == status


@pytest.mark.parametrize(
    ("expected", "rows", "status", "detail"),
    [
        ([{"t": 2, "power": [9.0]}, {"t": 0, "power": [1.0]}], None, "passed", ""),
        ([{"t": 2, "power": [9.0]}, {"t": 0, "power": [2.0]}], None, "failed", "[1].power: off by 0.5"),
        ([{"t": 2, "root": [9.0]}], None, "not_implemented", "nothing computes [0].root"),
        ([{"t": 2, "power": [9.0]}, {"t": 0, "power": [1.0]}], 1, "not_implemented", "nothing computes [0].t"),
        ([{"power": [9.0]}], None, "not_implemented", "no installed plugin computes this case"),
        ([9.0], None, "not_implemented", "no installed plugin computes this case"),
    ],
)
def test_tables_tell_what_their_rows_are_about(
    tmp_path: Path, expected: Any, rows: int | None, status: str, detail: str
) -> None:
    hparams = {} if rows is None else {"rows": rows}
    result = run_one(tmp_path, method="table", inputs={"x": [3.0]}, hparams=hparams, expected=expected)
    assert result.status == status
    assert result.detail.startswith(detail)


def test_the_first_function_that_accepts_a_case_computes_it(tmp_path: Path) -> None:
    assert run_one(tmp_path, inputs={"x": [1.0]}, hparams={"skip": True}, expected=[3.0]).status == "passed"
    assert run_one(tmp_path, inputs={"x": [1.0]}, hparams={"skip": False}, expected=[2.0]).status == "passed"


@pytest.mark.parametrize(("method", "inputs"), [("unheard of", {"x": [1.0]}), ("needs z", {"x": [1.0]})])
def test_a_case_that_nothing_accepts_is_not_implemented(tmp_path: Path, method: str, inputs: Any) -> None:
    result = run_one(tmp_path, method=method, inputs=inputs)
    assert (result.status, result.max_rel_err) == ("not_implemented", None)


def test_a_function_that_raises_fails_its_case_only(tmp_path: Path) -> None:
    good = {"id": "good", "method": "double", "inputs": {"x": [1.0]}, "expected": [2.0]}
    path = write(tmp_path, {"id": "bad", "method": "fail", "expected": 1.0}, good)
    bad, fine = run_conformance(path, REGISTRY)
    assert (bad.status, bad.detail) == ("failed", "ValueError: shapes do not fit")
    assert fine.status == "passed"


def test_the_tolerance_of_the_caller_replaces_those_of_the_cases(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "a", "method": "double", "inputs": {"x": [1.0]}, "expected": [2.1], "tol": 1})
    assert run_conformance(path, REGISTRY)[0].status == "passed"
    assert run_conformance(path, REGISTRY, tolerance=1e-3)[0].status == "failed"


def test_inputs_are_float64_and_what_is_no_array_comes_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("mmalign.import_strings.load_object", lambda name: lambda inputs, hparams: seen.update(inputs))
    ragged, settings = [[1], [1, 2]], {"a": 1}
    run_one(tmp_path, inputs={"x": [1, 0], "flags": [True], "ragged": ragged, "settings": settings, "text": "k1"})
    assert seen["x"].dtype == seen["flags"].dtype == torch.float64
    assert (seen["ragged"], seen["settings"], seen["text"]) == (ragged, settings, "k1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"line 1, column 2: not valid JSON"),
        ("[]", r'expected an object with a list "cases"'),
        ('{"cases": {}}', r'expected an object with a list "cases"'),
        ('{"cases": [], "shared": []}', r"shared: expected an object"),
        ('{"cases": [1]}', r"cases\[0\]: expected an object, got 1"),
        ('{"cases": [{"id": "a", "expected": 1}]}', r"cases\[0\]: 'method' is missing"),
        ('{"cases": [{"id": 1, "method": "dpo", "expected": 1}]}', r"cases\[0\]\.id: expected a text, got 1"),
        (
            '{"shared": {"beta": 1}, "cases": [{"id": "a", "method": "m", "expected": 1, "uses": ["beat"]}]}',
            r"cases\[0\]\.uses: unknown shared array 'beat'; did you mean 'beta'",
        ),
        ('{"cases": [{"id": "a", "method": "m", "expected": 1, "uses": "x"}]}', r"uses: expected a list of names"),
        ('{"cases": [{"id": "a", "method": "m", "expected": 1, "inputs": [1]}]}', r"inputs: expected an object"),
        ('{"cases": [{"id": "a", "method": "m", "expected": 1, "hparams": 3}]}', r"hparams: expected an object, got 3"),
        ('{"cases": [{"id": "a", "method": "m", "expected": 1, "tol": "small"}]}', r"tol: expected a number"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_the_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        run_conformance(path, REGISTRY)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        run_conformance(tmp_path / "none.json", REGISTRY)
