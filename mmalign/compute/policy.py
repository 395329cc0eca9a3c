"""The trained network with its heads, as one module whose forward pass gives the planned step outputs.

Distributed wrappers (DDP, FSDP) hook into `forward`, so every differentiable pass goes through `Policy.__call__`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmalign.forward_plan import POLICY_OUTPUTS, ForwardPlan
from mmalign.modality import Modality
from mmalign.planning.quantities import Provider
from mmalign.values import Anchor, EncodedResponse, Model


class Policy(nn.Module):
    """A modality's network with the heads that are trained beside it.

    Attributes:
        network: the modality's trainable module.
        heads: float32: linear ones on hidden states, `scores` (one number a response) and `values` (one a step), and
            the modules of trained quantities.
    """

    def __init__(
        self, modality: Modality, model: Model, heads: Collection[str] = (), trained: Sequence[Provider] = ()
    ) -> None:
        super().__init__()
        self.modality = modality
        self.network = model.network
        linear = {name: _build_head(model.hidden_size) for name in sorted(heads)}
        self.heads = Heads({**linear, **{one.name: one.build(model).float() for one in trained}})
        self._needs = {one.name: one.needs for one in trained}

    def forward(
        self,
        responses: Sequence[EncodedResponse],
        plan: ForwardPlan,
        anchors: Mapping[str, Anchor] | None = None,
        known: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Computes the planned outputs of `responses`, see `Modality.step_outputs`, and the trained quantities.

        Args:
            known: quantities that are there before the pass; None to leave the trained quantities out.
        """
        outputs: dict[str, Tensor] = {}
        if plan:
            # Modalities that know no anchors need not take the argument.
            compared = (anchors,) if anchors else ()
            outputs = self.modality.step_outputs(self, responses, plan, *compared)
        return outputs if known is None else outputs | self._compute_trained({**known, **name_outputs(outputs)})

    def _compute_trained(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, needs in self._needs.items():
            inputs = [values[need].float() if values[need].is_floating_point() else values[need] for need in needs]
            # Heads are float32 also under autocast: masks and values differ by less than bfloat16 resolves.
            with torch.autocast(inputs[0].device.type, enabled=False):
                values[name] = self.heads[name](*inputs)
        return {name: values[name] for name in self._needs}


def name_outputs(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the outputs of the policy's pass the names of quantities."""
    return {name: outputs[output] for name, output in POLICY_OUTPUTS.items() if output in outputs}


class Heads(nn.Module):
    """Modules by name; `nn.ModuleDict` has a method `values` and so refuses a head of that name."""

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, head in heads.items():
            self.add_module(name, head)

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
