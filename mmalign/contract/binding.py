"""Which quantity each parameter of a plugin's function gets: its name says so.

A parameter before `*` is the quantity of that name, one behind it a parameter of the configuration. `names` in the spec
maps parameters to quantities of other names, for a function that several parts share. Functions of the stages `data`
and `step` may also take the `batch` and the `context`; those of the stage `companion` take `record`, `chosen` and
`rejected`. Nothing here imports the module of the function where its source can be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mmalign.contract.signatures import Signature, as_builder, read_signature
from mmalign.contract.specs import AdvantageSpec, ObjectiveSpec, QuantitySpec, Spec
from mmalign.errors import PluginError, suggest

ENGINE_PARAMETERS = ("aggregation", "horizon")
"""Parameters of an objective that say how step losses are reduced; the loss itself does not get them."""

GIVEN = {"data": ("batch",), "step": ("context",), "companion": ("record", "chosen", "rejected")}
"""Parameters that the engine fills by stage; they are no quantities."""

_OPPOSITES = (("chosen", "rejected"), ("policy", "reference", "behaviour"))
"""Words of which a parameter and its quantity must not have different ones."""

BoundSpec = ObjectiveSpec | AdvantageSpec | QuantitySpec


@dataclass(frozen=True)
class Binding:
    """What the parameters of a function get.

    Attributes:
        inputs: parameter to quantity, in the order of the signature.
        needs: all quantities that have to be there: those of `inputs`, then those that a spec names beside them.
        given: parameters that the engine fills with other than quantities.
        signature: of the function; where it is and which keywords it has.
    """

    inputs: Mapping[str, str]
    needs: tuple[str, ...]
    given: tuple[str, ...]
    signature: Signature


def owner_of(spec: Spec, plugin: str = "") -> str:
    """Names a part and its plugin as messages do: `objective 'dpo' (plugin objectives)`."""
    return f"{spec.kind} {spec.name!r}" + (f" (plugin {plugin})" if plugin else "")


def read_binding(spec: BoundSpec, plugin: str = "") -> Binding:
    """Reads from the signature of a part's function which quantities its parameters get.

    Args:
        plugin: who offers the part, for messages.

    Raises:
        PluginError: the function cannot be bound by name; the message says what to change.
    """
    owner = owner_of(spec, plugin)
    path, method = _function_of(spec)
    signature = read_signature(path, method)
    given = _given_by(spec)
    parameters = tuple(spec.names) if signature.builds else signature.positional
    own = [one for one in parameters if one not in given]
    if spec.needs is not None and not isinstance(spec, QuantitySpec):
        raise PluginError(f"{owner}: {_explain_needs(spec.needs, own, signature)}")
    _check_parameters(owner, spec, own, signature)
    if signature.builds and not own:
        raise PluginError(
            f"{owner}: {signature.place} builds a module; give the spec `names`, which say what the parameters of its "
            "`forward` get, or name a class"
        )
    inputs = {one: spec.names.get(one, one) for one in own}
    _check_names(owner, inputs, signature)
    needs = tuple(dict.fromkeys((*inputs.values(), *(spec.needs or ()))))
    return Binding(inputs, needs, tuple(one for one in parameters if one in given), signature)


def needs_of(spec: BoundSpec, plugin: str = "") -> tuple[str, ...]:
    """Lists the quantities that a part needs, in the order of its function's parameters; errors as `read_binding`."""
    return read_binding(spec, plugin).needs


def check_keywords(owner: str, signature: Signature, fields: Collection[str]) -> None:
    """Checks that the fields of a config model are the keywords of the function that gets them.

    Raises:
        PluginError: a field that is no keyword, or a keyword without default that is no field.
    """
    for field in fields:
        if field not in signature.keywords and not signature.takes_any_keyword:
            raise PluginError(
                f"{owner}: its config has the parameter {field!r}, which is no keyword of {signature.place}"
                f"{suggest(field, signature.keywords)}; rename one of the two"
            )
    for keyword in signature.keywords:
        if keyword not in fields and keyword not in signature.defaults:
            raise PluginError(
                f"{owner}: {signature.place} has the keyword {keyword!r}, which its config does not give"
                f"{suggest(keyword, fields)}; add a field {keyword!r} to the config model, or a default"
            )


def read_keywords(spec: QuantitySpec) -> Signature:
    """Reads the signature that gets the parameters of a quantity: that of its function, or what builds its module."""
    if not spec.module:
        return read_signature(spec.compute)
    # The model comes first.
    return as_builder(read_signature(spec.module, "__init__"), skip=1)


def _function_of(spec: BoundSpec) -> tuple[str, str]:
    """The import string of the function that gets quantities, and the method of it where that is a class."""
    if isinstance(spec, ObjectiveSpec):
        return spec.loss, ""
    if isinstance(spec, AdvantageSpec):
        return spec.function, ""
    return (spec.module, "forward") if spec.module else (spec.compute, "")


def _given_by(spec: BoundSpec) -> tuple[str, ...]:
    return GIVEN.get(spec.stage, ()) if isinstance(spec, QuantitySpec) else ()


def _explain_needs(needs: tuple[str, ...], parameters: list[str], signature: Signature) -> str:
    told = "since plugin API 2 the parameters before `*` name the quantities; drop `needs`"
    wrong = {one: need for one, need in zip(parameters, needs, strict=False) if one != need}
    if len(needs) != len(parameters):
        return f"needs has {len(needs)} names, {signature.place} takes {', '.join(parameters) or 'nothing'}; {told}"
    if not wrong:
        return told
    return f"{told} and rename the parameters of {signature.place}, or give the spec names={wrong}"


def _check_parameters(owner: str, spec: BoundSpec, parameters: list[str], signature: Signature) -> None:
    if star := next((one for one in signature.variadic if not one.startswith("**")), ""):
        raise PluginError(f"{owner}: {signature.place} takes {star}; name every quantity that it needs")
    optional = [one for one in parameters if one in signature.defaults]
    if optional and not signature.builds:
        raise PluginError(
            f"{owner}: the parameter {optional[0]!r} of {signature.place} has a default, so it is no quantity; write "
            "`*` before the parameters of the configuration"
        )
    if isinstance(spec, QuantitySpec) and spec.stage == "companion" and parameters:
        expected = ", ".join(GIVEN["companion"])
        raise PluginError(f"{owner}: {signature.place} takes {parameters[0]!r}; at stage companion it gets {expected}")
    for parameter in spec.names:
        if parameter not in parameters:
            known = suggest(parameter, parameters)
            raise PluginError(f"{owner}: names[{parameter!r}]: {signature.place} has no such parameter{known}")


def _check_names(owner: str, inputs: Mapping[str, str], signature: Signature) -> None:
    """Refuses to give what is called chosen to a parameter that is called rejected, and to exchange parameters."""
    for parameter, quantity in inputs.items():
        if quantity != parameter and inputs.get(quantity, quantity) != quantity:
            raise PluginError(
                f"{owner}: names gives the parameter {parameter!r} of {signature.place} the quantity {quantity!r}, the "
                f"name of another parameter, which gets {inputs[quantity]!r}; give each its own"
            )
        for words in _OPPOSITES:
            said, got = ({word for word in words if word in name.split("_")} for name in (parameter, quantity))
            if said and got and said.isdisjoint(got):
                raise PluginError(
                    f"{owner}: names gives the parameter {parameter!r} of {signature.place} the quantity {quantity!r}; "
                    f"one is about {min(said)}, the other about {min(got)}"
                )
