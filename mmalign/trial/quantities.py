"""Computes the planned quantities of a made-up batch with the plugins' own functions, and checks what they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.contract.batch import DATA_AXES, Batch
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import DERIVED, Plan
from mmalign.contract.values import EncodedResponse, Model
from mmalign.data.records import Record
from mmalign.errors import MmalignError, PluginError
from mmalign.foreign import foreign_code, name_origin
from mmalign.import_strings import load_object
from mmalign.planning.plan import BoundAdvantage
from mmalign.trial.context import TrialContext
from mmalign.trial.values import LENGTHS, SIZES, TrialSizes, build_trial_batch, make_plain, make_value


@dataclass
class TrialValues:
    """The quantities of a made-up batch.

    Attributes:
        values: by name.
        leaves: those of them that a model would give with a gradient, and the weights of trained modules.
        problems: what is wrong with the functions that computed some of them, one line each.
        failed: names of the quantities that could not be computed, and of those that need one of them.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    leaves: dict[str, Tensor] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)


def compute_trial_values(
    plan: Plan, advantage: BoundAdvantage | None = None, sizes: TrialSizes | None = None, seed: int = 0
) -> TrialValues:
    """Makes up what the engine fills in, and calls the planned functions and modules for the rest.

    A quantity whose function goes wrong is one problem; what needs it is not tried.

    Args:
        advantage: computes `advantages`, if they are planned.
        sizes: lengths of open axes, e.g. the number of rewards.
        seed: of the made-up numbers.
    """
    batch = build_trial_batch()
    trial = _Trial(batch, advantage, sizes or TrialSizes(), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for provider in plan.providers:
            trial.add(provider)
    return trial.result


class _Trial:
    def __init__(self, batch: Batch, advantage: BoundAdvantage | None, sizes: TrialSizes, seed: int) -> None:
        self._batch = batch
        self._advantage = advantage
        self._sizes = sizes
        self._seed = seed
        # What marks elements is there in every batch.
        self.result = TrialValues({name: batch.quantities[name] for name in DATA_AXES})

    def add(self, provider: Provider) -> None:
        """Computes or makes up one quantity."""
        if provider.name in self.result.values:
            return
        made_up = make_value(provider.name, provider.axes, self._sizes.shape(provider.name, provider.axes), self._seed)
        estimated = provider.name == "advantages" and self._advantage is not None
        if not (provider.compute or provider.module or estimated):
            if provider.stage == "policy":
                self.result.leaves[provider.name] = made_up.requires_grad_()
            self.result.values[provider.name] = made_up
            return
        self.result.values[provider.name] = made_up
        if not self.result.failed.isdisjoint(provider.needs):
            self.result.failed.add(provider.name)
            return
        compute = self._record_value if provider.stage in ("data", "companion") else self._call
        try:
            self.result.values[provider.name] = compute(provider, made_up)
        except PluginError as error:
            self.result.problems.append(str(error))
            self.result.failed.add(provider.name)
        except MmalignError:
            # The function refuses these numbers, or wants what only a run has.
            return

    def _call(self, provider: Provider, made_up: Tensor) -> Tensor:
        values = self.result.values
        axes: Sequence[str] = (provider.axes,)
        function: Any
        if provider.name == "advantages" and self._advantage is not None:
            function, axes = self._advantage.function, ("N", "NT")
            value: Any = self._advantage.estimate(values)
        elif provider.module:
            function = load_object(provider.module)
            value = self._call_module(provider)
        else:
            function = load_object(provider.compute)
            value = provider.call(values, context=TrialContext(self._batch.with_quantities(values, {})))
        if provider.origin != DERIVED:
            part = "advantage " + repr(self._advantage.name) if self._advantage and "NT" in axes else provider.part
            check_value(f"{part} of {name_origin(function)}", value, axes)
        computed: Tensor = value
        return computed if provider.stage == "policy" else computed.detach()

    def _call_module(self, provider: Provider) -> Any:
        network = nn.Identity()
        module = provider.build(Model(network, hidden_size=SIZES["D"], layers=SIZES["L"], name="trial")).float()
        if not isinstance(module, nn.Module):
            raise PluginError(f"{provider.part}: {provider.module} built {type(module).__name__}; expected a module")
        self.result.leaves |= {f"{provider.name}.{name}": weight for name, weight in module.named_parameters()}
        return call_module(provider, module, self.result.values)

    def _record_value(self, provider: Provider, made_up: Tensor) -> Tensor:
        """Asks for the shape and type of what is read from records; the records here need not hold what it reads."""
        if provider.stage == "companion":
            return made_up
        shape = self._sizes.shape(provider.name, provider.axes)
        batch = self._batch.with_quantities(self.result.values, {})
        try:
            read = provider.call(batch.quantities, batch=_with_encode(batch))
        except MmalignError:
            # `check` calls it on the records of the run.
            return made_up if provider.axes == "MI" else make_plain(shape)
        check_value(f"{provider.part} of {name_origin(load_object(provider.compute))}", read, (provider.axes,))
        return make_plain(tuple(read.shape)) if read.is_floating_point() else _make_marks(read, provider.axes)


def _make_marks(read: Tensor, axes: str) -> Tensor:
    """Marks every element, or numbers the steps of a response, where the made-up records hold nothing of the sort."""
    if read.any():
        return read
    if read.dtype == torch.bool:
        return torch.ones_like(read)
    ended = torch.arange(read.shape[1]) >= torch.tensor(LENGTHS)[:, None] if axes == "NT" else None
    return read if ended is None else torch.arange(1, 1 + read.shape[1]).expand(read.shape).masked_fill(ended, 0)


def call_module(provider: Provider, module: nn.Module, values: Mapping[str, Tensor]) -> Any:
    """Calls a trained module by keyword, floats in float32."""
    inputs = {parameter: values[name] for parameter, name in provider.inputs.items()}
    with foreign_code(provider.part, module):
        return module(**inputs)


def check_value(who: str, value: Any, axes: Sequence[str]) -> None:
    """Checks that a computed quantity is a tensor of one of the announced axes.

    Raises:
        PluginError: it is something else.
    """
    if not isinstance(value, Tensor):
        raise PluginError(f"{who} returned {type(value).__name__}; expected a tensor")
    if not any(_fits(value, one) for one in axes):
        expected = " or ".join(f"[{', '.join(one)}]" for one in axes)
        sizes = ", ".join(f"{axis} = {SIZES[axis]}" for axis in dict.fromkeys("".join(axes)) if axis in "NMPT")
        raise PluginError(
            f"{who} returned shape {tuple(value.shape)}; announced is {expected}" + (f" with {sizes}" if sizes else "")
        )


def _fits(value: Tensor, axes: str) -> bool:
    if value.dim() != len(axes):
        return False
    return all(size == SIZES[axis] for axis, size in zip(axes, value.shape, strict=True) if axis in "NMPT2")


def _with_encode(batch: Batch) -> Batch:
    encoded: dict[str, list[EncodedResponse]] = {record.id: [] for record in batch.records}
    for row, prompt in enumerate(batch.quantities["prompt_index"].tolist()):
        encoded[batch.records[prompt].id].append(batch.responses[row])

    def encode(record: Record) -> list[EncodedResponse]:
        return encoded[record.id][: len(record.responses)]

    return replace(batch, encode=encode)
