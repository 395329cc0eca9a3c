"""A plugin file for tests of the engine: a modality without a language model, one reward, and objectives that go wrong.

A response is a string of digits 0 to 3, a step is a digit; its log-prob depends on the length of the prompt only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmalign import (
    Decoding,
    EncodedResponse,
    Generated,
    Modality,
    ModalitySpec,
    Model,
    ObjectiveSpec,
    Parameters,
    Record,
    Response,
    Reward,
    RewardSpec,
    Sample,
    hookimpl,
)

SYMBOLS = 4


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    return [
        ModalitySpec(name="toy", summary="Digits.", target="toy_plugin:Toy", config="toy_plugin:ToyConfig"),
        ModalitySpec(
            name="toy_bound",
            summary="Digits with a bound for a log-prob.",
            target="toy_plugin:Toy",
            config="toy_plugin:ToyConfig",
            log_prob_kind="surrogate",
        ),
    ]


@hookimpl
def register_rewards() -> list[RewardSpec]:
    return [RewardSpec(name="zeros", summary="The share of zeros.", target="toy_plugin:Zeros")]


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    broken = [
        ObjectiveSpec(name=name, summary="Broken.", loss=f"toy_plugin:{name}_loss", per="response")
        for name in ("nan", "infinite_gradient", "detached", "scalar", "scalar_metric")
    ]
    return [
        *broken,
        ObjectiveSpec(
            name="likelihood",
            summary="Minus the log-prob of every step over a constant.",
            loss="toy_plugin:likelihood_loss",
            per="step",
            aggregation="constant",
        ),
    ]


class ToyConfig(Parameters):
    """How the modality goes wrong, if it does."""

    dropout: float = 0.0
    """Dropout on the logits, in training."""
    broken_sampler: bool = False
    """The log-probs of sampled steps are too low by one nat."""


class Digits(nn.Module):
    """Logits by the length of the prompt: a table."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.table = nn.Parameter(0.5 * torch.randn(SYMBOLS, SYMBOLS))
        self.dropout = nn.Dropout(dropout)

    def forward(self, contexts: Tensor, temperature: float) -> Tensor:
        """Computes log-probs of the next digit: contexts [N] to [N, SYMBOLS]."""
        return (self.dropout(self.table[contexts]) / temperature).log_softmax(dim=-1)


class Toy(Modality):
    """Digits that are independent of each other."""

    def __init__(self, dropout: float = 0.0, broken_sampler: bool = False) -> None:
        self.dropout = dropout
        self.broken_sampler = broken_sampler

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        return Model(Digits(self.dropout).to(device), name="toy")

    def encode(self, record: Record) -> list[EncodedResponse]:
        return [_encode(record, [int(digit) for digit in one.text]) for one in record.responses]

    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        contexts = torch.stack([one.tensors["context"] for one in responses])
        digits = pad_sequence([one.tensors["digits"] for one in responses], batch_first=True)  # [N, T]
        steps = torch.tensor([one.steps for one in responses])
        return network(contexts, self.temperature).gather(1, digits), torch.arange(digits.shape[1]) < steps[:, None]

    @torch.no_grad()
    def generate(
        self, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        return [[self._sample(network, record, decoding) for _ in range(count)] for record in records]

    def prompts_per_draw(self, count: int) -> int:
        return 1  # one response after the other

    def _sample(self, network: nn.Module, record: Record, decoding: Decoding) -> Generated:
        logps = network(torch.tensor([len(record.prompt_text) % SYMBOLS]), decoding.temperature)[0]
        digits = logps.exp().multinomial(decoding.max_steps, replacement=True)
        behaviour = logps[digits] - float(self.broken_sampler)
        response = Response.from_text("r0", "".join(map(str, digits.tolist())))
        return Generated(response, _encode(record, digits.tolist()), behaviour)

    def decode(self, record: Record, response: Response) -> str:
        return response.text


def _encode(record: Record, digits: list[int]) -> EncodedResponse:
    context = torch.tensor(len(record.prompt_text) % SYMBOLS)
    return EncodedResponse({"context": context, "digits": torch.tensor(digits)}, steps=len(digits), size=len(digits))


class Zeros(Reward):
    """The share of zeros."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [sample.output.count("0") / len(sample.output) for sample in samples]


Loss = tuple[Tensor, dict[str, Any]]


def nan_loss(policy_sequence_logps: Tensor, reference_sequence_logps: Tensor) -> Loss:
    return policy_sequence_logps - reference_sequence_logps + float("nan"), {}


def infinite_gradient_loss(policy_sequence_logps: Tensor, reference_sequence_logps: Tensor) -> Loss:
    # The square root has an infinite slope at 0, where every run starts.
    return (policy_sequence_logps - reference_sequence_logps).abs().sqrt(), {}


def detached_loss(policy_sequence_logps: Tensor, reference_sequence_logps: Tensor) -> Loss:
    return (policy_sequence_logps - reference_sequence_logps).detach(), {}


def scalar_loss(policy_sequence_logps: Tensor, reference_sequence_logps: Tensor) -> Loss:
    return (policy_sequence_logps - reference_sequence_logps).mean(), {}


def scalar_metric_loss(policy_sequence_logps: Tensor, reference_sequence_logps: Tensor) -> Loss:
    return policy_sequence_logps - reference_sequence_logps, {"margin": torch.tensor(3.0)}


def likelihood_loss(policy_logps: Tensor) -> Loss:
    return -policy_logps, {}
