"""Lets a network compute in float32 whatever its own precision, for trials that must not depend on rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def in_float32(network: nn.Module) -> Iterator[None]:
    """Gives every module that runs float32 copies of its own weights, for as long as it runs.

    So there is never a second copy of the whole network. Without gradient, and not for weights that are shared out over
    devices. A network that reads the weights of a module without running it raises RuntimeError.
    """
    saved: dict[nn.Module, dict[str, nn.Parameter | None]] = {}

    def widen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        saved[module] = dict(module._parameters)
        for name, weight in saved[module].items():
            if weight is not None and weight.is_floating_point():
                module._parameters[name] = nn.Parameter(weight.detach().float(), requires_grad=False)
        return tuple(map(_widen, args)), {name: _widen(value) for name, value in kwargs.items()}

    def restore(module: nn.Module, args: Any, output: Any) -> None:
        module._parameters.update(saved.pop(module, {}))

    own = [module for module in network.modules() if any(one is not None for one in module._parameters.values())]
    hooks = [module.register_forward_pre_hook(widen, with_kwargs=True) for module in own]
    hooks += [module.register_forward_hook(restore, always_call=True) for module in own]
    device = next(network.parameters()).device.type
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(saved):
            restore(module, None, None)


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
