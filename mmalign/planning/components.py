"""Every component of a configuration by itself: its name, its parameters, and the signature that gets them.

All mistakes are collected, so that one look at a configuration mends them all; whether components belong together is
seen when they are joined.
"""

from __future__ import annotations

from mmalign.config.run_config import RunConfig
from mmalign.contract.binding import ENGINE_PARAMETERS, check_keywords, owner_of, read_binding, read_keywords
from mmalign.contract.signatures import as_builder, read_signature
from mmalign.contract.specs import AdvantageSpec, ModalitySpec, ObjectiveSpec, QuantitySpec, Spec, TargetSpec
from mmalign.errors import ErrorList
from mmalign.planning.early_checks import iter_components
from mmalign.planning.plan import Builder


def check_components(builder: Builder, config: RunConfig) -> None:
    """Looks up every component, validates its parameters and checks that its function or class takes them.

    Raises:
        ConfigError: several mistakes, one line each.
        MmalignError: the only one.
    """
    errors = ErrorList()
    for kind, component, where in iter_components(config):
        with errors.collecting():
            spec, parameters = builder.bind(kind, component, where)
            check_parameters(spec, set(parameters), builder.plugin_of(kind, component))
    errors.raise_all()


def check_parameters(spec: Spec, fields: set[str], plugin: str) -> None:
    """Checks that the fields of a part's config model are what its function or class takes.

    Raises:
        PluginError: they are not, or the function cannot be bound by name.
    """
    owner = owner_of(spec, plugin)
    if isinstance(spec, ObjectiveSpec):
        check_keywords(owner, read_binding(spec, plugin).signature, fields - set(ENGINE_PARAMETERS))
    elif isinstance(spec, AdvantageSpec):
        check_keywords(owner, read_binding(spec, plugin).signature, fields)
    elif isinstance(spec, QuantitySpec):
        read_binding(spec, plugin)
        check_keywords(owner, read_keywords(spec), fields)
    elif isinstance(spec, (TargetSpec, ModalitySpec)):
        check_keywords(owner, as_builder(read_signature(spec.target, "__init__")), fields)
