"""Out-of-memory recovery: the micro-batch size halves, and what was being computed starts again.

The result of an optimiser step does not depend on the micro-batch size, so a step that is redone gives the loss and the
gradient that it would have given on a larger device. Random numbers start again where the step had started.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache

from mmalign.errors import TrainingError
from mmalign.hardware import is_out_of_memory

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# What allocators say that raise a plain RuntimeError: most devices; PyTorch's on the CPU, two forms; cuBLAS workspaces.


class MicroBatchSize:
    """Responses per forward pass; it halves when memory runs out and stays halved for the rest of the run.

    Every process has its own; at the end of a round they agree on the smallest, see `mmalign.training.loop`. Nothing
    that is computed with it waits for another process.

    Args:
        value: at most this many responses go through the network at the same time.

    Attributes:
        value: the present size.
    """

    def __init__(self, value: int) -> None:
        self.value = value

    def run_with_retry(
        self, count: int, compute: Callable[[int], Result], reset: Callable[[], object] | None = None
    ) -> Result:
        """Calls `compute(size)`; again with half the size, from the same random state, while memory runs out.

        Args:
            count: responses that `compute` cuts into micro-batches.
            compute: gets the micro-batch size; it is called anew from the start, so it should keep nothing.
            reset: undoes what an unfinished `compute` may have left, e.g. half of a gradient.

        Raises:
            TrainingError: memory runs out with a single response.
        """
        restore = _save_random_state()
        while True:
            try:
                return compute(self.value)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(count, error)
            # Only here, outside of the handler, has the traceback let go of the tensors of the failed pass.
            if reset is not None:
                reset()
            clear_device_cache(garbage_collection=True)
            restore()

    def lower(self, value: int) -> None:
        """Goes on with a smaller size that another process has come to."""
        if value < self.value:
            logger.warning("another process ran out of memory; going on with micro-batches of %d responses", value)
            self.value = value

    def _halve(self, count: int, cause: BaseException) -> None:
        tried = min(self.value, count)
        if tried <= 1:
            raise TrainingError(
                "out of memory with a single response per forward pass; use shorter prompts or responses, set "
                "train.gradient_checkpointing: true or train.dtype: bfloat16, train an adapter, or take a smaller model"
            ) from cause
        half = tried // 2
        self.value = half
        logger.warning(
            "out of memory with micro-batches of %d responses; going on with %d, which changes no result; "
            "set train.micro_batch_size: %d to begin with it",
            tried,
            half,
            half,
        )


def _save_random_state() -> Callable[[], None]:
    """Remembers the states of all generators that a run seeds; the returned function puts them back."""
    python, arrays, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    module = torch.get_device_module(device) if device else None
    state = module.get_rng_state() if module else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(cpu)
        if module:
            module.set_rng_state(state)

    return restore
