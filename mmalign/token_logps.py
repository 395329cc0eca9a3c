"""Log-probs of tokens without a [tokens, vocabulary] tensor of the batch.

A causal language model is a decoder body (ids to hidden states) and a head (hidden states to logits). The head is
applied only where a step is scored, a few hundred positions at a time, and again in the backward pass.

Shapes: S scored steps, D hidden size, V vocabulary, N rows, L positions.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mmalign.policy import evaluation_mode

logger = logging.getLogger(__name__)

_SPLITS_RIGHT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class DecoderOutput:
    """What one pass gives.

    Attributes:
        states: [N, L, ...], what `Decoder.logits` turns into logits.
        hidden: [N, L, D], last hidden states, for score and value heads.
        cache: keys and values, if asked for.
    """

    states: Tensor
    hidden: Tensor
    cache: Any = None


class Decoder(ABC):
    """A causal language model, seen as a pass over ids and a head."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False) -> DecoderOutput:
        """Runs the body on `inputs` (`input_ids`, `attention_mask`, `position_ids`, a cache, pixels, ...)."""

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Turns states [S, ...] into logits [S, V]."""


class SplitDecoder(Decoder):
    """Body and head apart: logits exist only where they are asked for."""

    def __init__(self, body: nn.Module, head: nn.Module, rescale: Callable[[Tensor], Tensor]) -> None:
        self._body = body
        self._head = head
        self._rescale = rescale

    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False) -> DecoderOutput:
        """Runs the body."""
        output = self._body(**_accepted(self._body, inputs), use_cache=use_cache)
        hidden = output.last_hidden_state
        return DecoderOutput(hidden, hidden, output.get("past_key_values"))

    def logits(self, states: Tensor) -> Tensor:
        """Applies the head and the model's own scaling of logits."""
        return self._rescale(cast(Tensor, self._head(states)))


class WholeDecoder(Decoder):
    """A network whose head cannot be told apart: its own logits of all positions are used, at the cost of memory."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False) -> DecoderOutput:
        """Runs the whole network; the states are its logits."""
        inputs = _accepted(find_base(self._network), inputs)
        output = self._network(**inputs, use_cache=use_cache, output_hidden_states=True)
        return DecoderOutput(output.logits, output.hidden_states[-1], output.get("past_key_values"))

    def logits(self, states: Tensor) -> Tensor:
        """Returns the states, which are the logits."""
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


def score_steps(
    decoder: Decoder, states: Tensor, targets: Tensor, *, temperature: float, chunk: int, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Scores steps, `chunk` at a time; logits are computed again in the backward pass instead of being kept.

    Args:
        states: [S, ...], what predicts each step.
        targets: [S], the token of each step.
        temperature: divides the logits.
        chunk: positions whose logits exist at the same time.
        with_entropy: compute the entropy, too.

    Returns:
        log-probs [S] and entropies [S] in nats, float32; the entropies are zeros if not asked for.
    """
    parts = []
    for part in zip(torch.split(states, chunk), torch.split(targets, chunk), strict=True):
        arguments = (*part, decoder, temperature, with_entropy)
        if torch.is_grad_enabled():
            # The head has no dropout, so the generator's state need not be kept.
            parts.append(checkpoint(_score_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_score_chunk(*arguments))
    logps, entropies = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropies)


def _score_chunk(
    states: Tensor, targets: Tensor, decoder: Decoder, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    logits = decoder.logits(states).float()  # [chunk, V]
    if temperature != 1:
        logits = logits / temperature
    logps = -cross_entropy(logits, targets, reduction="none")
    if not with_entropy:
        return logps, torch.zeros_like(logps)
    log_probs = logits.log_softmax(dim=-1)
    return logps, -(log_probs.exp() * log_probs).sum(dim=-1)


def find_base(network: nn.Module) -> nn.Module:
    """Returns the transformers network under peft's wrapper, or the network itself."""
    return cast(nn.Module, cast(Any, network).get_base_model()) if hasattr(network, "get_base_model") else network


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
