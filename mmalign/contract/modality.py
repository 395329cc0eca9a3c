"""What the author of a modality writes: the base class of a model family.

Shapes: P prompts, N responses, T steps, D hidden size, V vocabulary, S scored steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmalign.media.limits import DEFAULT_LIMITS, MediaLimits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mmalign.contract.decoding import Decoding
    from mmalign.contract.engine import Networks, Policy
    from mmalign.contract.forward_plan import ForwardPlan
    from mmalign.contract.values import Anchor, EncodedResponse, Generated, Model, Vocabulary
    from mmalign.data.records import Record, Response


class Modality(ABC):
    """A model family: how it is loaded, encoded, scored, sampled and decoded.

    Built with the fields of its config model. `load`, `encode`, `step_log_probs`, `generate` and `decode` are all an
    author must write; a modality that can give more than log-probs overrides `step_outputs`, too.

    Attributes:
        temperature: log-probs are those of the distribution at this temperature. The engine sets it to the decoding's
            in online runs, so that importance ratios compare like with like.
        media_limits: which images `open_image` accepts, for `limits=`. The engine sets them from the section `data`.
        adapter: True if `load` freezes the network and trains an adapter on it; switching that off (with the network's
            `disable_adapter()` context) gives the reference. Without an adapter the reference is a frozen copy.
        adapter_parameters: names of the parameters that shape the adapter only; with it off they change nothing.
        required_networks: the networks that `augment` calls: `policy`, `reference`, teachers by name.
        stochastic_encoding: True if encoding a response twice gives two different results, e.g. another noise; what is
            computed of it is then not cached for the next visit.
        has_unused_parameters: True if a pass may leave out weights that are trained, as where no prompt of a batch has
            an image. Several processes then find out which, which takes time.
    """

    adapter_parameters: ClassVar[frozenset[str]] = frozenset()
    temperature: float = 1.0
    media_limits: MediaLimits = DEFAULT_LIMITS
    adapter: bool = False
    required_networks: frozenset[str] = frozenset()
    stochastic_encoding: bool = False
    has_unused_parameters: bool = False

    @abstractmethod
    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        """Loads the policy network in training mode; raises ConfigError if there is no such model."""

    def encode_beside(self, record: Record, sampled: Sequence[EncodedResponse]) -> list[EncodedResponse]:
        """Encodes the stored responses of a record to whose prompt others were sampled in the same round.

        Override it where something is drawn at random for a prompt, so that it is drawn once for all responses.

        Args:
            record: as for `encode`.
            sampled: one or more encodings that `generate` made.
        """
        return self.encode(record)

    @abstractmethod
    def encode(self, record: Record) -> list[EncodedResponse]:
        """Encodes every response of `record`, in order, on the CPU; needs no weights.

        Raises:
            DataError: a response has no scored step, or truncation would leave it none.
            MediaError: an image cannot be read. Open images here and not later: only here is a record skipped where
                `on_error` says so.
        """

    def check_model(self) -> None:  # noqa: B027 (an author need not override it)
        """Compares what encodes records with the network's configuration; loads no weights.

        Raises:
            ConfigError: they do not fit, so that a run would end where a token or a position is missing.
        """

    def check_prompt(self, record: Record, decoding: Decoding) -> None:
        """Checks that a response to the prompt of `record` can be sampled; needs no weights.

        Raises:
            DataError: the prompt cannot be encoded, or leaves no room for `decoding.max_steps` steps.
        """
        self.encode(record.with_responses(()))

    def notes(self) -> list[str]:
        """Returns what `check`, and the model card, say of the model and of what has been encoded so far."""
        return []

    @abstractmethod
    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        """Scores responses.

        Returns:
            logps [N, T] float32 in nats, differentiable, and mask [N, T] bool. Row i holds its `steps` scored steps
            first; the rest is padding. T is the largest `steps`.
        """

    @abstractmethod
    def generate(
        self, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples `count` responses to the prompt of each record (P lists of `count`), without gradient."""

    @abstractmethod
    def decode(self, record: Record, response: Response) -> Any:
        """Turns a stored response to `record` into what rewards and people see; media are those of the record."""

    def describe(self, record: Record, response: Response) -> str:
        """Writes a response as text for reports: what `decode` gives, images, sounds and arrays by kind and size."""
        from mmalign.media.outputs import describe_output

        output = self.decode(record, response)
        return describe_output(output) or str(output)

    def augment(
        self, networks: Networks, responses: Sequence[EncodedResponse]
    ) -> tuple[list[EncodedResponse], dict[str, Tensor]]:
        """Adds to encoded responses what only networks can tell, e.g. latents, without gradient.

        Called once for every batch, also for sampled responses, some of them at a time. A response that is complete
        already stays as it is. `steps` must not change.

        Returns:
            the responses in their order, with tensors on the CPU; and measurements [N] by name, always the same names,
            NaN where nothing was measured. Their means are metrics of the round or the evaluation.
        """
        return list(responses), {}

    def prompts_per_draw(self, count: int) -> int | None:
        """Tells where a call of `generate` with `count` responses to a prompt may be cut in two at no cost.

        Returns:
            after every multiple of so many prompts; None if nowhere.
        """
        return None

    def step_outputs(
        self,
        policy: Policy,
        responses: Sequence[EncodedResponse],
        plan: ForwardPlan,
        anchors: Mapping[str, Anchor] | None = None,
    ) -> dict[str, Tensor]:
        """Computes what is planned in one forward pass.

        Args:
            plan: outputs, as far as `ModalitySpec.provides` names them, and divergences from frozen models.
            anchors: the distributions of those models by name; None where there is no divergence in the plan.

        Returns:
            a tensor for every name of `plan.axes()`, with those axes, and `step_mask` [N, T].
        """
        logps, mask = self.step_log_probs(policy.network, responses)
        return {"logps": logps, "step_mask": mask}

    def head(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """Returns what turns the output `states` [S, D] into logits [S, V], without the adapter.

        Raises:
            NotImplementedError: the modality does not provide `states`.
        """
        raise NotImplementedError(f"{type(self).__name__} provides no states")

    def vocabulary(self) -> Vocabulary | None:
        """Describes what steps are chosen from, without loading weights; None where steps are not choices.

        A teacher must have the policy's.
        """
        return None

    def render(self, encoded: EncodedResponse) -> list[tuple[str, bool]]:
        """Splits what the model sees into pieces of text, each with whether the loss counts it; for `data show`."""
        return [(f"{encoded.steps} steps", True)]

    def parameter_counts(self) -> tuple[int, int] | None:
        """Counts (all, trained) parameters without loading weights; None where only loading would tell."""
        return None

    def save(self, model: Model, directory: str) -> None:
        """Writes the trained weights to an existing folder; override it with the format your users load."""
        from safetensors.torch import save_model

        save_model(model.network, f"{directory}/model.safetensors")

    def save_merged(self, model: Model, directory: str) -> None:
        """Writes the whole network with adapters merged in; offered only by modalities that override this."""
        raise NotImplementedError(f"{type(self).__name__} has no merged export")

    def fingerprint(self) -> str:
        """Names everything that changes an encoding (processor, template, limits); part of cache keys."""
        return type(self).__qualname__
