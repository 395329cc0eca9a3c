"""Model families by name: import strings, so that naming one costs no torch."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, cast

from mmalign import ConfigError, suggest

if TYPE_CHECKING:
    from mmalign_diffusion.families.base import Family

FAMILIES = {
    "class_unet": "mmalign_diffusion.families.class_unet:ClassUNet",
    "custom": "mmalign_diffusion.families.custom:Custom",
    "flux": "mmalign_diffusion.families.flux:Flux",
    "masked_tokens": "mmalign_diffusion.families.masked_tokens:MaskedTokens",
    "personal": "mmalign_diffusion.families.personal:Personal",
    "pixart": "mmalign_diffusion.families.pixart:PixArt",
    "sd3": "mmalign_diffusion.families.sd3:SD3",
    "sdxl": "mmalign_diffusion.families.sdxl:SDXL",
    "stable_diffusion": "mmalign_diffusion.families.stable_diffusion:StableDiffusion",
}
"""Where the class of every family is; a line here and a module beside this one is all that a new one takes."""


def find_family(name: str) -> type[Family]:
    """Imports the class of a family.

    Raises:
        ConfigError: there is no family of that name.
    """
    if name not in FAMILIES:
        raise ConfigError(f"modality.family: unknown {name!r}{suggest(name, FAMILIES)}")
    return cast("type[Family]", pkgutil.resolve_name(FAMILIES[name]))
