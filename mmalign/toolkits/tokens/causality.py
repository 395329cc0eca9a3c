"""A check that a network's steps are one after the other, without which their log-probs mean nothing.

Some networks that read images let every token of a row see all others, unless they are told where the response begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn

from mmalign.errors import ConfigError
from mmalign.networks.policy import evaluation_mode
from mmalign.toolkits.tokens.decoders import Decoder, find_base
from mmalign.toolkits.tokens.prompts import Prompt, first_of_kinds, pad_rows

_RESPONSES = [torch.tensor(ids) for ids in ([1, 0], [1, 2])]

_CHECKED: WeakKeyDictionary[nn.Module, set[tuple[str, ...]]] = WeakKeyDictionary()
"""For every network: with which media it was checked."""


def require_causality(network: nn.Module, decoder: Decoder, prompts: Sequence[Prompt]) -> None:
    """Checks once for every kind of media that a token of a response changes nothing before it.

    Raises:
        ConfigError: it does.
    """
    checked = _CHECKED.setdefault(find_base(network), set())
    for kind, prompt in first_of_kinds(prompts).items():
        if kind not in checked and not _is_causal(network, decoder, prompt):
            raise ConfigError(
                f"modality.model: {type(find_base(network)).__name__} lets tokens of a response see those after them, "
                "so its steps have no log-probs; use a model that reads its responses causally"
            )
        checked.add(kind)


def _is_causal(network: nn.Module, decoder: Decoder, prompt: Prompt) -> bool:
    with evaluation_mode(network):
        inputs = [decoder.fit(pad_rows([prompt], [own], pad_id=0, side="right")) for own in _RESPONSES]
        one, other = (decoder.run(own).hidden[0, -2].float() for own in inputs)
    return torch.allclose(one, other, rtol=0, atol=1e-3 * float(one.abs().max()))
