"""Whether the rewards of one part of a round can be scored while the next part is sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign.errors import ConfigError

if TYPE_CHECKING:
    from mmalign.planning.assembly import Assembly


def check_overlap(assembly: Assembly, where: str) -> None:
    """Checks that parts of a round can be sampled and scored on their own.

    Args:
        where: the key that asks for it, for errors.

    Raises:
        ConfigError: they cannot, or nothing would overlap.
    """
    config, collector, scorer = assembly.config, assembly.collector, assembly.scorer
    if collector is None or config.collector is None or scorer is None:
        raise ConfigError(f"{where}: rewards of sampled responses overlap; without `collector` or `rewards`, drop it")
    if collector.independent_group is None:
        raise ConfigError(f"{where}: collector {config.collector.name!r} needs all prompts at once; drop it")
    unit = assembly.engine.prompts_per_draw(assembly.modality, collector.independent_group)
    if unit is None:
        parts = f"engine {config.engine.name!r} with modality {config.modality.name!r}"
        raise ConfigError(f"{where}: {parts} cannot sample in parts; drop it")
    if not scorer.background:
        raise ConfigError(f"{where}: none of the rewards scores in the background, as `http` does; drop it")
    prompts = config.train.prompts_per_round or config.train.batch_size
    if prompts <= unit:
        raise ConfigError(
            f"{where}: the {prompts} prompts of a round are sampled at once, so nothing would overlap; "
            "sample fewer responses at a time (modality.generation_batch_size), or drop it"
        )
