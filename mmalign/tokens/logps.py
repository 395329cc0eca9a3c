"""Log-probs of tokens without a [tokens, vocabulary] tensor of the batch.

A causal language model is a decoder body (ids to hidden states) and a head (hidden states to logits). The head is
applied only where a step is scored, a few hundred positions at a time, and again in the backward pass.

Shapes: S scored steps, D hidden size, V vocabulary, N rows, L positions.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mmalign.compute.policy import evaluation_mode
from mmalign.values import ANCHORED_OUTPUTS, Anchor

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
    """A causal language model, seen as a pass over ids and a head."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False, layers: bool = False) -> DecoderOutput:
        """Runs the body on `inputs` (`input_ids`, `attention_mask`, `position_ids`, a cache, pixels, ...)."""

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Turns states [S, ...] into logits [S, V]."""

    @abstractmethod
    def plain_logits(self, states: Tensor) -> Tensor:
        """Turns states [S, ...] into logits [S, V] as the network without its adapter does."""


class SplitDecoder(Decoder):
    """Body and head apart: logits exist only where they are asked for."""

    def __init__(self, body: nn.Module, head: nn.Module, rescale: Callable[[Tensor], Tensor]) -> None:
        self._body = body
        self._head = head
        self._rescale = rescale

    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False, layers: bool = False) -> DecoderOutput:
        """Runs the body."""
        options = {"output_hidden_states": True} if layers else {}
        output = self._body(**_accepted(self._body, inputs), use_cache=use_cache, **options)
        hidden = output.last_hidden_state
        return DecoderOutput(hidden, hidden, output.get("past_key_values"), _after_layers(output) if layers else ())

    def logits(self, states: Tensor) -> Tensor:
        """Applies the head and the model's own scaling of logits."""
        return self._rescale(cast(Tensor, self._head(states)))

    def plain_logits(self, states: Tensor) -> Tensor:
        """Applies the head under an adapter of its own, if it has one."""
        return self._rescale(cast(Tensor, getattr(self._head, "base_layer", self._head)(states)))


class WholeDecoder(Decoder):
    """A network whose head cannot be told apart: its own logits of all positions are used, at the cost of memory."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def run(self, inputs: Mapping[str, Any], *, use_cache: bool = False, layers: bool = False) -> DecoderOutput:
        """Runs the whole network; the states are its logits."""
        inputs = _accepted(find_base(self._network), inputs)
        output = self._network(**inputs, use_cache=use_cache, output_hidden_states=True)
        cache, inside = output.get("past_key_values"), _after_layers(output) if layers else ()
        return DecoderOutput(output.logits, output.hidden_states[-1], cache, inside)

    def logits(self, states: Tensor) -> Tensor:
        """Returns the states, which are the logits."""
        return states

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


OWN_OUTPUTS = ("logps", "entropy")
"""What `score_steps` computes of each step's distribution alone."""


def score_steps(
    decoder: Decoder,
    states: Tensor,
    targets: Tensor,
    want: Collection[str],
    *,
    temperature: float,
    chunk: int,
    anchors: Mapping[str, Anchor] | None = None,
) -> dict[str, Tensor]:
    """Scores steps, `chunk` at a time; logits are computed again in the backward pass instead of being kept.

    Args:
        states: [S, ...], what predicts each step.
        targets: [S], the token of each step.
        want: any of `OWN_OUTPUTS`, and `{anchor}_{output}` with one of `ANCHORED_OUTPUTS`; other names are left alone.
        temperature: divides the logits, the anchors', too.
        chunk: positions whose logits exist at the same time.
        anchors: what the policy is compared with, by name; their states are [S, ...] here.

    Returns:
        the wanted outputs [S], nats, float32.
    """
    anchors = anchors or {}
    names = (*OWN_OUTPUTS, *(f"{name}_{output}" for name in anchors for output in ANCHORED_OUTPUTS))
    heads = {name: anchor.logits for name, anchor in anchors.items()}
    scoring = _Scoring(decoder, tuple(name for name in names if name in want), temperature, heads)
    parts: dict[str, list[Tensor]] = {name: [] for name in scoring.want}
    inputs = (states, targets, *(anchor.states for anchor in anchors.values()))
    for part in zip(*(torch.split(values, chunk) for values in inputs), strict=True):
        if torch.is_grad_enabled():
            # The head has no dropout, so the generator's state need not be kept.
            scored = checkpoint(scoring, *part, use_reentrant=False, preserve_rng_state=False)
        else:
            scored = scoring(*part)
        for name, value in scored.items():
            parts[name].append(value)
    return {name: torch.cat(values) for name, values in parts.items()}


_COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": lambda policy, other: (other.exp() * (other - policy)).sum(dim=-1),
    "reverse_kl": lambda policy, other: (policy.exp() * (policy - other)).sum(dim=-1),
    "expected_logps": lambda policy, other: (policy.exp() * other).sum(dim=-1),
}
"""The outputs of `ANCHORED_OUTPUTS` from the log-probs [chunk, V] of the policy and of an anchor."""


@dataclass(frozen=True)
class _Scoring:
    """Scores a chunk of steps: states [chunk, ...] and targets [chunk] to the wanted outputs [chunk]."""

    decoder: Decoder
    want: tuple[str, ...]
    temperature: float
    heads: Mapping[str, Callable[[Tensor], Tensor]]

    def __call__(self, states: Tensor, targets: Tensor, *anchor_states: Tensor) -> dict[str, Tensor]:
        logits = self._temper(self.decoder.logits(states))  # [chunk, V]
        outputs: dict[str, Tensor] = {}
        if "logps" in self.want:
            outputs["logps"] = -cross_entropy(logits, targets, reduction="none")
        if self.want == ("logps",):
            return outputs
        log_probs = logits.log_softmax(dim=-1)
        if "entropy" in self.want:
            outputs["entropy"] = -(log_probs.exp() * log_probs).sum(dim=-1)
        for (name, head), others in zip(self.heads.items(), anchor_states, strict=True):
            with torch.no_grad():
                other = self._temper(head(others)).log_softmax(dim=-1)
            for output, compare in _COMPARISONS.items():
                if f"{name}_{output}" in self.want:
                    outputs[f"{name}_{output}"] = compare(log_probs, other)
        return outputs

    def _temper(self, logits: Tensor) -> Tensor:
        return logits.float() if self.temperature == 1 else logits.float() / self.temperature


def _after_layers(output: Any) -> tuple[Tensor, ...]:
    return tuple(output.hidden_states)[1:]  # the first is what the layers read


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
