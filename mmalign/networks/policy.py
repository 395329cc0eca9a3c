"""The trained network with its heads, as one module whose forward pass gives the planned step outputs.

Distributed wrappers (DDP, FSDP) hook into `forward`, so every differentiable pass goes through `Policy.__call__`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmalign.contract.forward_plan import POLICY_OUTPUTS, ForwardPlan
from mmalign.contract.modality import Modality
from mmalign.contract.provider import Provider
from mmalign.contract.values import Anchor, EncodedResponse, Model
from mmalign.foreign import foreign_code
from mmalign.networks.outputs import check_mask, check_outputs


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
        self._mask_checked = False
        linear = {name: _build_head(model.hidden_size) for name in sorted(heads)}
        self.heads = Heads({**linear, **{one.name: one.build(model).float() for one in trained}})
        self._inputs = {one.name: one.bind().inputs for one in trained}

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
            name = f"modality {type(self.modality).__name__}"
            with foreign_code(name, self.modality):
                outputs = self.modality.step_outputs(self, responses, plan, *compared)
            check_outputs(name, plan, responses, outputs)
            if not self._mask_checked:
                # Once: to look at what a mask says waits for the device.
                check_mask(name, responses, outputs["step_mask"])
                self._mask_checked = True
        return outputs if known is None else outputs | self._compute_trained({**known, **name_outputs(outputs)})

    def _compute_trained(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, inputs in self._inputs.items():
            given = {parameter: values[need] for parameter, need in inputs.items()}
            given = {key: value.float() if value.is_floating_point() else value for key, value in given.items()}
            device = next(iter(given.values())).device.type
            # Heads are float32 also under autocast: masks and values differ by less than bfloat16 resolves.
            head = self.heads[name]
            with torch.autocast(device, enabled=False), foreign_code(f"quantity {name!r}", head):
                values[name] = head(**given)
        return {name: values[name] for name in self._inputs}


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
