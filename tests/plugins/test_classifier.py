"""The classifier reward with tiny random transformers classifiers, made in code and saved to a folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from mmalign import ConfigError, Record, Sample
from mmalign_rewards.classifier import Classifier, ClassifierConfig

WORDS = ("[PAD]", "[UNK]", "[EOS]", "good", "bad", "so", "what", "?")
TEXTS = ("good", "so bad", "so so so so good bad")
BERT = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_tokenizer(folder: Path, **special: str) -> None:
    core = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    options: dict[str, Any] = {"unk_token": "[UNK]", "model_max_length": 32, **special}
    PreTrainedTokenizerFast(tokenizer_object=core, **options).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with the labels negative, neutral and positive."""
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("classifier")
    names = {0: "negative", 1: "neutral", 2: "positive"}
    BertForSequenceClassification(BertConfig(**BERT, id2label=names, initializer_range=0.5)).save_pretrained(path)
    save_tokenizer(path, pad_token="[PAD]")
    return path


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with a single label, whose tokenizer has no padding token."""
    torch.manual_seed(1)
    path: Path = tmp_path_factory.mktemp("reward_model")
    sizes = {"vocab_size": len(WORDS), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    config = GPT2Config(**sizes, num_labels=1, bos_token_id=2, eos_token_id=2, initializer_range=0.5)
    GPT2ForSequenceClassification(config).save_pretrained(path)
    save_tokenizer(path, eos_token="[EOS]")
    return path


def make_samples(texts: Sequence[str], prompt: str = "what ?") -> list[Sample]:
    record = Record.from_text(prompt, texts)
    return [Sample(record, response, response.text) for response in record.responses]


def compute_logits(folder: Path, text: str) -> torch.Tensor:
    """The logits [labels] of one unpadded text, written longhand."""
    ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
    with torch.no_grad():
        logits: torch.Tensor = BertForSequenceClassification.from_pretrained(folder)(input_ids=ids).logits[0]
    return logits


@pytest.mark.parametrize(("label", "column"), [("positive", 2), (0, 0)])
def test_logits_of_a_label(folder: Path, label: str | int, column: int) -> None:
    expected = [float(compute_logits(folder, f"what ? {text}")[column]) for text in TEXTS]
    reward = Classifier(str(folder), label=label, batch_size=2)
    assert reward.score(make_samples(TEXTS)) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 3) for value in expected}) == 3


def test_several_labels_are_dimensions(folder: Path) -> None:
    expected = [compute_logits(folder, f"what ? {text}")[[2, 0]].tolist() for text in TEXTS]
    reward = Classifier(str(folder), labels=("positive", 0), batch_size=2)
    assert reward.dimensions == ("positive", "0")
    for row, wanted in zip(reward.score(make_samples(TEXTS)), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)


def test_a_label_and_several_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="labels: give label or labels, not both"):
        ClassifierConfig(model="any", label=0, labels=("positive",))


def test_an_unknown_label_among_several_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.classifier\.label: unknown 'positiv'; did you mean 'positive'"):
        Classifier(str(folder), labels=("neutral", "positiv")).score(make_samples(["so"]))


def test_probabilities_are_a_softmax_over_labels(folder: Path) -> None:
    expected = compute_logits(folder, "what ? so bad").softmax(dim=0).tolist()
    scores = [
        Classifier(str(folder), label=name, output="probability").score(make_samples(["so bad"]))[0]
        for name in ("negative", "neutral", "positive")
    ]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)


def test_the_template_says_what_is_read(folder: Path) -> None:
    reward = Classifier(str(folder), label=1, template="so {response}")
    expected = float(compute_logits(folder, "so good")[1])
    assert reward.score(make_samples(["good"])) == pytest.approx([expected], abs=1e-5)


def test_braces_in_prompt_and_response_are_text(folder: Path) -> None:
    reward = Classifier(str(folder), label=0)
    first, second = reward.score(make_samples(["{prompt} {0}", "[UNK] [UNK]"], prompt="{response}"))
    assert first == pytest.approx(second, abs=1e-6)


def test_a_decoder_reward_model_without_padding_token_can_be_batched(reward_model: Path) -> None:
    reward = Classifier(str(reward_model))
    alone = [reward.score([sample])[0] for sample in make_samples(TEXTS)]
    assert reward.score(make_samples(TEXTS)) == pytest.approx(alone, abs=1e-5)
    assert len({round(value, 3) for value in alone}) == 3


def test_the_probability_of_a_single_label_is_a_sigmoid(reward_model: Path) -> None:
    (logit,) = Classifier(str(reward_model)).score(make_samples(["good"]))
    (probability,) = Classifier(str(reward_model), output="probability").score(make_samples(["good"]))
    assert probability == pytest.approx(1 / (1 + 2.718281828459045**-logit), abs=1e-6)


def test_long_texts_lose_their_beginning_and_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    reward = Classifier(str(folder), label=2, max_length=3)
    with caplog.at_level(logging.WARNING):
        scores = reward.score(make_samples(["good", "so good bad good", "bad so good bad good"]))
        reward.score(make_samples(["so so so so"]))
    assert scores[1] == pytest.approx(float(compute_logits(folder, "good bad good")[2]), abs=1e-5)
    assert scores[1] == pytest.approx(scores[2], abs=1e-6)
    assert reward.truncated == 3
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("mmalign_rewards")]
    assert message.startswith("rewards.classifier: 2 of 3 texts are longer than 3 tokens")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("positve", "unknown 'positve'; did you mean 'positive'"),
        (3, "unknown 3; known: negative, neutral, positive"),
        (-1, "unknown -1"),
        (None, "missing; the model has 3 labels: negative, neutral, positive"),
    ],
)
def test_a_wrong_label_is_a_configuration_error(folder: Path, label: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"rewards\.classifier\.label: {message}"):
        Classifier(str(folder), label=label).score(make_samples(["good"]))


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(**BERT)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad_token="[PAD]")
    with pytest.raises(ConfigError, match=r"has no trained classification head: classifier\.bias, classifier\.weight"):
        Classifier(str(tmp_path), label=0).score(make_samples(["good"]))


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.classifier\.model: cannot load"):
        Classifier(str(tmp_path / "nothing-here"), label=0).score(make_samples(["good"]))


@pytest.mark.parametrize("template", ["{prompt}", "{text} {response}", "{} {response}", "{response", ""])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match=r"expected \{"):
        ClassifierConfig(model="m", template=template)
