"""Folders that hold an adapter in peft's format, as runs leave them: models to start from, merged into their base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import ConfigError

_CONFIG = "adapter_config.json"


def holds_adapter(path: Path) -> bool:
    """Returns whether a folder holds an adapter and no model."""
    return (path / _CONFIG).is_file() and not (path / "config.json").is_file()


def read_base(path: Path, key: str) -> str:
    """Returns the name of the base model of an adapter.

    Raises:
        ConfigError: the adapter does not say; the message starts with `key`.
    """
    try:
        base = json.loads((path / _CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{key}: {path / _CONFIG} cannot be read: {error}") from None
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{key}: {str(path)!r} holds an adapter that does not name its base model; export it merged, or write the "
            f"base model into {_CONFIG}"
        )
    return base


def merge_adapter(network: Any, path: Path, key: str) -> Any:
    """Merges an adapter into its base network.

    Raises:
        ConfigError: it is the adapter of another network, or damaged.
    """
    from peft import PeftModel

    try:
        # peft draws an adapter's weights before it loads them; a run must not depend on where its model comes from.
        with torch.random.fork_rng(devices=[]):
            merged = PeftModel.from_pretrained(network, str(path)).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{key}: the adapter in {str(path)!r} cannot be merged into its base model: {reason}"
        ) from None
    # peft froze the base model, which is the policy from now on.
    return merged.requires_grad_(True)
