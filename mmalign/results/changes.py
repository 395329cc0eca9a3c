"""What differs between a checkpoint and the run that would go on from it, key by key.

Whatever shaped the steps that are done must be as it was: keys of the configuration and what was loaded. What only says
how far a run goes, how it computes, what is measured and where it writes may change. A key that is not listed here as
harmless is not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mmalign.config.components import RewardComponent, WeightedComponent
from mmalign.config.run_config import RunConfig
from mmalign.config.validation import validate, validate_parameters
from mmalign.errors import CheckpointError, ConfigError, MmalignError
from mmalign.masking import mask_values
from mmalign.planning.assembly import Assembly
from mmalign.plugins.registry import Registry
from mmalign.results.loaded import RECORDED, iter_components

HARMLESS = (
    "train.steps",
    "train.epochs",
    "train.micro_batch_size",
    "train.micro_batch_tokens",
    "train.gradient_checkpointing",
    "train.overlap_parts",
    "train.log_every",
    "checkpoint",
    "evaluation",
    "trackers",
    "output",
    "reference.cache",
    # Their content is compared.
    "plugins",
    "data.train.path",
    # Records that were left out at the start stay so, and no other images are read.
    "data.train.on_error",
    "data.train.quarantine_dir",
    "data.eval",
    "data.check_media",
    "data.allow_remote_media",
    "data.max_image_pixels",
    "data.max_image_bytes",
    "data.max_sound_samples",
    "data.private_media_hosts",
)
"""Keys that may change when a run goes on, with all below them."""

_HARMLESS_OF_PARTS = ("requests", "workers", "timeout")
"""Keys of any part that say how something is asked, not what."""

_OF_ALL_PARTS = frozenset(RewardComponent.model_fields) | frozenset(WeightedComponent.model_fields)
"""Keys that belong to the engine, not to the plugin."""

_CALLED = {
    "weights": "modality.weights",
    "encoding": "modality.encoding",
    "dtype": "modality.dtype",
    "shapes": "modality.shapes",
    "data": "data.train",
    "files": "",
}
"""Key paths of what was loaded, for messages and `--allow-changed`."""

_EXPLAINED = {
    "modality.weights": "the base weights are others",
    "modality.encoding": "the tokenizer, the chat template, the processor or a limit is another",
    "data.train": "the training data have changed",
}

_SHOWN = 100  # characters of a value


@dataclass(frozen=True)
class Change:
    """A key that has another value.

    Attributes:
        key: key path, with what was loaded under the keys that named it.
        old: value of the checkpoint, as JSON; None where there was none.
        new: value now.
        harmless: True if it may change.
        allowed: True if it shaped past steps and was allowed by name.
    """

    key: str
    old: Any
    new: Any
    harmless: bool = False
    allowed: bool = False

    def __str__(self) -> str:
        why = _EXPLAINED.get(self.key, "another content" if ":" in self.key else "")
        explained = f" ({why})" if why else ""
        return f"{self.key}: {_show(self.old)}, now {_show(self.new)}{explained}"


def find_changes(state: Mapping[str, Any], assembly: Assembly, loaded: Mapping[str, Any], source: str) -> list[Change]:
    """Compares a checkpoint's state with the configuration of a run and with what was loaded by it.

    Args:
        assembly: of the run that would go on.
        loaded: of `describe_loaded`; what either side lacks is not compared, e.g. of older checkpoints.
        source: names the checkpoint, for errors.

    Raises:
        CheckpointError: the configuration in the checkpoint cannot be read any more.
    """
    then = _fill_in(read_config(state, source), assembly.registry)
    now = _fill_in(mask_values(assembly.config.model_dump(mode="json")), assembly.registry)
    changes = [Change(key, old, new, _is_harmless(key)) for key, old, new in _iter_differences(then, now)]
    stored = dict(state.get("loaded") or {})
    if "data" in state:
        stored.setdefault("data", state["data"])
    for name in [one for one in loaded if one in stored]:
        harmless = name in RECORDED
        differences = _iter_differences(stored[name], loaded[name], _CALLED.get(name, name))
        changes += [Change(key, old, new, harmless) for key, old, new in differences]
    return changes


def check_changes(changes: Sequence[Change], allowed: Collection[str], where: str) -> list[Change]:
    """Returns the changes that stand, those of past steps marked as allowed.

    Args:
        allowed: key paths that may change though they shaped past steps; one stands for all keys below it.

    Raises:
        CheckpointError: names every key that shaped past steps, with its old and new value.
    """
    kept = [change if change.harmless else _allow(change, allowed) for change in changes]
    refused = [change for change in kept if not (change.harmless or change.allowed)]
    if refused:
        lines = "\n".join(f"  {change}" for change in refused)
        keys = " ".join(f"--allow-changed {change.key}" for change in refused)
        raise CheckpointError(
            f"{where} was trained with other settings than it would go on with:\n{lines}\n"
            f"go on with what it was trained with, start anew in another output folder, or change it all the same: "
            f"{keys}"
        )
    return kept


def read_config(state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the configuration in a checkpoint as JSON values; keys that came later have their defaults.

    Raises:
        CheckpointError: it has keys that are gone.
    """
    try:
        masked: dict[str, Any] = mask_values(validate(RunConfig, state["config"], "", source).model_dump(mode="json"))
        return masked
    except ConfigError as error:
        raise CheckpointError(f"{source}: written by another version of mmalign: {error}") from None


def _fill_in(config: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Writes the defaults of every part's parameters out, so that a key that is left out equals its default."""
    for kind, key, component in iter_components(config):
        own = {name: value for name, value in component.items() if name not in _OF_ALL_PARTS}
        # A part or a parameter that is gone is compared as it is written.
        with suppress(MmalignError):
            spec = registry.find(kind, component["name"], key).spec
            component |= validate_parameters(spec, own, key).model_dump(mode="json")
    return config


def _allow(change: Change, allowed: Collection[str]) -> Change:
    named = any(_is_below(change.key, key) for key in allowed)
    return Change(change.key, change.old, change.new, allowed=named)


def _is_harmless(key: str) -> bool:
    return any(_is_below(key, one) for one in HARMLESS) or not set(_HARMLESS_OF_PARTS).isdisjoint(key.split("."))


def _is_below(key: str, parent: str) -> bool:
    return key == parent or key.startswith((f"{parent}.", f"{parent}:"))


def _iter_differences(then: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (key path, old, new) where two JSON values differ."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        if then.get("name") != now.get("name") and not key.startswith("data."):
            # Another part, with parameters of its own.
            yield key, dict(then), dict(now)
            return
        for name in sorted(then.keys() | now.keys()):
            yield from _iter_differences(then.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (old, new) in enumerate(zip(then, now, strict=True)):
            # The only one of its list stands in a file without a list.
            place = key if len(now) == 1 and isinstance(new, Mapping) else f"{key}.{index}"
            yield from _iter_differences(old, new, place)
    elif then != now:
        yield key, then, now


def _show(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
