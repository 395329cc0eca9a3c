"""Stable Diffusion for many users: the denoiser also reads an embedding of the user whose preferences it is to meet."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmalign import ConfigError, DataError, Parameters, Record, suggest
from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.pipeline import PipelineParameters
from mmalign_diffusion.families.stable_diffusion import StableDiffusion
from mmalign_diffusion.families.user_attention import PersonalDenoiser
from mmalign_diffusion.randomness import digest_seed, seeded

BRANCHES = "user_branches.safetensors"
"""The file of trained branches in an exported model."""


class PPDParameters(PipelineParameters):
    """Adds users."""

    users: str
    """A safetensors file: the embedding of every user [tokens, width], by name, all of one shape. The paper takes the
    hidden states of a vision-language model that has read some of the user's preferences."""
    user_key: str | None = None
    """Key of the record's `meta` that names the user; default the `user` of its labels."""
    drop_user: float = Field(default=0.1, ge=0, le=1)
    """Share of records that are trained as if their user were not known."""
    branches: str | None = None
    """A file of branches that a run has left, to go on with or to sample from."""


class PPD(StableDiffusion):
    """The family of `StableDiffusionPipeline` with a branch for users in every cross-attention. See `PPDParameters`.

    Only the branches are trained; the reference is the denoiser without them.

    Source: Personalized Preference Fine-tuning of Diffusion Models, arXiv:2501.06655. Differs: the paper trains Stable
        Cascade; embeddings come from a file.
    """

    parameters: ClassVar[type[Parameters]] = PPDParameters
    adapts: ClassVar[bool] = True

    @cached_property
    def users(self) -> dict[str, Tensor]:
        """Embeddings [U, W] by name, float32."""
        users = _load(self.options.users, "users")
        shapes = {tuple(one.shape) for one in users.values()}
        width = self.settings["cross_attention_dim"]
        if len(shapes) != 1 or any(len(shape) != 2 or shape[1] > width for shape in shapes):
            raise ConfigError(
                f"modality.family.users: expected tensors of one shape [tokens, width <= {width}], got {sorted(shapes)}"
            )
        return {name: one.float() for name, one in users.items()}

    @property
    def _user_shape(self) -> tuple[int, int]:
        return cast("tuple[int, int]", tuple(next(iter(self.users.values())).shape))

    # -- the denoiser

    def load(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Loads the UNet and puts branches into it, fresh ones or those of `branches`, in float32."""
        network = PersonalDenoiser(super().load(device=device, dtype=dtype), *self._user_shape)
        if self.options.branches is not None:
            stored = _load(self.options.branches, "branches")
            try:
                nn.ModuleDict({_flatten(name): one for name, one in network.branches.items()}).load_state_dict(stored)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise ConfigError(f"modality.family.branches: do not fit this model: {reason}") from None
        return network.to(device).train()

    def build_skeleton(self) -> nn.Module:
        """Builds the UNet and the branches."""
        return PersonalDenoiser(super().build_skeleton(), *self._user_shape)

    def save_adapter(self, network: nn.Module, directory: str) -> None:
        """Writes the branches; diffusers has no format for them."""
        branches = cast(PersonalDenoiser, network).branches
        weights = nn.ModuleDict({_flatten(name): one for name, one in branches.items()}).state_dict()
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in weights.items()}, f"{directory}/{BRANCHES}"
        )

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the UNet; see `Family.predict`."""
        dtype = input_dtype(network)
        output: Any = network(noisy.to(dtype), timesteps, condition["hidden"].to(dtype), condition["user"])
        return cast(Tensor, output.sample)

    # -- users

    def tokenise(self, record: Record) -> dict[str, Tensor]:
        """Tokens of the prompt, and the user's embedding: zeros, which change nothing, where no user is named."""
        name = self._find_user(record)
        user = torch.zeros(self._user_shape) if name is None else self._read_user(record, name)
        return {**super().tokenise(record), "user": user}

    @cached_property
    def null_tokens(self) -> dict[str, Tensor]:
        """No prompt and no user."""
        return {**self.tokenise_text(""), "user": torch.zeros(self._user_shape)}

    def drop_parts(self, tokens: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Leaves the user out with the probability `drop_user`."""
        drawn = torch.rand((), generator=seeded(digest_seed("user", seed)))
        return {**tokens, "user": torch.zeros(self._user_shape)} if drawn < self.options.drop_user else tokens

    def embed(self, tokens: Any) -> list[dict[str, Tensor]]:
        """Encodes prompts; users are embedded already."""
        prompts = super().embed([{"ids": one["ids"]} for one in tokens])
        return [{**prompt, "user": one["user"]} for prompt, one in zip(prompts, tokens, strict=True)]

    def _find_user(self, record: Record) -> str | None:
        if self.options.user_key is not None:
            name = record.metadata.get(self.options.user_key)
            return None if name is None else str(name)
        names = {label.user for label in record.labels if label.user is not None}
        if len(names) > 1:
            raise DataError(
                f"record {record.id!r}: its labels are by several users, {', '.join(sorted(names))}; part it"
            )
        return next(iter(names), None)

    def _read_user(self, record: Record, name: str) -> Tensor:
        if name not in self.users:
            raise DataError(f"record {record.id!r}: unknown user {name!r}{suggest(name, self.users)}")
        return self.users[name]


def _flatten(name: str) -> str:
    # Names of modules in a dictionary have no dots.
    return name.replace(".", "|")


def _load(file: str, key: str) -> dict[str, Tensor]:
    try:
        return load_file(Path(file).expanduser())
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"modality.family.{key}: cannot read {file}: {reason}") from None
