"""Another family with a user as one more condition: who likes what is trained into a branch of its cross-attention.

    family:
      name: personal
      base: {name: stable_diffusion}
      users: [ann, ben]

A user is the one that all labels of a record name, or `user` in its `meta`; a new one is known by examples: vectors
under `user_examples` in the `meta`, of which the mean is taken. A record without user is nobody's: u = 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from mmalign import ConfigError, DataError, Parameters, Record, suggest
from mmalign_diffusion.config import FamilyComponent, Prediction
from mmalign_diffusion.families import find_family
from mmalign_diffusion.families.base import Family, Tensors
from mmalign_diffusion.schedules import Schedule
from mmalign_diffusion.user_attention import Personalised

_WEIGHTS = "user_branch.safetensors"


class PersonalParameters(Parameters):
    """Users and their branch."""

    base: FamilyComponent
    """The family that is personalised, with its own keys."""
    users: tuple[str, ...] = ()
    """Names of users, each with a number of its own in the embedding; or `table`."""
    table: str | None = None
    """JSON file with an embedding for every user: {"ann": [0.1, 0.2]}."""
    width: int | None = Field(default=None, ge=1)
    """Numbers of an embedding, where neither of these says it and users are known by examples alone."""
    user_key: str = "user"
    """Key of a record's `meta` with the name of its user, where no label names one."""
    examples_key: str = "user_examples"
    """Key of a record's `meta` with embeddings of what a user chose: they, not the name, then say who it is."""
    drop_user: float = Field(default=0.1, ge=0, le=1)
    """Share of records that are trained as nobody's."""
    tokens: int = Field(default=4, ge=2)
    """Keys and values that a user has in every layer."""
    branch: str | None = None
    """Folder or safetensors file of branches that were trained before."""


class Personal(Family):
    """The family `base` with a branch for users; see `PersonalParameters`."""

    parameters: ClassVar[type[Parameters]] = PersonalParameters
    adapter: ClassVar[bool] = True

    def __init__(self, model: str | None, size: tuple[int, int] | None = None, **settings: Any) -> None:
        self._settings = PersonalParameters.model_validate(settings)
        self.base = find_family(self._settings.base.name)(model, size, **self._settings.base.own)
        super().__init__(model, self.base.size)
        self._table = self._read_table()
        self._width = self._find_width()
        # Whatever is said here of users or networks is not the base's to say.
        for name, value in vars(Family).items():
            if callable(value) and not name.startswith("_") and name not in vars(Personal):
                setattr(self, name, getattr(self.base, name))

    @property
    def schedule(self) -> Schedule:
        """The base's."""
        return self.base.schedule

    @property
    def prediction(self) -> Prediction:
        """The base's."""
        return self.base.prediction

    @property
    def channels(self) -> int:
        """The base's."""
        return self.base.channels

    @property
    def name(self) -> str:
        """The base's."""
        return self.base.name

    # -- the denoiser

    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Loads the base's denoiser and adds branches, fresh ones or those of `branch`."""
        network = self._personalise(self.base.load(device=device, dtype=dtype))
        if self._settings.branch is not None:
            network.load_state(_read_branch(self._settings.branch))
        return network.train()

    def check_weights(self) -> None:
        """Looks at the base's; what is added is not in its files."""
        self.base.check_weights()

    def build_skeleton(self) -> nn.Module | None:
        """Builds the base's denoiser with branches, without weights."""
        skeleton = self.base.build_skeleton()
        return None if skeleton is None else self._personalise(skeleton)

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the base's denoiser for a user; see `Family.predict`."""
        if not isinstance(network, Personalised):
            raise TypeError(f"expected a personalised network, got {type(network).__name__}")
        network.context.user = condition["user"]
        return self.base.predict(network.base, noisy, timesteps, _without_user(condition))

    def save_adapter(self, network: nn.Module, directory: str) -> None:
        """Writes the branches alone."""
        if isinstance(network, Personalised):
            state = {name: value.detach().cpu().contiguous() for name, value in network.state().items()}
            save_file(state, f"{directory}/{_WEIGHTS}")

    def save(self, network: nn.Module, directory: str) -> None:
        """Raises ConfigError: a denoiser with branches is no denoiser of the base's format."""
        raise ConfigError("checkpoint.merged: branches for users cannot be merged into a denoiser; set it to false")

    # -- conditions

    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """Reads the prompt and who it is for."""
        return {**self.base.tokenise(record), "user": self._embed_user(record)}

    @property
    def null_tokens(self) -> dict[str, Tensor] | None:
        """The base's, for nobody."""
        null = self.base.null_tokens
        return None if null is None else {**null, "user": torch.zeros(self._width)}

    def draw_tokens(self, tokens: Tensors, generator: Generator) -> Tensors:
        """Leaves out the user of some records."""
        dropped = bool(torch.rand((), generator=generator) < self._settings.drop_user)
        return {**tokens, "user": torch.zeros(self._width)} if dropped else tokens

    def embed(self, tokens: Sequence[Tensors]) -> list[dict[str, Tensor]]:
        """Embeds prompts as the base does; a user is an embedding already."""
        embedded = self.base.embed([_without_user(one) for one in tokens])
        return [{**own, "user": one["user"]} for own, one in zip(embedded, tokens, strict=True)]

    def collate(self, conditions: Sequence[Tensors]) -> dict[str, Tensor]:
        """Stacks conditions as the base does."""
        own = self.base.collate([_without_user(one) for one in conditions])
        return {**own, "user": torch.stack([one["user"] for one in conditions])}

    def latent_shape(self, pixels: Sequence[int] | None = None) -> tuple[int, ...]:
        """The base's."""
        return self.base.latent_shape(pixels)

    def fingerprint(self) -> str:
        """Adds how users are read."""
        users = self._settings.model_dump(include={"users", "user_key", "examples_key", "drop_user"})
        return repr((self.base.fingerprint(), users, self._table))

    # -- users

    def _embed_user(self, record: Record) -> Tensor:
        """Reads the embedding [D'] of the user of a record."""
        where = f"record {record.id!r}"
        if self._settings.examples_key in record.metadata:
            return self._average(record.metadata[self._settings.examples_key], where)
        named = {label.user for label in record.labels if label.user is not None}
        if len(named) > 1:
            raise DataError(f"{where}: labels of several users, {', '.join(sorted(named))}; make it a record for each")
        user = next(iter(named), record.metadata.get(self._settings.user_key))
        if user is None:
            return torch.zeros(self._width)
        if user not in self._table:
            raise DataError(f"{where}: unknown user {user!r}{suggest(str(user), self._table)}")
        return torch.tensor(self._table[user])

    def _average(self, examples: Any, where: str) -> Tensor:
        try:
            values = torch.tensor(examples, dtype=torch.float32)
        except (TypeError, ValueError):
            values = torch.zeros(0)
        if values.dim() != 2 or values.shape[1] != self._width or not len(values):
            key = self._settings.examples_key
            raise DataError(f"{where}: meta.{key}: expected a list of vectors of {self._width} numbers")
        return values.mean(0)

    def _personalise(self, network: nn.Module) -> Personalised:
        return Personalised(network, width=self._width, tokens=self._settings.tokens)

    def _read_table(self) -> dict[str, list[float]]:
        users = self._settings.users
        if self._settings.table is None:
            return {name: [float(name == other) for other in users] for name in users}
        if users:
            raise ConfigError("modality.family.users: `table` names the users already; drop it")
        try:
            rows = json.loads(Path(self._settings.table).read_text(encoding="utf-8"))
            table = {str(name): [float(value) for value in values] for name, values in rows.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"modality.family.table: cannot read {self._settings.table}: {error}") from None
        return table

    def _find_width(self) -> int:
        widths = {len(values) for values in self._table.values()}
        widths |= set() if self._settings.width is None else {self._settings.width}
        if len(widths) != 1:
            told = "missing; name `users`, a `table`, or the `width`" if not widths else f"got {sorted(widths)}"
            raise ConfigError(f"modality.family.width: expected one number for all embeddings; {told}")
        return widths.pop()


def _without_user(tensors: Tensors) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name != "user"}


def _read_branch(place: str) -> dict[str, Tensor]:
    file = Path(place).expanduser()
    try:
        return load_file(file / _WEIGHTS if file.is_dir() else file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"modality.family.branch: cannot read {place!r}: {error}") from None
