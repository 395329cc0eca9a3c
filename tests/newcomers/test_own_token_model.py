"""A newcomer brings a token model with a cache of its own: it trains, offline and online, or one error says why not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign import Decoding, PluginError, Record, TokenModality
from mmalign.config.validation import validate
from mmalign.import_strings import load_object
from mmalign.plugins.registry import load_registry

PLUGIN = Path(__file__).with_name("gru_tokens.py")
DECODING = Decoding(temperature=0.7, max_steps=8)


@pytest.fixture
def modality() -> TokenModality:
    spec = load_registry(files=[PLUGIN], strict=True).find("modality", "characters", "test").spec
    built: TokenModality = load_object(spec.target)()
    return built


@pytest.fixture
def network(modality: TokenModality) -> torch.nn.Module:
    torch.manual_seed(0)
    return modality.load(device=torch.device("cpu"), dtype=torch.float32).network


@pytest.fixture
def train(write_records: Any, tmp_path: Path) -> Callable[..., Any]:
    rows = [
        {"id": f"r{index}", "prompt": "abc?"[: 1 + index % 4], "chosen": "aaa", "rejected": "bc"} for index in range(8)
    ]
    path = str(write_records("pairs.jsonl", rows))
    prompts = str(write_records("prompts.jsonl", [{"id": row["id"], "prompt": row["prompt"]} for row in rows]))

    def run(online: bool) -> Any:
        data = {"path": prompts if online else path}
        parts: dict[str, Any] = {"objective": {"name": "dpo"}}
        if online:
            parts = {"objective": {"name": "grpo"}, "collector": {"name": "group"}, "advantage": {"name": "grpo"}}
        config = {
            "plugins": [str(PLUGIN)],
            "modality": {"name": "characters"},
            "data": {"train": data, "eval": data},
            "rewards": [{"name": "share_of_a"}],
            "decoding": {"name": "sample", "max_steps": 8},
            "train": {"steps": 20, "batch_size": 8, "learning_rate": 0.02},
            "evaluation": {"evaluators": [{"name": "generation", "count": 32}]},
            "output": str(tmp_path / "run"),
            **parts,
        }
        checked = validate(mmalign.RunConfig, config, "")
        mmalign.check(checked)
        return mmalign.train(checked)

    return run


@pytest.mark.parametrize("online", [False, True])
def test_it_learns(online: bool, train: Callable[..., Any]) -> None:
    run = train(online)
    assert run.after["generation/reward"] > run.before["generation/reward"] + 0.15


def test_what_is_sampled_with_the_cache_is_scored_alike(modality: TokenModality, network: torch.nn.Module) -> None:
    # Prompts of several lengths: padded on the left, and rows are dropped where responses end.
    records = [Record.from_text(prompt) for prompt in ("a", "bc?", "?b")]
    sampled = [one for group in modality.generate(network, records, DECODING, 4) for one in group]
    assert len({one.encoded.steps for one in sampled}) > 1
    modality.temperature = DECODING.temperature
    logps, mask = modality.step_log_probs(network, [one.encoded for one in sampled])
    for row, own, one in zip(logps, mask, sampled, strict=True):
        torch.testing.assert_close(row[own], one.behaviour_logps)


def test_a_log_prob_worked_out_by_hand(modality: TokenModality, network: Any) -> None:
    """One cell by its own equations: the prompt b, then a, then the end."""
    (encoded,) = modality.encode(Record.from_text("b", ["a"]))
    state = torch.zeros(1, 16)
    expected = []
    for read, said in ((1, 0), (0, 4)):
        state = network.cell(network.vectors.weight[read][None], state)
        expected.append(network.head(state).log_softmax(-1)[0, said])
    logps, _ = modality.step_log_probs(network, [encoded])
    torch.testing.assert_close(logps[0], torch.stack(expected))


def _without_mask(plugin: Any, patch: pytest.MonkeyPatch) -> None:
    run = plugin.GruDecoder.run
    ones = lambda inputs: {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}  # noqa: E731
    patch.setattr(plugin.GruDecoder, "run", lambda self, inputs, **options: run(self, ones(inputs), **options))


def _put(name: str, value: Any) -> Callable[[Any, pytest.MonkeyPatch], None]:
    return lambda plugin, patch: patch.setattr(plugin.GruDecoder, name, value)


# How the decoder breaks the protocol, and what the one message says.
WRONG: dict[str, tuple[Callable[[Any, pytest.MonkeyPatch], None], str]] = {
    "padding is read": (_without_mask, "a step that reads the cache, behind left padding .* other logits"),
    "no rows are selected": (
        lambda plugin, patch: patch.setattr(plugin.State, "batch_select_indices", lambda self, rows: None),
        "a step that reads the cache, .* gives other logits than the whole row",
    ),
    "no cache": (
        lambda plugin, patch: patch.setattr(plugin, "State", lambda last: last),
        r"run\(use_cache=True\) gives a Tensor for a cache, which has no method batch_select_indices",
    ),
    "a tuple": (_put("run", lambda self, inputs, **_: (1, 2)), "run gives a tuple, expected a DecoderOutput"),
    "one state a row": (
        _put("run", lambda self, inputs, **_: mmalign.DecoderOutput(torch.zeros(3, 16), torch.zeros(3, 16))),
        r"run on ids \[3, 4\] gives states of the shape \[3, 16\], expected floats of \[3, 4, ...\]",
    ),
    "logits of one row": (_put("logits", lambda self, states: states[0]), r"are the shape \[16\], expected \[3, V\]"),
    "a list of weights": (_put("head_weights", lambda self: []), "head_weights gives a list, expected a tuple"),
    "it raises": (_put("logits", lambda self, states: self.gone), "GruDecoder of Network of .* failed: AttributeError"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_decoder_that_breaks_the_protocol_is_one_error(
    fault: str, modality: TokenModality, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, told = WRONG[fault]
    spoil(sys.modules[type(modality).__module__], monkeypatch)
    with pytest.raises(PluginError, match=told):
        modality.step_log_probs(network, modality.encode(Record.from_text("b", ["a"])))


def test_a_network_that_is_none_of_transformers_needs_a_decoder(
    modality: TokenModality, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(type(modality), "build_decoder")
    with pytest.raises(PluginError, match=r"Network of .* failed: .*; override .*build_decoder"):
        modality.step_log_probs(network, modality.encode(Record.from_text("b", ["a"])))
