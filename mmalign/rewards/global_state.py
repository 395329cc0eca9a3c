"""What a reward switches for the whole process is switched back after it.

Scripts of reward models turn gradients off, set seeds, default types or the working folder. They do so for themselves;
a run that goes on with it would train nothing, or something else than it did without that reward.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Restore = Callable[[], object]


@contextmanager
def preserved_state(*, generators: bool = True) -> Iterator[None]:
    """Restores on leaving: torch's switches, random generators, numpy's error modes, working folder, signals, logging.

    What stays is what a reward may need again at its next call: environment variables, the module search path, and its
    modules.

    Args:
        generators: also the global random generators; not where another thread may draw from them meanwhile.
    """
    restores = [*_keep_process(), *_keep_numpy(), *(_keep_torch() or _DEFAULTS)]
    if generators:
        restores += _keep_generators()
    try:
        yield
    finally:
        for restore in restores:
            restore()


def _keep_process() -> Iterator[Restore]:
    with suppress(OSError):  # the folder is gone
        folder = os.getcwd()
        yield lambda: _change_folder(folder)
    disabled = logging.root.manager.disable
    yield lambda: logging.disable(disabled)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is not None:  # None: set outside Python, where it cannot be put back
                yield lambda number=number, handler=handler: signal.signal(number, handler)  # type: ignore[misc]


def _change_folder(folder: str) -> None:
    with suppress(OSError):
        os.chdir(folder)


def _keep_numpy() -> Iterator[Restore]:
    if numpy := sys.modules.get("numpy"):
        modes = numpy.geterr()
        yield lambda: numpy.seterr(**modes)


def _keep_torch() -> list[Restore]:
    """Returns what puts back the switches of torch; nothing if it is not loaded yet."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return []
    gradients, kind, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    device, precision = torch.get_default_device(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    anomaly, cudnn = torch.is_anomaly_enabled(), torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}

    def restore_device() -> None:
        # Setting it, even to what it is, puts a mode in the way of every later call.
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)

    def restore_determinism() -> None:
        # Setting it, even to what it is, imports torch's compiler: a second and more.
        now = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if now != (deterministic, warn_only):
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)

    return [
        lambda: torch.set_grad_enabled(gradients),
        lambda: torch.set_default_dtype(kind),
        lambda: torch.get_num_threads() == threads or torch.set_num_threads(threads),
        restore_device,
        lambda: torch.get_float32_matmul_precision() == precision or torch.set_float32_matmul_precision(precision),
        restore_determinism,
        lambda: torch.autograd.set_detect_anomaly(anomaly),
        *(lambda name=name, value=value: setattr(cudnn, name, value) for name, value in flags.items()),
    ]


def _restore_defaults() -> None:
    """Undoes the switches that matter in a torch that the reward itself was the first to load."""
    if torch := sys.modules.get("torch"):
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        if torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(False)
        if torch.get_default_device().type != "cpu":
            torch.set_default_device(None)


_DEFAULTS: list[Restore] = [_restore_defaults]


def _keep_generators() -> Iterator[Restore]:
    state = random.getstate()
    yield lambda: random.setstate(state)
    if "numpy" in sys.modules:
        from numpy import random as numbers

        drawn = numbers.get_state()
        yield lambda: numbers.set_state(drawn)
    if torch := sys.modules.get("torch"):
        cpu = torch.get_rng_state()
        yield lambda: torch.set_rng_state(cpu)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            devices = torch.cuda.get_rng_state_all()
            yield lambda: torch.cuda.set_rng_state_all(devices)
