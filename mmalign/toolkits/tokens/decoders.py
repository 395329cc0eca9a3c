"""A causal language model as a decoder body (ids to hidden states) and a head (hidden states to logits).

Shapes: S scored steps, D hidden size, V vocabulary, N rows, L positions.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmalign.networks.policy import evaluation_mode

logger = logging.getLogger(__name__)

_SPLITS_RIGHT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class DecoderOutput:
    """What one pass gives.

    Attributes:
        states: [N, L, ...], what `Decoder.logits` turns into logits.
        hidden: [N, L, D], last hidden states, for score and value heads.
        cache: keys and values, if asked for.
        layers: hidden states after every layer, each [N, L, D], if asked for; the last is `hidden`.
    """

    states: Tensor
    hidden: Tensor
    cache: Any = None
    layers: tuple[Tensor, ...] = ()


class Decoder(ABC):
    """A causal language model, seen as a pass over ids and a head.

    `TokenModality.build_decoder` returns one for a network; `mmalign.toolkits.tokens.decoder_checks` tries what is
    promised here.

    Args:
        network: what reads the inputs.

    Attributes:
        packable: True if `run` follows the `layout` of packed rows wherever a trial gives the same logits.
    """

    packable: ClassVar[bool] = False

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @property
    def device(self) -> torch.device:
        """Where the network's first weights are."""
        return next(self._network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network's first weights that are not quantised."""
        return next(weight.dtype for weight in self._network.parameters() if weight.is_floating_point())

    def fit(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Moves inputs to the network; pixels and sounds get its precision."""
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        return {
            name: value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in moved.items()
        }

    @abstractmethod
    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False, layers: bool = False) -> DecoderOutput:
        """Runs the body.

        Args:
            inputs: `input_ids`, `attention_mask` and `position_ids`, whatever the prompts hold beside tokens, and, for
                a further step of sampling, `past_key_values`: the cache that the pass before returned. Then ids and
                positions are [N, 1] and the mask covers the whole row.
            use_cache: return a cache, an object whose `batch_select_indices(rows)` keeps rows [b] of the batch, in
                place, in this order; a row may come several times.
            layers: return the hidden states after every layer, too.
        """

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Turns states [S, ...] into logits [S, V]."""

    @abstractmethod
    def head_weights(self) -> tuple[Tensor, ...]:
        """Lists the weights behind `logits` that are trained: others get no gradient."""

    def plain_logits(self, states: Tensor) -> Tensor:
        """Turns states [S, ...] into logits [S, V] as the network without its adapter does."""
        return self.logits(states)


class SplitDecoder(Decoder):
    """Body and head apart: logits exist only where they are asked for."""

    packable = True

    def __init__(self, body: nn.Module, head: nn.Module, rescale: Callable[[Tensor], Tensor]) -> None:
        super().__init__(body)
        self._head = head
        self._rescale = rescale

    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False, layers: bool = False) -> DecoderOutput:
        """Runs the body."""
        options = {"output_hidden_states": True} if layers else {}
        output = self._network(**_accepted(self._network, inputs), use_cache=use_cache, **options)
        hidden = output.last_hidden_state
        return DecoderOutput(hidden, hidden, output.get("past_key_values"), _after_layers(output) if layers else ())

    def logits(self, states: Tensor) -> Tensor:
        """Applies the head and the model's own scaling of logits."""
        return self._rescale(cast(Tensor, self._head(states)))

    def head_weights(self) -> tuple[Tensor, ...]:
        """Lists the trained weights of the head and of its adapter."""
        return tuple(weight for weight in self._head.parameters() if weight.requires_grad)

    def plain_logits(self, states: Tensor) -> Tensor:
        """Applies the head under an adapter of its own, if it has one."""
        return self._rescale(cast(Tensor, getattr(self._head, "base_layer", self._head)(states)))


class WholeDecoder(Decoder):
    """A network whose head cannot be told apart: its own logits of all positions are used, at the cost of memory."""

    packable = True

    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False, layers: bool = False) -> DecoderOutput:
        """Runs the whole network; the states are its logits."""
        inputs = _accepted(find_base(self._network), inputs)
        output = self._network(**inputs, use_cache=use_cache, output_hidden_states=True)
        cache, inside = output.get("past_key_values"), _after_layers(output) if layers else ()
        return DecoderOutput(output.logits, output.hidden_states[-1], cache, inside)

    def logits(self, states: Tensor) -> Tensor:
        """Returns the states, which are the logits."""
        return states

    def head_weights(self) -> tuple[Tensor, ...]:
        """Lists none: the pass that gave the states has used them."""
        return ()

    def plain_logits(self, states: Tensor) -> Tensor:
        """Returns the states, which are the logits of the network that gave them."""
        return states


def find_decoder(network: nn.Module) -> Decoder:
    """Splits a transformers causal language model, plain or wrapped by peft, into body and head.

    The split is tried once on three tokens; where it does not give the network's own logits, the network stays whole.
    """
    base: Any = find_base(network)
    body = getattr(base, "base_model", base)
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if body is base or head is None:
        return WholeDecoder(network)
    split = SplitDecoder(body, head, _find_rescaling(base.config))
    if base not in _SPLITS_RIGHT:
        _SPLITS_RIGHT[base] = _gives_own_logits(split, network)
        if not _SPLITS_RIGHT[base]:
            logger.warning("%s does more to its logits than is known; they are computed whole", type(base).__name__)
    return split if _SPLITS_RIGHT[base] else WholeDecoder(network)


def _after_layers(output: Any) -> tuple[Tensor, ...]:
    return tuple(output.hidden_states)[1:]  # the first is what the layers read


def find_base(network: nn.Module) -> nn.Module:
    """Returns the transformers network under peft's wrapper, or the network itself."""
    return cast(nn.Module, cast(Any, network).get_base_model()) if hasattr(network, "get_base_model") else network


def find_text_part(network: nn.Module) -> nn.Module:
    """Returns the part of a network that reads tokens: without its head, and without towers for images and sounds."""
    base: Any = find_base(network)
    return cast(nn.Module, base.get_decoder()) if hasattr(base, "get_decoder") else base


def _accepted(module: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    # Models with relative positions (ALiBi) take no position ids.
    if "position_ids" in inspect.signature(module.forward).parameters:
        return dict(inputs)
    return {name: value for name, value in inputs.items() if name != "position_ids"}


def _find_rescaling(config: Any) -> Callable[[Tensor], Tensor]:
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    factor = getattr(config, "logit_scale", None) or 1.0  # Cohere
    factor = factor * (getattr(config, "lm_head_multiplier", None) or 1.0)  # Falcon-H1
    factor = factor / (getattr(config, "logits_scaling", None) or 1.0)  # Granite

    def rescale(logits: Tensor) -> Tensor:
        logits = logits * factor if factor != 1 else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    return rescale


def _gives_own_logits(split: SplitDecoder, network: nn.Module) -> bool:
    device = next(network.parameters()).device
    ids = torch.arange(3, device=device)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with evaluation_mode(network):
        own = cast(Tensor, network(**inputs, use_cache=False).logits).float()
        mine = split.logits(split.run(inputs).states).float()
    return own.shape == mine.shape and torch.allclose(own, mine, rtol=0, atol=0.01 * float(own.abs().max()))
