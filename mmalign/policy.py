"""The trained network with its heads, as one module whose forward pass gives the wanted step outputs.

Distributed wrappers (DDP, FSDP) hook into `forward`, so every differentiable pass goes through `Policy.__call__`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmalign.parts import Modality
from mmalign.values import Anchor, EncodedResponse, Model


class Policy(nn.Module):
    """A modality's network with score and value heads.

    Attributes:
        network: the modality's trainable module.
        heads: linear heads on hidden states, float32: `scores` (one number a response), `values` (one a step).
    """

    def __init__(self, modality: Modality, model: Model, heads: Collection[str] = ()) -> None:
        super().__init__()
        self.modality = modality
        self.network = model.network
        self.heads = Heads(heads, model.hidden_size)

    def forward(
        self,
        responses: Sequence[EncodedResponse],
        want: Collection[str],
        anchors: Mapping[str, Anchor] | None = None,
    ) -> dict[str, Tensor]:
        """Computes the wanted outputs of `responses`; see `Modality.step_outputs`."""
        if not anchors:
            return self.modality.step_outputs(self, responses, want)
        return self.modality.step_outputs(self, responses, want, anchors)


class Heads(nn.Module):
    """Linear heads by name; `nn.ModuleDict` has a method `values` and so refuses a head of that name."""

    def __init__(self, names: Collection[str], hidden_size: int) -> None:
        super().__init__()
        for name in sorted(names):
            self.add_module(name, _build_head(hidden_size))

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def __len__(self) -> int:
        return len(self._modules)


def _build_head(hidden_size: int) -> nn.Linear:
    # Zero weights would give every response the same score and hide a broken head; the scale is InstructGPT's.
    head = nn.Linear(hidden_size, 1, dtype=torch.float32)
    nn.init.normal_(head.weight, std=1 / (hidden_size + 1))
    nn.init.zeros_(head.bias)
    return head


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Switches dropout off and gradients off; restores the training mode on leaving."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)
