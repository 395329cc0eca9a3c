"""Verifies what a modality answers, at the one place where answers come in: names, shapes, dtypes, mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import EncodedResponse
from mmalign.errors import PluginError, suggest

_MASK = "step_mask"


def check_outputs(modality: str, plan: ForwardPlan, responses: Sequence[EncodedResponse], outputs: Any) -> None:
    """Checks the names, shapes and dtypes of a pass: nothing here waits for the device.

    Args:
        modality: who answers, for messages.
        plan: what was to be given.
        responses: of which it was to be given.
        outputs: what `Modality.step_outputs` returned.

    Raises:
        PluginError: an output is missing, is no tensor, or has another shape or precision than its name says.
    """
    if not isinstance(outputs, Mapping):
        raise PluginError(f"{modality}: step_outputs returned {type(outputs).__name__}; expected a mapping of tensors")
    sizes = {"N": len(responses), "T": max((one.steps for one in responses), default=0)}
    for name, axes in ((_MASK, "NT"), *plan.axes().items()):
        if name not in outputs:
            raise PluginError(
                f"{modality}: its step_outputs has no {name!r}, which was to be given{suggest(name, outputs)}"
            )
        _check_tensor(modality, name, outputs[name], axes, sizes)
    if outputs[_MASK].dtype != torch.bool:
        raise PluginError(f"{modality}: {_MASK} is of {outputs[_MASK].dtype}; expected torch.bool")


def check_mask(modality: str, responses: Sequence[EncodedResponse], mask: Tensor) -> None:
    """Checks that each row [T] of the mask marks the scored steps of its response, which come first.

    Raises:
        PluginError: it marks others, or another number of them.
    """
    for row, response in enumerate(responses):
        marked = mask[row].nonzero().flatten().tolist()
        if marked != list(range(response.steps)):
            raise PluginError(
                f"{modality}: {_MASK} marks the steps {_format(marked)} of a response of {response.steps} steps; the "
                "scored steps stand first in their row, and all of them are marked"
            )


def _check_tensor(modality: str, name: str, value: Any, axes: str, sizes: Mapping[str, int]) -> None:
    if not isinstance(value, Tensor):
        raise PluginError(f"{modality}: {name} is {type(value).__name__}; expected a tensor [{', '.join(axes)}]")
    fits = value.dim() == len(axes) and all(
        size == sizes.get(axis, size) for axis, size in zip(axes, value.shape, strict=True)
    )
    if not fits:
        expected = ", ".join(f"{axis} = {sizes[axis]}" if axis in sizes else axis for axis in axes)
        raise PluginError(f"{modality}: {name} has shape {tuple(value.shape)}; expected [{expected}]")
    # Inner states keep the precision of the network; numbers that are summed over steps must not.
    if "D" not in axes and "A" not in axes and name != _MASK and value.dtype not in (torch.float32, torch.float64):
        raise PluginError(f"{modality}: {name} is of {value.dtype}; expected torch.float32")


def _format(places: Sequence[int]) -> str:
    shown = ", ".join(map(str, places[:8]))
    return f"{shown}, ..." if len(places) > 8 else shown or "none"
