"""Class-conditional denoisers on pixels: a `UNet2DModel` folder of diffusers with its scheduler's settings.

    MODEL/config.json, diffusion_pytorch_model.safetensors      the network, here or in `unet/`
    MODEL/scheduler_config.json                                 the schedule, here or in `scheduler/`

The class is read from the prompt: the one number in it, or the one word of `classes`; or from the record's `meta`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmalign import ConfigError, DataError, Parameters, Record, quiet_loading, suggest
from mmalign_diffusion.families.base import Tensors, input_dtype, require_prompt, switch_off_dropout
from mmalign_diffusion.families.class_settings import read_network, read_scheduler
from mmalign_diffusion.families.components import Component
from mmalign_diffusion.families.folders import find_folder, find_settings, read_settings
from mmalign_diffusion.families.pipeline_checks import check_pipeline, read_sides
from mmalign_diffusion.families.scheduled import ScheduledFamily

_NETWORK = ("config.json", "unet/config.json")
_SCHEDULER = ("scheduler_config.json", "scheduler/scheduler_config.json")


class ClassUNetParameters(Parameters):
    """How a record names its class."""

    classes: tuple[str, ...] = ()
    """Names of the classes, in their order; without them a prompt holds the number of its class."""
    class_key: str | None = None
    """Key of the record's `meta` that holds the class, instead of the prompt."""
    null_class: int | None = Field(default=None, ge=0)
    """The class that stands for no condition, if the model was trained with one: what guidance compares with."""


class ClassUNet(ScheduledFamily):
    """A `UNet2DModel` with or without class embeddings; see `ClassUNetParameters`."""

    parameters: ClassVar[type[Parameters]] = ClassUNetParameters

    def __init__(
        self,
        model: str | None,
        size: tuple[int, int] | None = None,
        *,
        classes: Sequence[str] = (),
        class_key: str | None = None,
        null_class: int | None = None,
    ) -> None:
        self.folder = find_folder(model)
        if (self.folder / "model_index.json").is_file():
            check_pipeline(self.folder, read_settings(self.folder, "model_index.json"), "class_unet")
        self._network_file = find_settings(self.folder, _NETWORK)
        place = f"modality.model: {self.folder / self._network_file}"
        self._settings = read_network(read_settings(self.folder, self._network_file), "UNet2DModel", place)
        super().__init__(model, size or read_sides(self._settings["sample_size"], place))
        file = find_settings(self.folder, _SCHEDULER)
        self.scheduler = read_scheduler(read_settings(self.folder, file), f"modality.model: {self.folder / file}")
        self._names = {name.lower(): index for index, name in enumerate(classes)}
        self._class_key = class_key
        self._null_class = null_class
        self._check_classes(classes)

    @property
    def channels(self) -> int:
        """1 or 3, the network's input channels."""
        return int(self._settings["in_channels"])

    @property
    def class_count(self) -> int:
        """Class embeddings of the network, that of the null condition among them; 0 if it is unconditional."""
        return int(self._settings["num_class_embeds"] or 0)

    # -- the denoiser

    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Loads the network from safetensors, without dropout."""
        from diffusers import UNet2DModel

        folder = self.folder / Path(self._network_file).parent
        try:
            with quiet_loading(local=True):
                network = UNet2DModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"modality.model: cannot load {folder}: {' '.join(str(error).split())[:300]}") from None
        return switch_off_dropout(network).to(device).train()

    def check_weights(self) -> int:
        """Returns how many parameters the file of the weights holds; see `Family.check_weights`."""
        _ = self._component.stored_dtype
        return self._component.parameters

    @property
    def _component(self) -> Component:
        return Component(self.folder / Path(self._network_file).parent)

    def describe_network(self) -> str:
        """Returns the network's settings; see `Family.describe_network`."""
        return json.dumps(self._settings, sort_keys=True)

    def build_skeleton(self) -> nn.Module:
        """Builds the network from its settings."""
        from diffusers import UNet2DModel

        network: nn.Module = UNet2DModel.from_config(read_settings(self.folder, self._network_file))
        return network

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the network; see `Family.predict`."""
        output: Tensor = network(noisy.to(input_dtype(network)), timesteps, condition.get("class")).sample
        return output

    def save(self, network: nn.Module, directory: str) -> None:
        """Writes a folder that diffusers, and this family, load: network and scheduler settings."""
        import diffusers

        writable: Any = network
        writable.save_pretrained(directory)
        scheduler = getattr(diffusers, self.scheduler.get("_class_name", "DDIMScheduler"))
        scheduler.from_config(self.scheduler).save_pretrained(directory)

    # -- conditions and data

    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """Reads the class; an unconditional network has none."""
        return {"class": torch.tensor(self._find_class(record))} if self.class_count else {}

    @property
    def null_tokens(self) -> dict[str, Tensor] | None:
        """The null class, if there is one."""
        return None if self._null_class is None else {"class": torch.tensor(self._null_class)}

    def latent_shape(self, pixels: Sequence[int] | None = None) -> tuple[int, ...]:
        """The network works on pixels."""
        if pixels is not None:
            return tuple(pixels)
        if self.size is None:
            raise ConfigError("modality.size: missing; the model's settings name no sample_size")
        return (self.channels, *self.size)

    def fingerprint(self) -> str:
        """Adds how the class is read."""
        return repr((super().fingerprint(), sorted(self._names.items()), self._class_key, self._null_class))

    def _find_class(self, record: Record) -> int:
        where = f"record {record.id!r}"
        if self._class_key is not None:
            if self._class_key not in record.metadata:
                raise DataError(f"{where}: meta has no {self._class_key!r}{suggest(self._class_key, record.metadata)}")
            words = [str(record.metadata[self._class_key]).lower()]
        else:
            words = re.findall(r"\w+", require_prompt(record).lower())
        found = {self._names[word] for word in words if word in self._names}
        found |= set() if self._names else {int(word) for word in words if word.isdecimal()}
        known = [one for one in found if one < self.class_count]
        if len(known) != 1 or len(found) != 1:
            wanted = ", ".join(self._names) or f"a number below {self.class_count}"
            raise DataError(f"{where}: expected the prompt to name one class ({wanted}), got {' '.join(words)!r}")
        return known[0]

    def _check_classes(self, classes: Sequence[str]) -> None:
        if len(classes) > self.class_count:
            raise ConfigError(f"modality.family.classes: {len(classes)} names, but the model has {self.class_count}")
        if self._null_class is not None and self._null_class >= self.class_count:
            raise ConfigError(
                f"modality.family.null_class: {self._null_class}, but the model has {self.class_count} classes"
            )
        if self.channels not in (1, 3):
            raise ConfigError(f"modality.model: {self.model!r} has {self.channels} channels; expected 1 or 3")
        if self._settings["out_channels"] != self.channels:
            raise ConfigError(
                f"modality.model: {self.model!r} gives {self._settings['out_channels']} channels; expected "
                f"{self.channels}, as many as it reads, without a learned variance"
            )
