"""Networks in the subfolders of a diffusers pipeline: their settings, which files hold their weights, and loading.

MODEL/unet/config.json, diffusion_pytorch_model.safetensors             weights as they were trained
MODEL/unet/diffusion_pytorch_model.fp16.safetensors                     a variant of them
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from mmalign import ConfigError, quiet_loading
from mmalign_diffusion.families.folders import read_settings

Library = Literal["diffusers", "transformers"]

_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_QUANTISED = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "I8", "U8"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**24


@dataclass(frozen=True)
class Component:
    """A network of a pipeline.

    Attributes:
        folder: its own folder.
        variant: which files of weights are wanted, e.g. `fp16`; where there are none, the plain ones are taken, and
            without a wish a single variant where there are no plain ones.
        key: the setting that names the model, for errors.
    """

    folder: Path
    variant: str | None = None
    key: str = "modality.model"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What `config.json` says."""
        return read_settings(self.folder, "config.json", self.key)

    @property
    def place(self) -> str:
        """Names the setting and the file, for errors."""
        return f"{self.key}: {self.folder / 'config.json'}"

    @cached_property
    def chosen(self) -> tuple[str | None, tuple[Path, ...]]:
        """The variant and the files of the weights; raises ConfigError where there are none."""
        found: dict[str | None, list[Path]] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            found.setdefault(_variant(file), []).append(file)
        for wanted in (self.variant, None):
            if wanted in found:
                return wanted, tuple(found[wanted])
        if len(found) == 1 and self.variant is None:
            return next((variant, tuple(files)) for variant, files in found.items())
        there = ", ".join(sorted(map(str, found))) or "none"
        raise ConfigError(
            f"{self.key}: {self.folder} holds no weights as safetensors; variants that are there: {there}"
        )

    @cached_property
    def stored_dtype(self) -> torch.dtype:
        """The floating-point type that the weights are stored in."""
        with self._naming(), safe_open(self.chosen[1][0], "pt") as file:
            types = {file.get_slice(name).get_dtype() for name in file.keys()}
        if packed := sorted(types & _QUANTISED):
            raise ConfigError(
                f"{self.key}: {self.chosen[1][0]} holds quantised weights ({', '.join(packed)}); name a folder "
                "with the plain ones"
            )
        return next((dtype for name, dtype in _STORED.items() if name in types), torch.float32)

    @cached_property
    def parameters(self) -> int:
        """How many numbers the weights hold, read from the headers of their files."""
        count = 0
        for path in self.chosen[1]:
            with self._naming(), safe_open(path, "pt") as file:
                count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())
        return count

    def load(self, library: Library, class_name: str, dtype: torch.dtype) -> nn.Module:
        """Loads the network on the CPU; raises ConfigError where that fails."""
        _ = self.stored_dtype  # refuses what is quantised
        cls = find_class(library, class_name, self.key)
        precision = {"torch_dtype" if library == "diffusers" else "dtype": dtype}
        with self._naming(), quiet_loading(local=True):
            network = cls.from_pretrained(self.folder, variant=self.chosen[0], use_safetensors=True, **precision)
        return cast(nn.Module, network)

    @cached_property
    def fingerprint(self) -> str:
        """Hashes settings and weights; of files in the hub's cache the digest is known."""
        digest = hashlib.blake2b((self.folder / "config.json").read_bytes(), digest_size=16)
        for file in self.chosen[1]:
            blob = file.resolve().name
            digest.update(blob.encode() if _DIGEST.fullmatch(blob) else _hash_file(file))
        return digest.hexdigest()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{self.key}: cannot load {self.folder}: {reason}") from None


class Frozen:
    """A network of a pipeline that is never trained. Its weights are loaded on first use.

    Args:
        dtype: what it computes in; None for what its weights are stored in.

    Attributes:
        device: where it runs.
    """

    def __init__(
        self, component: Component, library: Library, class_name: str, dtype: torch.dtype | None = None
    ) -> None:
        self.component = component
        self.device = torch.device("cpu")
        self._library, self._class_name, self._dtype = library, class_name, dtype

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self._dtype or self.component.stored_dtype

    @contextmanager
    def running(self) -> Iterator[Any]:
        """Gives the network on its device, in its own precision whatever that of the policy is, without gradients."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            yield self._network.to(self.device)

    def describe(self) -> dict[str, Any]:
        """Names what decides its results, as JSON values; reads all weights."""
        return {"weights": self.component.fingerprint, "class": self._class_name, "dtype": str(self.dtype)}

    def load(self) -> nn.Module:
        """Loads the network on the CPU."""
        return self.component.load(self._library, self._class_name, self.dtype).requires_grad_(False).eval()

    @cached_property
    def _network(self) -> nn.Module:
        return self.load()


def find_class(library: Library, name: str, key: str) -> Any:
    """Returns a class of diffusers or transformers; raises ConfigError where it has none of that name."""
    import diffusers
    import transformers

    found = getattr({"diffusers": diffusers, "transformers": transformers}[library], name, None)
    if not isinstance(found, type):
        raise ConfigError(f"{key}: {library} has no class {name!r}")
    return found


def _variant(file: Path) -> str | None:
    """Reads the variant off a file's name; parts of one that is split are numbered before or after it.

    >>> _variant(Path("model.fp16.safetensors")), _variant(Path("model.fp16-00001-of-00002.safetensors"))
    ('fp16', 'fp16')
    """
    _, dot, variant = re.sub(r"-\d+-of-\d+", "", file.stem).partition(".")
    return variant if dot else None


def _hash_file(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
