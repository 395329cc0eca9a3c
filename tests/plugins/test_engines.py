"""Engines as parts: the default, the choice in a config, and what a server cannot be asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign import ConfigError, Decoding, Record, RunConfig, check, train
from mmalign.import_strings import load_object

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]

PLUGIN = """
from mmalign import Decoding, DecodingSpec, Engine, EngineSpec, hookimpl

class Fixed(Engine):
    def generate(self, modality, network, records, decoding, count):
        groups = modality.generate(network, records, decoding, 1)
        return [group * count for group in groups]

class NoZeros(Decoding):
    def adjust(self, logits, generated):
        return logits

@hookimpl
def register_engines():
    return [EngineSpec(name="fixed", summary="One response, again and again.", target="{stem}:Fixed")]

@hookimpl
def register_decodings():
    return [DecodingSpec(name="no_zeros", summary="A rule.", target="{stem}:NoZeros")]
"""


def test_hf_is_the_default_and_samples_as_the_modality_does(tiny_text_model: Path, toy_config: Build) -> None:
    assert RunConfig.model_validate(toy_config()).engine.name == "hf"
    modality = load_object("mmalign_text.modality:TextModality")(model=str(tiny_text_model))
    network = modality.load(device=torch.device("cpu"), dtype=torch.float32).network
    engine = load_object("mmalign_engines.hf:InProcessEngine")()
    texts = []
    for generate in (modality.generate, lambda *rest: engine.generate(modality, *rest)):
        torch.manual_seed(0)
        groups = generate(network, [Record.from_text("hi"), Record.from_text("ho")], Decoding(max_steps=5), 3)
        texts.append([one.response.text for group in groups for one in group])
    assert texts[0] == texts[1] and len(set(texts[0])) > 1


def test_a_plugin_can_bring_an_engine(toy_online: Build, write_config: WriteConfig, tmp_path: Path) -> None:
    config = toy_online(engine={"name": "fixed"}, train={"steps": 1, "batch_size": 4})
    config["plugins"] = [*config["plugins"], write_plugin(tmp_path)]
    run = train(write_config(config))
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert run.step == 1 and '"flat_groups": 1.0' in metrics


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"name": "opnai"}, "engine.name: unknown 'opnai'; did you mean 'openai'? known: hf, openai"),
        ({"name": "hf", "model": "m"}, "engine.model: unknown key"),
        ({"name": "openai"}, "engine.model: missing"),
        ({"name": "openai", "model": "m", "base_url": "localhost:8000"}, "got 'localhost:8000'"),
        ({"name": "openai", "model": "m"}, "engine.name: 'openai' samples tokens, which Toy has not; use 'hf'"),
    ],
)
def test_a_wrong_engine_is_refused_before_anything_loads(
    toy_online: Build, write_config: WriteConfig, engine: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(write_config(toy_online(engine=engine)))
    assert expected in str(caught.value)


def test_a_rule_on_logits_is_refused_for_a_server(
    tiny_text_model: Path, toy_online: Build, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = toy_online(
        modality={"name": "text", "model": str(tiny_text_model)},
        engine={"name": "openai", "model": "m"},
        decoding={"name": "no_zeros"},
    )
    config["plugins"] = [*config["plugins"], write_plugin(tmp_path)]
    with pytest.raises(ConfigError, match="NoZeros changes scores step by step, which a server cannot be asked for"):
        check(write_config(config))


def test_a_decoding_without_a_rule_is_what_a_server_is_asked_for() -> None:
    assert Decoding(temperature=0.5, max_steps=7).request_fields() == {"temperature": 0.5, "max_tokens": 7}


def test_a_decoding_may_say_itself_what_to_ask_for() -> None:
    class Narrow(Decoding):
        def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
            return logits

        def request_fields(self) -> dict[str, Any]:
            return {"temperature": 1.0, "min_p": 0.1}

    assert Narrow().request_fields()["min_p"] == 0.1


def write_plugin(folder: Path) -> str:
    path = folder / "my_engine.py"
    path.write_text(PLUGIN.replace("{stem}", "my_engine"), encoding="utf-8")
    return str(path)
