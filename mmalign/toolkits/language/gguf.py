"""GGUF files: converted once to a transformers folder in the user's cache, since reading one takes half a minute.

The folder is keyed by the file's content, so it survives a reinstalled package and never belongs to another file.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mmalign.references.folders import cache_folder

logger = logging.getLogger(__name__)


def cached_tokenizer(file: Path) -> Path:
    """Returns a folder with the tokenizer of a GGUF file, converting it if that was not done before."""
    return _cached(file, "tokenizer", lambda target: _convert_tokenizer(file, target))


def cached_settings(file: Path) -> Path:
    """Returns a folder with the configuration of a GGUF file's network, converting it if that was not done before."""
    return _cached(file, "configuration", lambda target: _convert_settings(file, target))


def cached_network(file: Path, dtype: torch.dtype) -> Path:
    """Returns a folder with the dequantised weights of a GGUF file in `dtype`, as safetensors."""
    return _cached(file, str(dtype).removeprefix("torch."), lambda target: _convert_network(file, dtype, target))


def _cached(file: Path, part: str, convert: Callable[[Path], None]) -> Path:
    folder = cache_folder("gguf") / f"{file.stem}-{file_digest(file)[:16]}"
    target = folder / part
    if target.is_dir():
        return target
    logger.info("converting the %s of %s once, into %s", part, file.name, target)
    folder.mkdir(parents=True, exist_ok=True)
    # Written beside its place and renamed, so that a killed or concurrent run leaves no half of a folder.
    unfinished = folder / f".{part}-{secrets.token_hex(4)}"
    unfinished.mkdir()
    try:
        # Building a network draws random weights first; a run must not depend on whether the cache was warm.
        with torch.random.fork_rng(devices=[]):
            convert(unfinished)
        if not target.is_dir():
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


@lru_cache(maxsize=8)
def file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _convert_tokenizer(file: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(target)


def _convert_settings(file: Path, target: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(target)


def _convert_network(file: Path, dtype: torch.dtype, target: Path) -> None:
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=dtype, **_dense())
    # transformers refuses to save a network that it remembers as quantised, although its weights no longer are.
    config: Any = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    network.load_state_dict(read.state_dict())
    network.tie_weights()
    network.save_pretrained(target)


def _dense() -> dict[str, Any]:
    # Newer transformers keep quantised weights packed where they have kernels for it; those cannot be trained.
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}
