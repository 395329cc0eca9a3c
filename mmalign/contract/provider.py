"""One way to get one quantity: who supplies it, at which stage, from what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mmalign.contract.binding import read_binding
from mmalign.contract.specs import QuantitySpec
from mmalign.foreign import foreign_code
from mmalign.import_strings import load_object

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmalign.contract.values import Model

Stage = Literal["data", "companion", "frozen", "step", "policy"]
"""When a quantity is computed; see `mmalign.contract.quantities`."""


@dataclass(frozen=True)
class Provider:
    """One way to get one quantity.

    Attributes:
        needs: the quantities that it is computed from, and others that have to be there.
        compute: empty if the engine itself fills the quantity in, else the import string of a function.
        origin: who offers it, for reports.
        parameters: keyword arguments of that function, or of `module`.
        module: import string of what builds the module that computes it, if that is trained with the policy.
        inputs: which quantity each parameter of the function, or of the module's `forward`, gets.
        given: parameters of the function that the engine fills with something else, e.g. `context`.
        spec: what a plugin announced; `inputs`, `given` and `needs` are read from it once the quantity is needed.
        min_prompts: see `QuantitySpec`.
    """

    name: str
    axes: str
    stage: Stage
    needs: tuple[str, ...] = ()
    compute: str = ""
    origin: str = "mmalign"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    spec: QuantitySpec | None = None
    min_prompts: int = 1

    @property
    def part(self) -> str:
        """Kind and name, for messages."""
        return f"quantity {self.name!r}"

    def bind(self) -> Provider:
        """Reads which quantities the parameters of a plugin's function get; returns a provider that knows."""
        if self.spec is None:
            return self
        binding = read_binding(self.spec, self.origin.removeprefix("plugin "))
        return replace(self, needs=binding.needs, inputs=binding.inputs, given=binding.given, spec=None)

    def call(self, values: Mapping[str, Tensor], **given: Any) -> Any:
        """Calls the function by keyword with its inputs, what the engine gives, and its parameters.

        Args:
            values: quantities by name.
            given: what the engine has for parameters such as `context`; others than the function takes are left out.

        Raises:
            PluginError: the function raises; the message names it and the line.
        """
        inputs = {parameter: values[name] for parameter, name in self.inputs.items()}
        own = {parameter: given[parameter] for parameter in self.given}
        function = load_object(self.compute)
        with foreign_code(self.part, function):
            return function(**inputs, **own, **self.parameters)

    def build(self, model: Model) -> nn.Module:
        """Builds the trained module with its parameters."""
        builder = load_object(self.module)
        with foreign_code(self.part, builder):
            module: nn.Module = builder(model, **self.parameters)
        return module
