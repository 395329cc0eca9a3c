"""What a dataclass does not check of a spec: choices, names, axes, the form of import strings; imports no module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args, get_type_hints

from mmalign.contract.binding import read_binding
from mmalign.contract.forward_plan import Divergence, Output
from mmalign.contract.specs import (
    AdvantageSpec,
    FileFormatSpec,
    FormatSpec,
    LayoutSpec,
    ModalitySpec,
    ObjectiveSpec,
    QuantitySpec,
    Spec,
)
from mmalign.errors import PluginError, suggest

_CHOICES = {
    "per": get_args(get_type_hints(ObjectiveSpec)["per"]),
    "stage": get_args(get_type_hints(QuantitySpec)["stage"]),
    "log_prob_kind": get_args(get_type_hints(ModalitySpec)["log_prob_kind"]),
    "aggregation": ("step_mean", "sequence_mean", "sequence_sum", "constant"),
}
_PROVIDED = (*(one.value for one in Output), *(one.value for one in Divergence))
_IMPORT_STRINGS = ("config", "target", "loss", "function", "compute", "module")
_FIRST_AXES = ("N", "M", "P")
"""What the first axis of a quantity may be; a scalar has none."""


def check_spec(spec: Spec, hook: str) -> None:
    """Checks what a plugin announces of a part.

    Raises:
        PluginError: something is wrong; the message names the part, the attribute and what was expected.
    """
    if not isinstance(spec.name, str) or not spec.name:
        raise PluginError(f"{hook}: a part is named {spec.name!r}; expected text")
    for attribute in ("aliases", "requires", "needs", "provides", "log_prob_kinds"):
        value = getattr(spec, attribute, ()) or ()
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
            raise PluginError(f"{hook}: {attribute} of {spec.name!r} is {value!r}; expected a tuple of names")
    for attribute, known in _CHOICES.items():
        _check_choice(spec, hook, attribute, getattr(spec, attribute, known[0]), known)
    for kind in getattr(spec, "log_prob_kinds", ()):
        _check_choice(spec, hook, "log_prob_kinds", kind, _CHOICES["log_prob_kind"])
    _check_kind(spec, hook)
    _check_import_strings(spec, hook)
    if isinstance(spec, (ObjectiveSpec, AdvantageSpec, QuantitySpec)):
        _check_names(spec, hook)


def _check_kind(spec: Spec, hook: str) -> None:
    if isinstance(spec, QuantitySpec):
        _check_quantity(spec, hook)
    elif isinstance(spec, FormatSpec):
        _check_format(spec, hook)
    elif isinstance(spec, ModalitySpec):
        for output in spec.provides:
            _check_choice(spec, hook, "provides", output, _PROVIDED)


def _check_choice(spec: Spec, hook: str, attribute: str, value: Any, known: Collection[str]) -> None:
    if value not in known:
        raise PluginError(f"{hook}: {attribute} of {spec.name!r} is {value!r}{suggest(str(value), known)}")


def _check_quantity(spec: QuantitySpec, hook: str) -> None:
    if bool(spec.compute) == bool(spec.module):
        raise PluginError(f"{hook}: {spec.name!r} has to name one of compute and module")
    if spec.module and spec.stage != "policy":
        raise PluginError(f"{hook}: {spec.name!r} has a module and stage {spec.stage!r}; trained ones are of 'policy'")
    if spec.axes and (not spec.axes.isalnum() or not spec.axes.startswith(_FIRST_AXES)):
        raise PluginError(
            f"{hook}: axes of {spec.name!r} are {spec.axes!r}; expected letters that begin with one of "
            f"{', '.join(_FIRST_AXES)}, or nothing for a scalar"
        )


def _check_format(spec: FormatSpec, hook: str) -> None:
    if not isinstance(spec, FileFormatSpec | LayoutSpec):
        raise PluginError(f"{hook}: {spec.name!r} is a FormatSpec; expected a FileFormatSpec or a LayoutSpec")
    names = (spec.suffixes,) if isinstance(spec, FileFormatSpec) else (spec.optional, *spec.columns)
    attribute = "suffixes" if isinstance(spec, FileFormatSpec) else "columns"
    if not all(isinstance(one, tuple) and all(isinstance(name, str) for name in one) for one in names):
        raise PluginError(f"{hook}: {attribute} of {spec.name!r} are {names!r}; expected tuples of names")


def _check_import_strings(spec: Spec, hook: str) -> None:
    for attribute in _IMPORT_STRINGS:
        value = getattr(spec, attribute, "a:b")
        if isinstance(spec, QuantitySpec) and value == "":
            continue
        if not isinstance(value, str) or not all(value.partition(":")):
            raise PluginError(
                f"{hook}: {attribute} of {spec.name!r} is {value!r}; "
                "expected an import string 'package.module:attribute'"
            )


def _check_names(spec: ObjectiveSpec | AdvantageSpec | QuantitySpec, hook: str) -> None:
    names = spec.names
    if not isinstance(names, Mapping) or not all(isinstance(one, str) for pair in names.items() for one in pair):
        raise PluginError(f"{hook}: names of {spec.name!r} is {names!r}; expected a mapping of parameter to quantity")
    if spec.needs is not None and not isinstance(spec, QuantitySpec):
        try:
            read_binding(spec)
        except PluginError as error:
            raise PluginError(f"{hook}: {error}") from None
