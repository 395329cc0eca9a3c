"""Digests of what decides the result of a forward pass: weights, the network's own settings, code, versions."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.contract.modality import Modality
from mmalign.versions import installed_versions

_THREADS = 4


def hash_tensor(tensor: Tensor) -> bytes:
    """Hashes dtype, shape and every byte of a tensor; about 1 GB a second."""
    flat = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{flat.dtype} {tuple(flat.shape)}".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """Hashes tensors in their order; their names do not count, since adapters change them."""
    # Hashing lets go of Python's lock, so threads help; few, since each holds a copy of a tensor on the CPU.
    with ThreadPoolExecutor(_THREADS) as pool:
        return hashlib.blake2b(b"".join(pool.map(hash_tensor, tensors)), digest_size=16).hexdigest()


def hash_code(part: type, versioned: Iterable[str] = ()) -> str:
    """Hashes the source of the packages that a class and its bases come from.

    A plugin that is being written changes more often than its version.

    Args:
        versioned: packages that are left out because their versions are known.
    """
    modules = {base.__module__.partition(".")[0] for base in part.__mro__}
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(modules - set(versioned) - sys.stdlib_module_names):
        for file in _source_files(name):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def describe_scoring(modality: Modality, network: nn.Module) -> dict[str, Any]:
    """Names, as JSON values, what beside weights decides how a network scores an encoded response."""
    versions = installed_versions()
    return {
        "encoding": modality.fingerprint(),
        "network": _describe_network(network),
        "code": hash_code(type(modality), set(versions) - {"mmalign"}),
        "versions": versions,
    }


def _describe_network(network: nn.Module) -> dict[str, Any]:
    # Networks of transformers and diffusers have settings; those of others are parameters of their modality.
    config: Any = getattr(network, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    return {key: value for key, value in settings.items() if not key.startswith("_")}


def _source_files(package: str) -> list[Path]:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
