"""The sections of a configuration that say where records come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator

from mmalign.config.validation import one_or_many
from mmalign.contract.formats import ReadOptions
from mmalign.contract.specs import Parameters
from mmalign.media.limits import DEFAULT_LIMITS, LARGEST_PIXELS, MediaLevel, MediaLimits

OnError = Literal["raise", "quarantine"]

_NAME_OR_COMPONENT = [{"type": "string"}, {"type": "object", "required": ["name"]}]
_FORMAT_SCHEMA = {"anyOf": [*_NAME_OR_COMPONENT, {"type": "array", "items": {"anyOf": _NAME_OR_COMPONENT}}]}


class DataConfig(Parameters):
    """Where records come from."""

    path: str
    """A file, a glob of files, a saved Hugging Face dataset or a folder of images, or a hub id `owner/name`."""
    split: str | None = None
    """Split of a Hugging Face dataset; default train."""
    name: str | None = None
    """Configuration of a dataset on the hub."""
    format: Annotated[tuple[dict[str, Any], ...], WithJsonSchema(_FORMAT_SCHEMA)] = ()
    """The format of the files, of the rows, or both: names, or components with a `name`. What is not given is
    recognised, also with `auto`: files by their names, rows by their columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns to rename before anything else, `{theirs: ours}`."""
    streaming: bool = False
    """Read while training instead of before; the source then has no length and keeps the order of the file."""
    shuffle: bool = True
    """Visit records in a new random order every epoch; inside a stage, where a transform makes stages."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many good rows."""
    on_error: OnError = "raise"
    """Stop at a bad line, or move it to a side file with the reason and go on."""
    quarantine_dir: str | None = None
    """Folder of the side file; default beside the data."""
    max_row_bytes: int = Field(default=ReadOptions.row_bytes, ge=1)
    """Size of the largest line or row that is read."""
    max_expansion: float = Field(default=ReadOptions.expansion, gt=0, allow_inf_nan=False)
    """How many times its size a compressed file may become; the first 64 MiB are free."""
    max_pairs: int = Field(default=10_000, ge=1)
    """Pairs of the largest record that is read: a ranking of n responses has n (n - 1) / 2."""
    transforms: tuple[dict[str, Any], ...] = ()
    """Transforms of the records, in order: components with a `name`."""

    _accept_one = field_validator("transforms", mode="before")(one_or_many)

    @field_validator("format", mode="before")
    @classmethod
    def _read_format(cls, given: Any) -> Any:
        """Accepts a name, a component, and lists of them."""
        listed = given if isinstance(given, list | tuple) else [given]
        named = [{"name": one} if isinstance(one, str) else one for one in listed if one not in ("auto", None)]
        for one in named:
            if not isinstance(one, Mapping) or not isinstance(one.get("name"), str):
                raise ValueError("expected the name of a format, e.g. sharegpt, or {name: ..., parameters}")
        return named

    @field_validator("transforms")
    @classmethod
    def _check_names(cls, transforms: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for component in transforms:
            if not isinstance(component.get("name"), str):
                raise ValueError("every transform needs a name, e.g. {name: my_transform}")
        return transforms

    def read_options(self, where: str) -> ReadOptions:
        """Returns what formats of files are told; `where` is the key path of this section."""
        return ReadOptions(
            where=where,
            row_bytes=self.max_row_bytes,
            expansion=self.max_expansion,
            split=self.split or "",
            name=self.name or "",
            streaming=self.streaming,
        )


class DataSection(Parameters):
    """Where records come from."""

    train: DataConfig
    """Records to train on; prompts, in online runs."""
    eval: DataConfig | None = None
    """Held-out records; without them nothing is evaluated."""
    check_media: MediaLevel = "header"
    """Images, when the data are read: header reads what each file says of itself, full decodes it; off."""
    allow_remote_media: bool = False
    """Fetch images from http and https addresses, each time one is used."""
    private_media_hosts: tuple[str, ...] = ()
    """Hosts on this machine or in a private network that images may be fetched from, as addresses name them."""
    max_image_pixels: int = Field(default=DEFAULT_LIMITS.pixels, ge=1, le=LARGEST_PIXELS)
    """Width times height of the largest image that is decoded."""
    max_image_bytes: int = Field(default=DEFAULT_LIMITS.size, ge=1)
    """Size of the largest image or sound file that is read."""
    max_sound_samples: int = Field(default=DEFAULT_LIMITS.samples, ge=1)
    """Samples, over all channels, of the longest sound that is decoded."""
    check_records: int = Field(default=2000, ge=0)
    """Records of a split that are encoded before a run starts, and by `check`; all where bad ones are quarantined."""

    @property
    def media_limits(self) -> MediaLimits:
        """Which images and sounds are accepted."""
        return MediaLimits(
            self.max_image_pixels,
            self.max_image_bytes,
            self.allow_remote_media,
            samples=self.max_sound_samples,
            private_hosts=self.private_media_hosts,
        )
