"""What a run has loaded, as digests: base weights, encoding, teachers, data, code and files; part of a checkpoint.

The base weights are hashed whole, in memory, as they were loaded: about 1 GB a second for each of four threads, less
than loading takes. So it does not matter whether they came from a folder, the hub, a package or a GGUF file, and a
change of a single weight shows, which samples of bytes could miss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmalign.config.run_config import COMPONENT_KINDS
from mmalign.networks.policy import Policy
from mmalign.planning.assembly import Assembly
from mmalign.plugins.loading import PluginInfo
from mmalign.references.fingerprints import hash_tensors
from mmalign.results.named_files import digest_file, digest_named_files
from mmalign.run import Run
from mmalign.versions import installed_versions

_SITE = {"site-packages", "dist-packages"}

RECORDED = ("processes", "device", "versions", "plugins")
"""What may differ when a run goes on: it is noted, not refused."""


def describe_loaded(run: Run) -> dict[str, Any]:
    """Describes what was loaded, as JSON values; to be called before anything is trained or restored."""
    return {
        **describe_model(run),
        "teachers": {name: hash_tensors(teacher.weights()) for name, teacher in run.backend.teachers.items()},
        "data": run.source.fingerprint,
        "files": digest_named_files(run.config.model_dump(mode="json")) | _digest_editable(run.assembly),
        "plugins": {info.name: info.version for info in _installed_plugins(run.assembly)},
        "versions": installed_versions(),
        "processes": run.accelerator.num_processes,
        "device": run.accelerator.device.type,
    }


def describe_model(run: Run) -> dict[str, Any]:
    """Describes the base model: dtype and content of its weights, and what decides how it reads a record."""
    network = run.policy.network
    tensors = list(_iter_base(run.policy))
    dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in tensors if one.is_floating_point()})
    return {
        "dtype": " and ".join(dtypes),
        "shapes": _summarise(network),
        "weights": hash_tensors(tensors),
        "encoding": run.assembly.modality.fingerprint(),
    }


def _iter_base(policy: Policy) -> list[Tensor]:
    """Lists the weights that training starts from; an adapter and heads begin at random, by the seed."""
    adapter = policy.modality.adapter
    trained = {name for name, one in policy.network.named_parameters() if one.requires_grad} if adapter else set()
    state = policy.network.state_dict()
    return [value for name, value in state.items() if isinstance(value, Tensor) and name not in trained]


def _summarise(network: nn.Module) -> str:
    return f"{type(network).__name__}, {sum(one.numel() for one in network.parameters())} parameters"


def _installed_plugins(assembly: Assembly) -> list[PluginInfo]:
    """Lists the plugins that have a version; of files the content is compared."""
    return [info for info in assembly.registry.plugin_set.infos if info.status == "ok" and info.distribution]


def _digest_editable(assembly: Assembly) -> dict[str, str]:
    """Digests the code of the run's plugins that are installed as a link to a working folder: versions stay there."""
    found: dict[str, str] = {}
    used = set(_iter_used(assembly))
    for info in _installed_plugins(assembly):
        file = Path(info.file)
        linked = file.is_file() and _SITE.isdisjoint(file.parts)
        if linked and info.distribution != "mmalign" and info.name in used:
            files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
            found |= {f"plugins:{info.name}/{one.name}": digest_file(one) for one in files}
    return found


def iter_components(config: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (kind, key path, component) for every part that a configuration names, given as JSON values."""
    for key, kind in COMPONENT_KINDS.items():
        value: Any = config
        for name in key.split("."):
            value = (value or {}).get(name)
        for component in value if isinstance(value, list) else [value] if value else []:
            yield kind, key, component


def _iter_used(assembly: Assembly) -> Iterator[str]:
    """Yields the names of the plugins that offer the run's parts."""
    for kind, key, component in iter_components(assembly.config.model_dump(mode="json")):
        yield assembly.registry.find(kind, component["name"], key).plugin.name
