"""Can a run write what it will write? Asked before anything is loaded, and by `mmalign check`."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from mmalign.config.run_config import RunConfig
from mmalign.errors import ConfigError
from mmalign.results.run_folder import check_folder
from mmalign.results.run_lock import lock_folder

logger = logging.getLogger(__name__)

_WEIGHT = 4
"""Bytes a trained parameter takes in a checkpoint; less in full training in another dtype."""
_MOMENTS = {"adamw": 8, "adafactor": 0}
"""Bytes that the optimiser adds to them; those of adafactor are rows and columns alone."""


def check_outputs(config: RunConfig) -> None:
    """Checks that every folder that a run writes to can be made and written; what is made for that is removed.

    Raises:
        ConfigError: names the key and the reason.
    """
    check_folder(Path(config.output))
    with lock_folder(Path(config.output)):
        pass
    for split in ("train", "eval"):
        data = getattr(config.data, split)
        if data is not None and data.on_error == "quarantine" and data.quarantine_dir:
            _check_writable(Path(data.quarantine_dir), f"data.{split}.quarantine_dir")


def check_disk(config: RunConfig, trained: int) -> None:
    """Checks that the disk has room for checkpoints.

    Args:
        trained: number of trained parameters.

    Raises:
        ConfigError: not even one checkpoint and the export fit.
    """
    exported = trained * _WEIGHT
    size = exported + trained * _MOMENTS[config.train.optimiser]
    free = shutil.disk_usage(_nearest(Path(config.output))).free
    if free < size + exported:
        raise ConfigError(
            f"output: {config.output}: a checkpoint and the model take about {_gigabytes(size + exported)}, the disk "
            f"has {_gigabytes(free)} left; choose another folder, or make room"
        )
    # A new checkpoint is complete before the oldest goes.
    most = (config.checkpoint.keep + 1) * size + exported
    if free < most:
        logger.warning(
            "output: %s: %d checkpoints, one more while it is written, and the model take about %s, the disk has %s "
            "left; make room, or set checkpoint.keep: 1",
            config.output,
            config.checkpoint.keep,
            _gigabytes(most),
            _gigabytes(free),
        )


def _check_writable(folder: Path, key: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise ConfigError(f"{key}: {folder} cannot be written: {error.strerror or error}") from None


def _nearest(folder: Path) -> Path:
    """Returns the folder itself, or the nearest one above it that is there."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.exists(one))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
