"""From a configuration to bound parts: what every command does before it loads a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmalign.config.reading import Overrides
from mmalign.config.run_config import RunConfig, load_config
from mmalign.errors import ConfigError
from mmalign.masking import mask_logs
from mmalign.planning.assembly import Assembly, assemble, load_registry_for
from mmalign.training.launch_requests import check_launch_requests


def load_assembly(
    config: str | Path | RunConfig, overrides: Overrides = (), *, disabled: Sequence[str] = ()
) -> Assembly:
    """Reads and checks a configuration, loads plugins and binds the parts; loads no weights."""
    mask_logs()
    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("overrides: only a configuration file can be overridden; change the RunConfig itself")
        check_launch_requests(config)
        return assemble(config, load_registry_for(config.model_dump(), disabled))
    checked = load_config(config, overrides)
    check_launch_requests(checked)
    return assemble(checked, load_registry_for(checked.model_dump(), disabled), str(config))
