"""A token model that is none of transformers': characters, a recurrent network, its state for a cache."""

from dataclasses import dataclass

import torch
from torch import nn

from mmalign import (
    Decoder,
    DecoderOutput,
    EncodedResponse,
    ModalitySpec,
    Model,
    Response,
    Reward,
    RewardSpec,
    TokenModality,
    hookimpl,
)

CHARACTERS = "abc?"
END = len(CHARACTERS)


class Network(nn.Module):
    """A vector for every character, one recurrent cell, one row of logits for every state."""

    def __init__(self, width=16):
        super().__init__()
        self.vectors = nn.Embedding(END + 1, width)
        self.cell = nn.GRUCell(width, width)
        self.head = nn.Linear(width, END + 1)


@dataclass
class State:
    """What is behind the last token of every row, [N, D]."""

    last: torch.Tensor

    def batch_select_indices(self, rows):
        self.last = self.last[rows]


class GruDecoder(Decoder):
    def run(self, inputs, *, use_cache=False, layers=False):
        ids, cache = inputs["input_ids"], inputs.get("past_key_values")
        # The mask covers the cached positions, too; padding leaves the state as it is.
        mask = inputs["attention_mask"][:, -ids.shape[1] :].bool()
        vectors = self._network.vectors(ids)
        state = vectors.new_zeros(vectors[:, 0].shape) if cache is None else cache.last
        states = []
        for position in range(ids.shape[1]):
            state = torch.where(mask[:, position, None], self._network.cell(vectors[:, position], state), state)
            states.append(state)
        hidden = torch.stack(states, dim=1)  # [N, L, D]
        return DecoderOutput(hidden, hidden, State(state) if use_cache else None)

    def logits(self, states):
        return self._network.head(states)

    def head_weights(self):
        return tuple(self._network.head.parameters())


class Characters(TokenModality):
    pad_id = END
    end_ids = frozenset({END})

    def load(self, *, device, dtype):
        return Model(Network().to(device), hidden_size=16, name="a recurrent network")

    def build_decoder(self, network):
        return GruDecoder(network)

    def encode_prompt(self, record):
        return {"prompt_ids": encode_text(record.prompt_text)}, 0

    def encode(self, record):
        prompt = encode_text(record.prompt_text)
        return [encode_response(prompt, encode_text(one.text)) for one in record.responses]

    def build_response(self, rid, ids):
        return Response.from_text(rid, "".join(CHARACTERS[one] for one in ids if one != END))

    def decode(self, record, response):
        return response.text


def encode_text(text):
    return torch.tensor([CHARACTERS.index(character) for character in text])


def encode_response(prompt, text):
    ids = torch.cat([text, torch.tensor([END])])
    tensors = {"prompt_ids": prompt, "response_ids": ids, "response_mask": torch.ones(len(ids), dtype=torch.bool)}
    size = len(prompt) + len(ids)
    return EncodedResponse(tensors, steps=len(ids), size=size, shared=len(prompt))


class ShareOfA(Reward):
    def score(self, samples):
        return [sample.output.count("a") / max(1, len(sample.output)) for sample in samples]


@hookimpl
def register_modalities():
    return [ModalitySpec(name="characters", summary="A recurrent network of letters.", target="gru_tokens:Characters")]


@hookimpl
def register_rewards():
    return [RewardSpec(name="share_of_a", summary="The share of a.", target="gru_tokens:ShareOfA")]
