"""A branch of every cross-attention that attends to a user.

    softmax(Q K^T) V + softmax(Q K'^T) V', K' = u W'_k, V' = u W'_v

Only W'_k and W'_v are trained. W'_v starts at zero, so a fresh branch changes nothing, and neither does it for u = 0 or
when it is switched off.

Shapes: B rows, S queries, U tokens of a user, D' numbers of its embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from mmalign import ConfigError

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


class UserContext:
    """Whom the branches of a network attend to.

    Attributes:
        user: [B, D'], set before every forward pass; None for nobody.
        enabled: False while the branches are switched off.
    """

    def __init__(self) -> None:
        self.user: Tensor | None = None
        self.enabled = True


class UserAttention(nn.Module):
    """An attention processor of diffusers that adds a branch to another one.

    Args:
        attention: the cross-attention that it is for.
        context: whom it attends to.
        width: D'.
        tokens: U; every user has so many keys and values in every layer.

    Source: PPD (arXiv:2501.06655). Differs: u is one vector, and W' makes U keys and values of it, as with one key
        the softmax would say nothing; the paper's u is a sequence.
    """

    def __init__(self, attention: Attention, context: UserContext, *, width: int, tokens: int) -> None:
        super().__init__()
        self.wrapped = attention.processor
        self.context = context
        self.tokens = tokens
        self.to_k = nn.Linear(width, tokens * attention.inner_dim, bias=False)
        self.to_v = nn.Linear(width, tokens * attention.inner_dim, bias=False)
        nn.init.zeros_(self.to_v.weight)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Computes the attention with its branch; arguments and result are those of processors of diffusers."""
        output: Tensor = self.wrapped(attn, hidden_states, encoder_hidden_states, attention_mask, **options)
        user = self.context.user
        if user is None or not self.context.enabled:
            return output
        return output + self._attend(attn, hidden_states, user) / float(attn.rescale_output_factor)

    def _attend(self, attn: Attention, hidden_states: Tensor, user: Tensor) -> Tensor:
        """Computes the branch [B, S, ...] after the output layer, whose bias counts once, with the rest."""
        rows = user.to(self.to_k.weight)
        query = attn.to_q(hidden_states)
        key, value = (part(rows).unflatten(1, (self.tokens, -1)).to(query.dtype) for part in (self.to_k, self.to_v))
        query, key, value = (one.unflatten(2, (attn.heads, -1)).transpose(1, 2) for one in (query, key, value))
        mixed = scaled_dot_product_attention(query, key, value, scale=attn.scale).transpose(1, 2).flatten(2)
        result: Tensor = linear(mixed, cast(nn.Linear, cast(nn.ModuleList, attn.to_out)[0]).weight)
        return result


class Personalised(nn.Module):
    """A denoiser with branches; all else of it is frozen. Switched off it is the denoiser as it was.

    Args:
        base: a network with cross-attention of diffusers; it is changed in place.
        width: D'.
        tokens: U.

    Raises:
        ConfigError: it has no cross-attention.
    """

    def __init__(self, base: nn.Module, *, width: int, tokens: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.context = UserContext()
        for attention in list(_iter_cross_attention(base)):
            branch = UserAttention(attention, self.context, width=width, tokens=tokens)
            attention.set_processor(cast(Any, branch.to(next(base.parameters()).device)))
        if not self.branches():
            raise ConfigError("modality.family.base: this denoiser has no cross-attention that could attend to users")

    def branches(self) -> dict[str, UserAttention]:
        """The branches by name."""
        found = ((name, module) for name, module in self.base.named_modules() if isinstance(module, UserAttention))
        return {name.removesuffix(".processor"): module for name, module in found}

    def state(self) -> dict[str, Tensor]:
        """The weights of all branches."""
        return {
            f"{name}.{part}": getattr(branch, part).weight
            for name, branch in self.branches().items()
            for part in ("to_k", "to_v")
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts the weights of all branches back; raises ConfigError where they are those of another network."""
        own = self.state()
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in state.items()}:
            raise ConfigError(
                "modality.family.branch: these weights are of another denoiser, width or number of tokens"
            )
        for name, value in own.items():
            value.copy_(state[name])

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Runs the denoiser."""
        return self.base(*inputs, **options)

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes activations in the backward pass."""
        cast(Any, self.base).enable_gradient_checkpointing()

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Switches the branches off."""
        self.context.enabled, before = False, self.context.enabled
        try:
            yield
        finally:
            self.context.enabled = before


def _iter_cross_attention(network: nn.Module) -> Iterator[Attention]:
    from diffusers.models.attention_processor import Attention

    for module in network.modules():
        if isinstance(module, Attention) and module.is_cross_attention and not module.only_cross_attention:
            yield module
