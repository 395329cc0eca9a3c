"""Golden vectors: does a plugin compute what a method's official formula gives?

A file is JSON: `{"meta", "shared": {name: array}, "cases": [...]}`. A case has `id`, `method`, `uses` (names of shared
arrays), `inputs` (arrays of its own), `hparams`, `expected` (a number, an array or a dictionary of them) and `tol`. It
is looked up by method and by what it comes with, never by id, and computed from its inputs in float64. `expected` may
also be a table, a list of such dictionaries, of which some columns say what a row is about (`ConformanceSpec.given`).

Read in this order: `ConformanceSpec` (what a plugin announces), `run_conformance`, then loading and comparing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmalign.contract.specs import ConformanceSpec
from mmalign.errors import DataError, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from mmalign.plugins.registry import Registry

DEFAULT_TOLERANCE = 1e-9
Status = Literal["passed", "failed", "not_implemented"]


@dataclass(frozen=True)
class CaseResult:
    """The outcome of one case.

    Attributes:
        max_rel_err: the largest |got - expected| / max(1, |expected|); NaN if they cannot be compared, None if nothing
            was computed.
        detail: why it is not `passed`; empty if it is.
        part: which piece of a method it is about, the hyper-parameter `part`; empty where the case has none.
    """

    id: str
    method: str
    status: Status
    max_rel_err: float | None = None
    detail: str = ""
    part: str = ""


@dataclass(frozen=True)
class _Case:
    id: str
    method: str
    inputs: Mapping[str, Any]
    hparams: Mapping[str, Any]
    expected: Any
    tolerance: float


def golden_files() -> list[Path]:
    """Lists the golden-vector files that come with mmalign, by name; `golden/README.md` says what is in them."""
    return sorted((Path(__file__).parents[1] / "golden").glob("*.json"))


def run_conformance(path: Path, registry: Registry, *, tolerance: float | None = None) -> list[CaseResult]:
    """Computes every case of a file with the installed plugins and compares.

    Args:
        path: the golden-vector file.
        registry: the installed parts.
        tolerance: relative; instead of the cases' own.

    Raises:
        DataError: the file is not one of golden vectors; the message names the place.
    """
    specs = [entry.spec for entry in registry.entries("conformance")]
    return [
        replace(_run_case(case, specs, tolerance), part=str(case.hparams.get("part", ""))) for case in _load_cases(path)
    ]


def _run_case(case: _Case, specs: Sequence[ConformanceSpec], tolerance: float | None) -> CaseResult:
    from mmalign.import_strings import load_object

    for spec in specs:
        if spec.method == case.method and _accepts(spec, case):
            try:
                result = load_object(spec.compute)({**case.inputs, **_read_columns(spec, case)}, case.hparams)
            # What a formula raises on inputs it was not made for; the other cases are still of interest.
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                detail = f"{type(error).__name__}: {error}"
                return CaseResult(case.id, case.method, "failed", math.nan, detail)
            if result is not None:
                return _judge(case, result, case.tolerance if tolerance is None else tolerance)
    return CaseResult(case.id, case.method, "not_implemented", detail="no installed plugin computes this case")


def _accepts(spec: ConformanceSpec, case: _Case) -> bool:
    known = set(spec.inputs) <= case.inputs.keys() and set(spec.hparams) <= case.hparams.keys()
    return known and (not spec.given or (_is_table(case.expected) and _has_columns(case.expected, spec.given)))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _has_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    return all(name in row for row in rows for name in names)


def _read_columns(spec: ConformanceSpec, case: _Case) -> dict[str, Any]:
    return {name: _to_tensor([row[name] for row in case.expected], null=math.nan) for name in spec.given}


# -- comparing ------------------------------------------------------------------------------------------------------


def _judge(case: _Case, result: Any, tolerance: float) -> CaseResult:
    errors: dict[str, float] = {}
    missing: list[str] = []
    wrong: list[str] = []
    for name, error, problem in _compare(result, case.expected, ""):
        if error is None:
            missing.append(name)
            continue
        errors[name] = error
        # Written so that NaN, which is not below anything, fails.
        if not error <= tolerance:
            wrong.append(f"{name or 'result'}: {problem or f'off by {error:.2g}, allowed {tolerance:.2g}'}")
    if wrong:
        return CaseResult(case.id, case.method, "failed", _largest(errors.values()), "; ".join(wrong))
    if missing:
        detail = f"nothing computes {', '.join(missing)}"
        return CaseResult(case.id, case.method, "not_implemented", detail=detail)
    return CaseResult(case.id, case.method, "passed", _largest(errors.values()))


def _compare(got: Any, expected: Any, name: str) -> Iterator[tuple[str, float | None, str]]:
    """Yields for every expected array its name, its error (None: not computed) and what makes it incomparable."""
    if isinstance(expected, Mapping):
        computed = got if isinstance(got, Mapping) else {}
        for key, value in expected.items():
            place = f"{name}.{key}" if name else str(key)
            if key in computed:
                yield from _compare(computed[key], value, place)
            else:
                yield place, None, ""
        return
    if _is_table(expected):
        rows = got if isinstance(got, Sequence) and len(got) == len(expected) else [None] * len(expected)
        for index, (row, value) in enumerate(zip(rows, expected, strict=True)):
            yield from _compare(row, value, f"{name}[{index}]")
        return
    if isinstance(got, Mapping):
        got = next(iter(got.values()))
    yield (name, *_relative_error(got, expected))


def _relative_error(got: Any, expected: Any) -> tuple[float, str]:
    import torch

    # Where a golden value is null, it stands for infinity, which JSON cannot write.
    target = _to_tensor(expected, null=math.inf)
    if not isinstance(target, torch.Tensor):
        return math.nan, "expected values are not numbers"
    value = torch.as_tensor(got, dtype=torch.float64).detach()
    if value.shape != target.shape:
        return math.nan, f"got shape {list(value.shape)}, expected {list(target.shape)}"
    errors = torch.where(value == target, 0, (value - target).abs() / target.abs().clamp(min=1))
    return (float(errors.max()) if errors.numel() else 0.0), ""


def _largest(errors: Any) -> float:
    values = list(errors)
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)


# -- loading --------------------------------------------------------------------------------------------------------


def _load_cases(path: Path) -> list[_Case]:
    content = _read_json(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("cases"), list):
        raise DataError(f'{path}: expected an object with a list "cases", got {_describe(content)}')
    shared = _expect(content.get("shared", {}), Mapping, "an object", f"{path}: shared")
    return [_build_case(case, shared, f"{path}: cases[{index}]") for index, case in enumerate(content["cases"])]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}") from None


def _build_case(raw: Any, shared: Mapping[str, Any], where: str) -> _Case:
    case = _expect(raw, Mapping, "an object", where)
    for key in ("id", "method", "expected"):
        if key not in case:
            raise DataError(f"{where}: {key!r} is missing; a case has id, method and expected")
    name, method = (_expect(case[key], str, "a text", f"{where}.{key}") for key in ("id", "method"))
    tolerance = case.get("tol", DEFAULT_TOLERANCE)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance >= 0:
        raise DataError(f"{where}.tol: expected a number of at least 0, got {tolerance!r}")
    hparams = _expect(case.get("hparams") or {}, Mapping, "an object", f"{where}.hparams")
    return _Case(name, method, _gather_inputs(case, shared, where), hparams, case["expected"], float(tolerance))


def _gather_inputs(case: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> dict[str, Any]:
    used = _expect(case.get("uses") or [], list, "a list of names of shared arrays", f"{where}.uses")
    for name in used:
        if name not in shared:
            raise DataError(f"{where}.uses: unknown shared array {name!r}{suggest(str(name), shared)}")
    own = _expect(case.get("inputs") or {}, Mapping, "an object", f"{where}.inputs")
    raw = {name: shared[name] for name in used} | dict(own)
    return {name: _to_tensor(value, null=math.nan) for name, value in raw.items()}


def _to_tensor(value: Any, *, null: float) -> Tensor | Any:
    import torch

    try:
        return torch.tensor(_replace_null(value, null), dtype=torch.float64)
    except (OverflowError, TypeError, ValueError):
        return value  # text, ragged lists, dictionaries: for the function that computes the case to understand


def _replace_null(value: Any, null: float) -> Any:
    if isinstance(value, list):
        return [_replace_null(item, null) for item in value]
    return null if value is None else value


def _expect(value: Any, kind: type[Any], expected: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"{where}: expected {expected}, got {_describe(value)}")
    return value


def _describe(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
