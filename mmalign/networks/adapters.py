"""Low-rank adapters (LoRA) for any network, through peft.

The base network is frozen and shared: with the adapter switched off (`disable_adapter()`) it is the reference. Adapter
weights are float32 whatever the base's dtype, since updates of 1e-5 vanish in bfloat16. peft loads on first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast, runtime_checkable

from pydantic import Field, model_validator

from mmalign.contract.specs import Parameters
from mmalign.errors import ConfigError, suggest

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

ATTENTION_AND_MLP = frozenset(
    "q_proj k_proj v_proj o_proj qkv_proj out_proj query_key_value dense Wqkv c_attn c_proj "
    "gate_proj up_proj down_proj gate_up_proj dense_h_to_4h dense_4h_to_h fc1 fc2 c_fc w1 w2 w3 "
    "to_q to_k to_v to_out.0".split()
)
"""Names of the linear layers of attention and MLP blocks in transformers and diffusers networks: target `auto`."""

_LAYER = re.compile(r"\.(\d+)\.")


class LoRAParameters(Parameters):
    """A low-rank adapter: W + (alpha / rank) B A, with B zero at the start.

    Source: LoRA (arXiv:2106.09685), section 4.1.
    """

    rank: int = Field(default=8, ge=1)
    """Rank of the update of every adapted matrix."""
    alpha: float | None = Field(default=None, gt=0)
    """The update is scaled by alpha / rank; default twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. Above 0 the trained policy is noisy: online runs, whose ratios it blurs, stop."""
    targets: str | tuple[str, ...] = "auto"
    """`auto`: linear layers of attention and MLP blocks; `all-linear`: all but the output layer; or layer names."""
    last_layers: int | None = Field(default=None, ge=1)
    """Adapt this many blocks at the end only: nothing is back-propagated through those before."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Adapt these blocks only, counted from 0."""

    @model_validator(mode="after")
    def _check_layers(self) -> LoRAParameters:
        if self.layers is not None and self.last_layers is not None:
            raise ValueError("give layers or last_layers, not both")
        return self


@runtime_checkable
class HasOutputLayer(Protocol):
    """A network whose output layer is known, as transformers' are."""

    def get_output_embeddings(self) -> nn.Module | None:
        """Returns the layer that turns hidden states into logits."""


def add_lora(
    network: nn.Module, lora: LoRAParameters, *, task: str | None = None, name: str = "", within: str = ""
) -> PeftModel:
    """Freezes `network` and puts a trainable float32 adapter into it; the network is changed in place.

    Args:
        lora: what to adapt.
        within: name of the only part of the network that is adapted; default all of it.
        task: peft's task type, e.g. `CAUSAL_LM`; stored for `AutoPeftModel` classes.
        name: the base model's name, stored with the adapter.

    Raises:
        ConfigError: no layer of the network has a target's name, or there is no such block.
    """
    from peft import LoraConfig, get_peft_model

    if hasattr(network, "peft_config"):
        raise ConfigError("modality.lora: the model already has an adapter; merge it into the weights first")
    names = [one for one in _iter_linear_names(network) if one.startswith(f"{within}." if within else "")]
    targets = _find_targets(names, lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=rf"(?!{re.escape(within)}\.).*" if within else None,
        layers_to_transform=_find_layers(names, targets, lora),
        fan_in_fan_out=_is_transposed(network),
        task_type=task,
    )
    adapted = get_peft_model(cast(Any, network), config)
    if name:
        # peft fills in the folder that the weights were loaded from.
        adapted.peft_config["default"].base_model_name_or_path = name
    return cast("PeftModel", adapted)


def leave_casts_to_autocast(network: nn.Module) -> None:
    """Stops adapter layers from turning every input into float32; the network then runs under autocast only.

    Autocast would turn each of these copies back at once. Left out, a step is faster and keeps fewer activations.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


def _find_targets(names: Sequence[str], targets: str | Sequence[str]) -> list[str]:
    present = {_leaf(name) for name in names}
    if targets == "auto":
        wanted = present & ATTENTION_AND_MLP
    elif targets == "all-linear":
        wanted = present
    else:
        wanted = {targets} if isinstance(targets, str) else set(targets)
    for target in sorted(wanted - present):
        raise ConfigError(f"modality.lora.targets: no linear layer {target!r}{suggest(target, present)}")
    if not wanted:
        raise ConfigError(
            f"modality.lora.targets: {targets} knows no linear layer of this network; "
            f"its linear layers: {', '.join(sorted(present)) or 'none'}"
        )
    return sorted(wanted)


def _find_layers(names: Sequence[str], targets: Sequence[str], lora: LoRAParameters) -> list[int] | None:
    if lora.layers is None and lora.last_layers is None:
        return None
    numbers = [int(found[-1]) for found in map(_LAYER.findall, (n for n in names if _leaf(n) in targets)) if found]
    count = max(numbers, default=-1) + 1
    if lora.last_layers is not None:
        if lora.last_layers > count:
            raise ConfigError(f"modality.lora.last_layers: {lora.last_layers}; this network has {count} blocks")
        return list(range(count - lora.last_layers, count))
    for layer in lora.layers or ():
        if not 0 <= layer < count:
            raise ConfigError(f"modality.lora.layers: no block {layer}; this network has {count} blocks")
    return list(lora.layers or ())


def _iter_linear_names(network: nn.Module) -> Iterator[str]:
    """Yields the names of the linear layers, the output layer left out."""
    from torch import nn

    head = network.get_output_embeddings() if isinstance(network, HasOutputLayer) else None
    for name, module in network.named_modules():
        if (isinstance(module, nn.Linear) or _is_conv1d(module)) and module is not head:
            yield name


def _is_transposed(network: nn.Module) -> bool:
    return any(_is_conv1d(module) for module in network.modules())


def _is_conv1d(module: nn.Module) -> bool:
    # GPT-2's linear layer, a class of transformers: its name is enough to know it without an import.
    return type(module).__name__ == "Conv1D"


def _leaf(name: str) -> str:
    leaf = name.rpartition(".")[2]
    # `to_out.0`: a linear layer inside a Sequential is known by both names.
    return ".".join(name.split(".")[-2:]) if leaf.isdigit() else leaf
