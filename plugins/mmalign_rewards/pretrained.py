"""Frozen transformers models that rewards score with: loading, and tokenised batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mmalign import ConfigError, quiet_loading


def load_frozen(auto_model: Any, name: str, where: str, **options: Any) -> tuple[Any, Any, Any]:
    """Loads a tokenizer and a model, in evaluation mode, on this process's GPU if there is one.

    Args:
        auto_model: a transformers auto class.
        name: a model id of the hub, or a folder.
        where: the config key that named it, for errors.
        options: for `from_pretrained`.

    Returns:
        tokenizer, model, and the names of the weights that the files lack.

    Raises:
        ConfigError: there is no such model, or it cannot be read.
    """
    from transformers import AutoTokenizer

    _refuse_parts(name, where)
    try:
        # Rewards load at their first use, which a resumed run reaches at another step: random numbers that loading
        # draws must not shift those of training.
        with torch.random.fork_rng(devices=[]), quiet_loading(local=Path(name).is_dir()):
            tokenizer = AutoTokenizer.from_pretrained(name)
            model, info = auto_model.from_pretrained(name, output_loading_info=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"{where}: cannot load {name!r}, neither as a folder nor from the hub: {cause}") from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(f"{where}: {name!r} is an adapter; {_MERGE}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return tokenizer, model.requires_grad_(False).eval().to(device), sorted(info["missing_keys"])


_MERGE = "merge it into its base model and name the merged folder, or name a run with `{name: run, path: ...}`"


def _refuse_parts(name: str, where: str) -> None:
    """Refuses folders that are only a part of a model: its head would be one of random numbers."""
    folder = Path(name)
    if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
        raise ConfigError(f"{where}: {name!r} is the folder of a run; use the reward {{name: run, path: {name}}}")
    if (folder / "heads.safetensors").is_file():
        run = f"{{name: run, path: {folder.parent}}}"
        raise ConfigError(f"{where}: {name!r} is the model of a run with heads of its own; use the reward {run}")
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(f"{where}: {name!r} is an adapter; {_MERGE}")


def iter_token_batches(
    tokenizer: Any, texts: Sequence[str], *, batch_size: int, max_length: int, device: torch.device
) -> Iterator[dict[str, torch.Tensor]]:
    """Yields padded model inputs [at most batch_size, T] of `texts`, in order, cut to `max_length` tokens."""
    limit = min(max_length, tokenizer.model_max_length)
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        yield dict(inputs.to(device))


def count_longer(tokenizer: Any, texts: Sequence[str], max_length: int) -> int:
    """Counts the texts that do not fit into `max_length` tokens."""
    limit = min(max_length, tokenizer.model_max_length)
    return sum(len(ids) > limit for ids in tokenizer(list(texts), verbose=False)["input_ids"])
