"""Any Python function as a reward, named in the config by dotted path or by file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import Field, model_validator

from mmalign import ConfigError, Parameters, Reward, Sample, TrainingError
from mmalign_rewards.imported import load_callable
from mmalign_rewards.plain_values import to_plain
from mmalign_rewards.rows import order_row
from mmalign_rewards.worker_pool import LIMITS, WorkerPool
from mmalign_rewards.worker_supervisor import WorkerLimits

_ARGUMENTS = ("prompts", "responses", "records")
_CALL = ", ".join(_ARGUMENTS)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_WHERE = "rewards.python.function"


class PythonFunctionConfig(Parameters):
    """A Python function."""

    function: str
    """`package.module.function`, `package.module:function`, or `path/file.py:function` (from the working folder)."""
    workers: int = Field(default=0, ge=0)
    """Processes that call the function, each on one sample at a time; 0 calls it in the run's own, on all samples."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds a call in a worker may take; then the sample has no score, and the worker is replaced."""
    max_memory_bytes: int = Field(default=LIMITS.memory, ge=2**26)
    """Data of a worker, and of each process that it starts; more is a MemoryError there, which costs the sample."""
    max_processes: int = Field(default=LIMITS.processes, ge=1)
    """Processes that a worker may consist of at a time; one with more is ended, and its sample has no score."""
    deterministic: bool = False
    """The function always gives equal samples equal scores, so that `cache: true` may keep them."""
    outputs: tuple[str, ...] = ()
    """Names of several scores a response, which the function gives as tuples in this order or as mappings."""

    @model_validator(mode="after")
    def _check_timeout(self) -> PythonFunctionConfig:
        if self.timeout is not None and not self.workers:
            raise ValueError(
                "timeout: needs workers, e.g. workers: 2; in the run's own process nothing can stop a call"
            )
        return self


class PythonFunction(Reward):
    """Calls a function with those of these keyword arguments that its signature takes; lists of equal length.

    - `prompts`: the text of each prompt's last user message;
    - `responses`: the decoded outputs: strings, images, waveforms, as the modality gives them;
    - `records`: the records, with metadata such as gold answers (`record.metadata`).

    It returns one number a response, as a list, an array or a tensor; NaN for no score. The function is imported when
    the reward is built, so a wrong name fails before anything heavy loads.

        def brevity(responses):
            return [-len(response) / 100 for response in responses]

    With `outputs` it returns a tuple of numbers or a mapping of names to numbers for each response, or an array [N, K].

    With workers it is called on lists of one sample, in processes that import it anew.
    """

    def __init__(
        self,
        function: str,
        workers: int = 0,
        timeout: float | None = None,
        deterministic: bool = False,
        outputs: Sequence[str] = (),
        max_memory_bytes: int = LIMITS.memory,
        max_processes: int = LIMITS.processes,
    ) -> None:
        self.function = load_function(function)
        self.deterministic = deterministic
        self.dimensions = tuple(outputs)
        # In the run's own process a function may use whatever the policy uses.
        self.background = workers > 0
        self._arguments = _accepted_arguments(self.function, function)
        folder = _plugin_folder(self.function)
        limits = WorkerLimits(max_memory_bytes, max_processes)
        options: dict[str, Any] = {"folder": folder, "size": workers, "timeout": timeout, "limits": limits}
        self._pool = WorkerPool(load_function, function, **options) if workers else None

    def score(self, samples: Sequence[Sample]) -> Sequence[Any]:
        """Returns what the function returns, rows in the order of `outputs`; the engine checks it.

        Raises:
            TrainingError: a worker's function returns no list.
        """
        if self._pool is not None:
            calls = [self._columns([sample]) for sample in samples]
            scores: Any = [_take_only(values) for values in self._pool.call(calls)]
        else:
            scores = to_plain(self.function(**self._columns(samples)))
        if not self.dimensions or not isinstance(scores, list):
            return cast("Sequence[Any]", scores)
        return [_order_row(row, self.dimensions) for row in scores]

    def _columns(self, samples: Sequence[Sample]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            "prompts": [sample.record.prompt_text for sample in samples],
            "responses": [sample.output for sample in samples],
            "records": [sample.record for sample in samples],
        }
        return {name: columns[name] for name in self._arguments}


def _take_only(values: Any) -> Any:
    """Takes the score of a call on one sample."""
    if isinstance(values, Exception):
        return values
    if not isinstance(values, list):
        raise TrainingError(f"rewards.python: expected a list of numbers, one a response, got {values!r:.80}")
    if len(values) != 1:
        return ValueError(f"expected 1 score for 1 response, got {len(values)}")
    return values[0]


def _order_row(row: Any, outputs: Sequence[str]) -> list[Any] | Exception:
    try:
        return row if isinstance(row, Exception) else order_row(row, outputs)
    except ValueError as error:
        return error


def load_function(path: str) -> Callable[..., Any]:
    """Imports the function that a config names, see `load_callable`; called in worker processes, too."""
    return load_callable(path, _WHERE)


def _plugin_folder(function: Callable[..., Any]) -> str:
    """The folder of the function's module, which for one in a plugin file is on no module search path."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    return str(Path(file).parent) if file and module is not None and "." not in module.__name__ else ""


def _accepted_arguments(function: Callable[..., Any], path: str) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{_WHERE}: {path!r} has no signature to read; wrap it in a Python function") from error
    kinds = {parameter.kind for parameter in parameters}
    named = [parameter for parameter in parameters if parameter.kind not in _VARIADIC]
    for parameter in named:
        given = parameter.name in _ARGUMENTS and parameter.kind is not parameter.POSITIONAL_ONLY
        if parameter.default is parameter.empty and not given:
            raise ConfigError(f"{_WHERE}: {path!r} needs {parameter.name!r}, but is called with {_CALL} by name")
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return _ARGUMENTS
    accepted = tuple(parameter.name for parameter in named if parameter.name in _ARGUMENTS)
    if not accepted:
        raise ConfigError(f"{_WHERE}: {path!r} takes none of {_CALL}, so it cannot see what it scores")
    return accepted
