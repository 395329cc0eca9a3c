"""A server on loopback that speaks the OpenAI protocol and really samples a tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign import Decoding
from mmalign.import_strings import load_object
from mmalign.toolkits.tokens.decoders import find_decoder
from mmalign.toolkits.tokens.generation import Sampled, sample_tokens
from mmalign.toolkits.tokens.prompts import Prompt, pad_rows

DIGITS = "0123456789"


class DigitDecoding(Decoding):
    """Lets a random model write digits and end tokens only: their text encodes to the very tokens sampled."""

    allowed: Tensor  # [V]

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        return logits.masked_fill(~self.allowed, float("-inf"))


class TinyServer(ThreadingHTTPServer):
    """Samples the tiny model on request.

    Attributes:
        offset: added to the log-probs that are told, in nats.
        spoil: changes an answer before it is sent.
        requests: (path, body, headers) of everything that was asked.
    """

    request_queue_size = 64  # the default of 5 resets connections when 16 come at once

    def __init__(self, model: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.modality = load_object("mmalign_text.modality:TextModality")(model=str(model))
        self.network = self.modality.load(device=torch.device("cpu"), dtype=torch.float32).network.eval()
        self.tokenizer = self.modality.loaded_tokenizer
        self.lock = threading.Lock()
        self.offset = 0.0
        self.spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.requests: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        prompt = body.get("prompt") or self.tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_dict=False
        )
        sampled = self._sample(prompt, body)
        ids = sampled.ids.tolist()
        tokens = [self.tokenizer.decode([step]) for step in ids]
        logps = [value + self.offset for value in sampled.logps.tolist()]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if sampled.finished else "length"}
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if path.endswith("chat/completions"):
            choice["message"] = {"role": "assistant", "content": text}
            rows = [{"token": token, "logprob": logp} for token, logp in zip(tokens, logps, strict=True)]
            choice["logprobs"] = {"content": rows} if body.get("logprobs") else None
        else:
            choice["text"] = text
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": logps} if body.get("logprobs") else None
        if body.get("return_token_ids"):
            choice["token_ids"] = ids
        return self.spoil({"choices": [choice]})

    def _sample(self, prompt: list[int], body: dict[str, Any]) -> Sampled:
        decoding = DigitDecoding(temperature=body["temperature"] or 1.0, max_steps=body["max_tokens"])
        decoding.allowed = torch.zeros(len(self.tokenizer), dtype=torch.bool)
        decoding.allowed[[*self.tokenizer.convert_tokens_to_ids(list(DIGITS)), *self.modality.end_ids]] = True
        read = Prompt.of(torch.tensor(prompt))
        inputs = pad_rows([read], [read.ids[:0]], self.modality.pad_id, "left")
        owners = torch.zeros(1, dtype=torch.long)
        with self.lock, torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(body["seed"])
            return sample_tokens(find_decoder(self.network), inputs, owners, decoding, self.modality.end_ids)[0]


class _Handler(BaseHTTPRequestHandler):
    server: TinyServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, dict(self.headers)))
        payload = json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None: ...
