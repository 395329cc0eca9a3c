"""Any Python function as a reward, named in the config by dotted path or by file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, model_validator

from mmalign import ConfigError, Parameters, Reward, Sample, suggest
from mmalign_rewards.rows import order_row
from mmalign_rewards.worker_pool import WorkerPool

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
    ) -> None:
        self.function = load_function(function)
        self.deterministic = deterministic
        self.dimensions = tuple(outputs)
        # In the run's own process a function may use whatever the policy uses.
        self.background = workers > 0
        self._arguments = _accepted_arguments(self.function, function)
        folder = _plugin_folder(self.function)
        load = load_function
        self._pool = WorkerPool(load, function, folder=folder, size=workers, timeout=timeout) if workers else None

    def score(self, samples: Sequence[Sample]) -> Sequence[Any]:
        """Returns what the function returns, rows in the order of `outputs`; the engine checks it."""
        if self._pool is not None:
            scores: Sequence[Any] = self._pool.call([self._columns([sample]) for sample in samples])
        else:
            scores = self.function(**self._columns(samples))
        return [_order_row(row, self.dimensions) for row in scores] if self.dimensions else scores

    def _columns(self, samples: Sequence[Sample]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            "prompts": [sample.record.prompt_text for sample in samples],
            "responses": [sample.output for sample in samples],
            "records": [sample.record for sample in samples],
        }
        return {name: columns[name] for name in self._arguments}


def _order_row(row: Any, outputs: Sequence[str]) -> list[Any] | Exception:
    try:
        return row if isinstance(row, Exception) else order_row(row, outputs)
    except ValueError as error:
        return error


def load_function(path: str) -> Callable[..., Any]:
    """Imports the function that a config names; the forms are those of `PythonFunctionConfig`.

    What else a module raises while it is imported is a bug in it, and passes with its traceback.

    Raises:
        ConfigError: there is no such file, module or function, or it cannot be imported or called.
    """
    file_name, _, in_file = path.rpartition(":")
    if file_name.endswith(".py"):
        function = _find(_load_file(Path(file_name)), in_file, path)
    else:
        function = _load_dotted(path)
    if not callable(function):
        raise ConfigError(f"{_WHERE}: {path!r} is a {type(function).__name__}, expected a function")
    loaded: Callable[..., Any] = function
    return loaded


def _load_file(file: Path) -> ModuleType:
    resolved = file.resolve()
    # A name of its own, so that the file neither hides nor becomes another module; the same file is loaded once.
    name = f"mmalign_function_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{_WHERE}: {str(file)!r} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, OSError) as error:
        del sys.modules[name]
        raise ConfigError(f"{_WHERE}: cannot import {str(file)!r}: {type(error).__name__}: {error}") from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_dotted(path: str) -> Any:
    module_name, separator, attribute = path.partition(":")
    if not separator:
        module_name, _, attribute = path.rpartition(".")
    if not module_name or not attribute or module_name.startswith("."):
        expected = "expected 'package.module.function' or 'path/file.py:function'"
        raise ConfigError(f"{_WHERE}: got {path!r}; {expected}")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, OSError) as error:
        hint = "name a file that is not installed as 'path/file.py:function'"
        raise ConfigError(f"{_WHERE}: cannot import {module_name!r}: {error}; {hint}") from error
    return _find(module, attribute, path)


def _find(module: ModuleType, attribute: str, path: str) -> Any:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        names = [name for name, value in vars(module).items() if inspect.isroutine(value) and name[0] != "_"]
        raise ConfigError(f"{_WHERE}: {path!r} has no {attribute!r}{suggest(attribute, names)}") from None


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
