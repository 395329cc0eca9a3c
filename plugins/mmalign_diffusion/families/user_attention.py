"""A branch beside the text in every cross-attention of a UNet, that attends to tokens of a user.

    Z = softmax(Q K^T / sqrt d) V + softmax(Q K'^T / sqrt d) V',   K' = u W'_k,   V' = u W'_v

Only W'_k and W'_v are trained. The user's tokens come behind those of the text, filled up with zeros to their width.

Source: Personalized Preference Fine-tuning of Diffusion Models, arXiv:2501.06655.

Shapes: B rows, L tokens of the text, U tokens of a user, S of them, D features of a text token, W of a user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention


class UserBranch(nn.Module):
    """The attention processor of one cross-attention: the text's own, and the user's branch, which starts at zero.

    Args:
        text: the processor that was there.
        attention: the layer.
        tokens: U.
        width: W.

    Attributes:
        on: False leaves the branch out.
    """

    def __init__(self, text: Any, attention: Any, tokens: int, width: int) -> None:
        super().__init__()
        self._text, self._tokens, self._width = text, tokens, width
        self.on = True
        inner = attention.to_q.out_features
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        nn.init.zeros_(self.to_v.weight)

    def forward(self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: Any) -> Tensor:
        """Computes the attention of `hidden_states` [B, S, ...] to text and user [B, L + U, D]."""
        text, user = encoder_hidden_states[:, : -self._tokens], encoder_hidden_states[:, -self._tokens :]
        output: Tensor = self._text(attention, hidden_states, encoder_hidden_states=text, **others)
        if not self.on:
            return output
        user = user[..., : self._width].to(self.to_k.weight.dtype)
        query = attention.to_q(hidden_states)
        heads = [
            part.unflatten(-1, (attention.heads, -1)).transpose(1, 2).to(query.dtype)
            for part in (query, self.to_k(user), self.to_v(user))
        ]  # [B, heads, ...]
        added = scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        branch: Tensor = linear(added, attention.to_out[0].weight) / attention.rescale_output_factor
        return output + branch


class PersonalDenoiser(nn.Module):
    """A frozen UNet with trained branches for users; without them (`disable_adapter`) it is the UNet.

    Args:
        network: a `UNet2DConditionModel`; it is changed in place.
        tokens: U.
        width: W, at most D.
    """

    def __init__(self, network: nn.Module, tokens: int, width: int) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._text_width: int = cast(Any, network).config.cross_attention_dim
        for name, module in network.named_modules():
            if name.endswith("attn2"):
                attention: Any = module
                attention.set_processor(UserBranch(attention.processor, attention, tokens, width))

    def forward(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor, user: Tensor) -> Any:
        """Runs the UNet with the text [B, L, D] and the user [B, U, W]."""
        told = torch.cat([hidden, pad(user, (0, self._text_width - user.shape[-1])).to(hidden.dtype)], dim=1)
        return self.network(noisy, timesteps, told)

    @property
    def branches(self) -> dict[str, UserBranch]:
        """The branches by the name of their layer."""
        found = {name: one for name, one in self.network.named_modules() if isinstance(one, UserBranch)}
        return {name.removesuffix(".processor"): one for name, one in found.items()}

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Leaves the branches out."""
        branches = list(self.branches.values())
        before = [one.on for one in branches]
        try:
            for one in branches:
                one.on = False
            yield
        finally:
            for one, on in zip(branches, before, strict=True):
                one.on = on

    def enable_gradient_checkpointing(self) -> None:
        """Computes activations again in the backward pass."""
        cast(Any, self.network).enable_gradient_checkpointing()
