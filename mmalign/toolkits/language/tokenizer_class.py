"""What transformers has to know of a model to choose its tokenizer's class, without loading the model's own classes.

`AutoTokenizer` builds the configuration class of the model first, which imports torch's distributed tensors and
torchvision: half of what a command that only encodes records would take. Where a folder says of which class its
tokenizer is, transformers asks that configuration for its model type and name alone, so a plain one that has them does
as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tokenizer_options(folder: str) -> dict[str, Any]:
    """Returns the argument `config` for `AutoTokenizer.from_pretrained`; nothing where it needs the real one."""
    settings = _read_object(Path(folder) / "config.json")
    declared = _read_object(Path(folder) / "tokenizer_config.json")
    if not isinstance(settings.get("model_type"), str) or "auto_map" in declared or "auto_map" in settings:
        return {}
    if not isinstance(declared.get("tokenizer_class"), str):
        return {}
    from transformers import PretrainedConfig

    config = PretrainedConfig(name_or_path=folder)
    config.model_type = settings["model_type"]
    if "model_name" in settings:
        config.model_name = settings["model_name"]
    return {"config": config}


def _read_object(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    # What is wrong with the file is said by transformers, which reads it next.
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}
