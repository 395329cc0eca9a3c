"""The part that all token modalities share: text, vision-language and audio-token models.

A subclass says how a record becomes token ids (`encode`, `encode_prompt`) and ids a response (`build_response`), and
loads the network. Scoring and sampling are here; `collate` and `score` are the seam for other batch layouts.

Encoded tensors: those of the prompt (`mmalign.toolkits.tokens.prompts` lists them: tokens, images, sounds),
`response_ids` [R] and `response_mask` [R] bool, the response tokens that are scored (multi-turn: assistant turns only).
Rows of [N, T] outputs hold the scored steps only, left-aligned.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmalign.contract.decoding import Decoding
from mmalign.contract.engine import Policy
from mmalign.contract.forward_plan import ForwardPlan, Output
from mmalign.contract.modality import Modality
from mmalign.contract.values import Anchor, EncodedResponse, Generated
from mmalign.data.records import Record, Response
from mmalign.networks.policy import Heads, evaluation_mode
from mmalign.toolkits.tokens.causality import require_causality
from mmalign.toolkits.tokens.decoder_checks import require_decoder
from mmalign.toolkits.tokens.decoders import Decoder, find_decoder
from mmalign.toolkits.tokens.generation import Excluding, Sampled, sample_tokens
from mmalign.toolkits.tokens.group_sampling import sample_groups
from mmalign.toolkits.tokens.outputs import Reading, read_outputs
from mmalign.toolkits.tokens.packing import pack
from mmalign.toolkits.tokens.packing_support import can_pack, packed_inputs
from mmalign.toolkits.tokens.prompts import Prompt, pad_rows


@dataclass(frozen=True)
class TokenBatch:
    """Responses in rows of L positions: one a row and padded, or all in one row. S is the number of scored steps.

    Attributes:
        inputs: what the network reads: `input_ids`, `attention_mask` [rows, L], `position_ids` [rows, L] or
            [A, rows, L], marks and media of the prompts, and the `layout` of a packed row.
        mask: [N, T] bool, the scored steps of each response, left-aligned.
        places: [S], where in the flattened rows [rows x L] the state is that predicts each scored step; steps in the
            order of `mask`.
        targets: [S], the token of each scored step.
        last: [N], where in the flattened rows the last scored token is.
        prompts: N ranges, where in the flattened rows the prompts are.
    """

    inputs: Mapping[str, Any]
    mask: Tensor
    places: Tensor
    targets: Tensor
    last: Tensor
    prompts: tuple[range, ...]

    def to(self, decoder: Decoder) -> TokenBatch:
        """Returns this batch as `decoder` reads it."""
        device = decoder.device
        return replace(
            self,
            inputs=decoder.fit(self.inputs),
            mask=self.mask.to(device),
            places=self.places.to(device),
            targets=self.targets.to(device),
            last=self.last.to(device),
        )


class TokenModality(Modality):
    """A modality whose steps are tokens of one causal decoder.

    Attributes:
        generation_batch_size: sequences that are sampled at the same time.
        chunk_size: positions whose logits exist at the same time.
        packing: `auto` scores without padding, a prompt once for all its responses, where the network's attention
            allows it; `off` pads. It changes no result.
        padding_side: where padding goes when scoring in padded rows; it changes no result.
    """

    generation_batch_size: int = 64
    chunk_size: int = 128
    packing: Literal["auto", "off"] = "auto"
    padding_side: ClassVar[Literal["left", "right"]] = "right"

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """The token that fills rows up; masked everywhere, so it may be any, the end token too."""

    @property
    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a response; the one that did is its last scored step."""

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """The tokens that the network takes for the place of an image or a sound: responses cannot have them."""
        return frozenset()

    @abstractmethod
    def encode_prompt(self, record: Record) -> tuple[dict[str, Tensor], int]:
        """Encodes the prompt alone, as `encode` does.

        Returns:
            `prompt_ids` [P], P at least 1, with whatever else the network reads of the prompt (see
            `mmalign.toolkits.tokens.prompts`); and the number of tokens cut off.
        """

    @abstractmethod
    def build_response(self, rid: str, ids: Sequence[int]) -> Response:
        """Turns sampled token ids into a response; special tokens are left out."""

    def check_prompt(self, record: Record, decoding: Decoding) -> None:
        """Checks that the prompt can be encoded; see `Modality.check_prompt`."""
        self.encode_prompt(record)

    def build_decoder(self, network: nn.Module) -> Decoder:
        """Returns `network` as a body, a head and a cache; by default, as a causal language model of transformers."""
        return find_decoder(network)

    # -- scoring

    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        """Scores responses; see `Modality.step_log_probs`."""
        outputs = self.score(network, self._collate_for(network, responses), ForwardPlan.of(Output.LOGPS))
        return outputs["logps"], outputs["step_mask"]

    def step_outputs(
        self,
        policy: Policy,
        responses: Sequence[EncodedResponse],
        plan: ForwardPlan,
        anchors: Mapping[str, Anchor] | None = None,
    ) -> dict[str, Tensor]:
        """Computes any of the outputs, float32 but for `states`; see `Modality.step_outputs`."""
        return self.score(policy.network, self._collate_for(policy.network, responses), plan, policy.heads, anchors)

    def head(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """Returns the output layer, with the model's own scaling of logits; see `Modality.head`."""
        return self.build_decoder(network).plain_logits

    def _collate_for(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> TokenBatch:
        packed = self._packs(network, [Prompt.read(response.tensors) for response in responses])
        return self.collate_packed(responses) if packed else self.collate(responses)

    def _packs(self, network: nn.Module, prompts: Sequence[Prompt]) -> bool:
        decoder = self.build_decoder(network)
        require_decoder(network, decoder)
        require_causality(network, decoder, prompts)
        return self.packing == "auto" and decoder.packable and can_pack(network, prompts)

    def collate_packed(self, responses: Sequence[EncodedResponse]) -> TokenBatch:
        """Packs responses into one row on the CPU."""
        ids = [response.tensors["response_ids"] for response in responses]
        row = pack([Prompt.read(response.tensors) for response in responses], ids)
        scored = [_scored_places(response) for response in responses]
        # The first response token is predicted by the prompt's last, the others by the token before them.
        before = [
            torch.cat(
                [torch.arange(end - len(response.tensors["prompt_ids"]), end + 1), start + torch.arange(len(own) - 1)]
            )
            for end, start, own, response in zip(row.prompt_ends, row.starts, ids, responses, strict=True)
        ]
        tokens = [
            torch.cat([response.tensors["prompt_ids"], own]) for response, own in zip(responses, ids, strict=True)
        ]
        steps = torch.tensor([len(own) for own in scored])
        return TokenBatch(
            inputs=packed_inputs(row),
            mask=torch.arange(int(steps.max())) < steps[:, None],
            places=torch.cat([at[own] for at, own in zip(before, scored, strict=True)]),
            targets=torch.cat([own[steps] for own, steps in zip(tokens, scored, strict=True)]),
            last=torch.stack(
                [
                    start + own[-1] - len(response.tensors["prompt_ids"])
                    for start, own, response in zip(row.starts, scored, responses, strict=True)
                ]
            ),
            prompts=tuple(
                range(end + 1 - len(response.tensors["prompt_ids"]), end + 1)
                for end, response in zip(row.prompt_ends.tolist(), responses, strict=True)
            ),
        )

    def collate(self, responses: Sequence[EncodedResponse]) -> TokenBatch:
        """Pads responses into a batch on the CPU."""
        read = [Prompt.read(response.tensors) for response in responses]
        own = [response.tensors["response_ids"] for response in responses]
        rows = [torch.cat([prompt.ids, ids]) for prompt, ids in zip(read, own, strict=True)]
        scored = [_scored_places(response) for response in responses]
        inputs = pad_rows(read, own, self.pad_id, self.padding_side)
        width = inputs["input_ids"].shape[1]
        starts = [width - len(row) if self.padding_side == "left" else 0 for row in rows]
        firsts = [row * width + start for row, start in enumerate(starts)]
        places = [first + own for first, own in zip(firsts, scored, strict=True)]
        steps = torch.tensor([len(own) for own in scored])
        return TokenBatch(
            inputs=inputs,
            mask=torch.arange(int(steps.max())) < steps[:, None],
            places=torch.cat(places) - 1,
            targets=torch.cat([row[own] for row, own in zip(rows, scored, strict=True)]),
            last=torch.stack([own[-1] for own in places]),
            prompts=tuple(range(first, first + len(prompt.ids)) for first, prompt in zip(firsts, read, strict=True)),
        )

    def score(
        self,
        network: nn.Module,
        batch: TokenBatch,
        plan: ForwardPlan,
        heads: Heads | None = None,
        anchors: Mapping[str, Anchor] | None = None,
    ) -> dict[str, Tensor]:
        """Runs the network once over a batch.

        Args:
            plan: what to compute; see `Modality.step_outputs`.
            heads: `values` and `scores`, if these are planned; a score is read where the last scored token is.
            anchors: what the policy is compared with, by name, if that is planned.

        Returns:
            the planned outputs and `step_mask`, on the network's device.
        """
        reading = Reading(self.temperature, self.chunk_size, heads, anchors or {})
        decoder = self.build_decoder(network)
        return read_outputs(network, decoder, batch.to(decoder), plan, reading)

    # -- sampling

    def generate(
        self, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples responses with torch's global generator; see `Modality.generate`.

        Behaviour log-probs are those of the distribution at `decoding.temperature`, before `decoding.adjust`.
        """
        prompts = [self.encode_prompt(record) for record in records]
        owners = [prompt for prompt in range(len(records)) for _ in range(count)]
        read = [Prompt.read(tensors) for tensors, _ in prompts]
        decoding = Excluding(decoding, self.placeholder_ids) if self.placeholder_ids else decoding
        with evaluation_mode(network):
            sample = self._sample_in_groups if self._packs(network, read) else self._sample_in_batches
            sampled = sample(self.build_decoder(network), read, owners, decoding)
        generated = [
            self._build_generated(f"r{index % count}", *prompts[owner], one)
            for index, (owner, one) in enumerate(zip(owners, sampled, strict=True))
        ]
        return [generated[start : start + count] for start in range(0, len(generated), count)]

    def _sample_in_groups(
        self, decoder: Decoder, prompts: Sequence[Prompt], owners: Sequence[int], decoding: Decoding
    ) -> list[Sampled]:
        return sample_groups(decoder, prompts, owners, decoding, self.end_ids, capacity=self.generation_batch_size)

    def _sample_in_batches(
        self, decoder: Decoder, prompts: Sequence[Prompt], owners: Sequence[int], decoding: Decoding
    ) -> list[Sampled]:
        sampled: list[Sampled] = []
        for start in range(0, len(owners), self.generation_batch_size):
            part = owners[start : start + self.generation_batch_size]
            first, stop = part[0], part[-1] + 1
            own = torch.tensor(part, device=decoder.device) - first
            inputs = decoder.fit(self._pad_left(prompts[first:stop]))
            sampled += sample_tokens(decoder, inputs, own, decoding, self.end_ids)
        return sampled

    def _pad_left(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Pads prompts so that all responses start at the same place."""
        return pad_rows(prompts, [prompt.ids[:0] for prompt in prompts], self.pad_id, "left")

    def prompts_per_draw(self, count: int) -> int:
        """Returns after how many prompts a full batch of sequences may end; see `Modality.prompts_per_draw`.

        Within one call the next prompts take the places of responses that have ended; so with different lengths the
        samples of parts are others than those of the whole, of the same distribution.
        """
        return self.generation_batch_size // gcd(self.generation_batch_size, count)

    def _build_generated(self, rid: str, prompt: Mapping[str, Tensor], truncated: int, sampled: Sampled) -> Generated:
        ids, steps, length = sampled.ids, len(sampled.ids), len(prompt["prompt_ids"])
        tensors = {**prompt, "response_ids": ids, "response_mask": torch.ones(steps, dtype=torch.bool)}
        return Generated(
            response=self.build_response(rid, ids.tolist()),
            encoded=EncodedResponse(tensors, steps, size=length + steps, shared=length, truncated=truncated),
            behaviour_logps=sampled.logps,
            finished=sampled.finished,
        )


def _scored_places(response: EncodedResponse) -> Tensor:
    """Returns where the scored tokens of prompt and response are, counted from the prompt's first."""
    tensors = response.tensors
    places = len(tensors["prompt_ids"]) + tensors["response_mask"].nonzero().flatten()
    mask = tensors.get("prompt_mask")
    return places if mask is None else torch.cat([mask.nonzero().flatten(), places])
