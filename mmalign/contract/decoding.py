"""How responses are sampled, step by step: the base class of decodings.

Shapes: N responses, V vocabulary, t steps so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmalign.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Decoding:
    """How responses are sampled; subclasses override `adjust`.

    Attributes:
        temperature: divides the scores (logits); for Gaussian policies, multiplies the standard deviation.
        max_steps: responses are cut off after this many steps.
    """

    temperature: float = 1.0
    max_steps: int = 64

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Changes next-step logits [N, V] (temperature is already applied); `generated` [N, t] are the steps so far."""
        return logits

    def request_fields(self) -> dict[str, Any]:
        """Returns these settings as fields of a request to an OpenAI-compatible server.

        Raises:
            ConfigError: `adjust` is overridden and this is not, so that a server would sample differently.
        """
        if type(self).adjust is not Decoding.adjust:
            raise ConfigError(
                f"decoding: {type(self).__name__} changes scores step by step, which a server cannot be asked for; "
                "use `engine: {name: hf}`, or another decoding"
            )
        return {"temperature": self.temperature, "max_tokens": self.max_steps}
