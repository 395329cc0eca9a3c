"""From records to tokens: which are scored, what is cut and counted, what is refused."""

from __future__ import annotations

import pytest
import torch

from mmalign import ConfigError, DataError, EncodedResponse, Message, Part, Record, Response
from mmalign.testing import CHAT_TEMPLATE, build_tiny_text_model
from mmalign.toolkits.language.templates import PLAIN_TEMPLATE
from mmalign_text.modality import TextModality

SMOLLM_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a bot.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As SmolLM2's: a system message of its own when none is given."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(build_tiny_text_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def text(folder):
    return TextModality(model=folder)


def turn(role: str, content: str, train: float | None = None) -> Message:
    return Message(role=role, content=(Part(type="text", text=content),), train=train)


def dialogue(*turns: Message) -> Record:
    record = Record.from_text("Hi", id="a")
    return record.with_responses([Response(rid="r0", messages=turns)])


def encode_one(modality: TextModality, record: Record) -> EncodedResponse:
    [encoded] = modality.encode(record)
    return encoded


# -- what is scored


def test_scores_the_response_with_its_end_and_nothing_else(text):
    encoded = encode_one(text, Record.from_text("Hi", ["Good."]))
    assert text.render(encoded) == [
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False),
        ("Good.<|im_end|>", True),
    ]
    assert encoded.steps == encoded.tensors["response_mask"].sum() == len(encoded.tensors["response_ids"])
    assert encoded.size == len(encoded.tensors["prompt_ids"]) + encoded.steps
    assert encoded.truncated == 0
    assert encoded.tensors["response_mask"].dtype == torch.bool


def test_scores_assistant_turns_only_in_a_dialogue(text):
    record = dialogue(turn("assistant", "One"), turn("user", "More?"), turn("assistant", "Two"), turn("user", "Bye"))
    encoded = encode_one(text, record)
    assert text.render(encoded)[1:] == [
        ("One<|im_end|>", True),
        ("\n<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Two<|im_end|>", True),
    ]
    assert encoded.steps == int(encoded.tensors["response_mask"].sum()) < len(encoded.tensors["response_ids"])


def test_a_turn_with_train_0_is_context(text):
    encoded = encode_one(text, dialogue(turn("assistant", "One", 0.0), turn("user", "?"), turn("assistant", "Two")))
    pieces = text.render(encoded)
    assert [piece for piece, counted in pieces if counted] == ["Two<|im_end|>"]
    assert "One" in pieces[0][0]


def test_two_speakers_in_a_row_are_two_turns(text):
    encoded = encode_one(text, dialogue(turn("assistant", "One"), turn("assistant", "Two")))
    assert [p for p, counted in text.render(encoded) if counted] == ["One<|im_end|>", "Two<|im_end|>"]


def test_an_assistant_prefix_is_continued(text):
    prompt = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am"}]
    encoded = encode_one(text, Record.from_text(prompt, [" well"]))
    assert text.render(encoded) == [
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nI am", False),
        (" well<|im_end|>", True),
    ]


def test_responses_share_the_prompt_and_generation_uses_the_same(text):
    record = Record.from_text("Hi", ["Good.", "\n\nBad"])
    one, other = text.encode(record)
    prompt, truncated = text.encode_prompt(record)
    assert truncated == 0
    assert torch.equal(one.tensors["prompt_ids"], prompt["prompt_ids"])
    # "\n" ends the prompt and "\n\n" starts the response: no token may straddle the border.
    assert torch.equal(other.tensors["prompt_ids"], prompt["prompt_ids"])
    assert text.render(other)[1] == ("\n\nBad<|im_end|>", True)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ([turn("user", "?")], "record 'a', response 'r0': no scored step"),
        ([turn("assistant", "One", 0.0)], "record 'a', response 'r0': no scored step"),
        (
            [Message(role="assistant", content=(Part(type="image", media="m1"),))],
            "a part of this assistant message is of type image; text is read here",
        ),
    ],
)
def test_a_response_without_scored_text_is_refused(text, response, message):
    with pytest.raises(DataError, match=message):
        text.encode(dialogue(*response))


# -- truncation


def test_a_cut_is_counted(folder):
    record = Record.from_text("A question about the sea", ["An answer about the sea"])
    whole = encode_one(TextModality(model=folder), record)
    cut = encode_one(TextModality(model=folder, max_prompt_tokens=6, max_response_tokens=3), record)
    assert torch.equal(cut.tensors["prompt_ids"], whole.tensors["prompt_ids"][-6:])
    assert torch.equal(cut.tensors["response_ids"], whole.tensors["response_ids"][:3])
    assert (cut.steps, cut.size) == (3, 9)
    assert cut.truncated == whole.size - 9


def test_the_token_that_begins_a_sequence_survives_the_cut(folder, tmp_path):
    once = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    modality = TextModality(model=folder, chat_template=once, max_prompt_tokens=4)
    prompt, truncated = modality.encode_prompt(Record.from_text("A question about the sea"))
    assert len(prompt["prompt_ids"]) == 4 and truncated > 0
    assert prompt["prompt_ids"][0] == modality.loaded_tokenizer.bos_token_id


def test_a_cut_that_leaves_no_scored_step_is_refused(folder):
    record = dialogue(turn("assistant", "A long context", 0.0), turn("user", "?"), turn("assistant", "Two"))
    with pytest.raises(DataError, match=r"record 'a', response 'r0': cut to 4 of \d+ tokens it has no scored step"):
        TextModality(model=folder, max_response_tokens=4).encode(record)


def test_more_than_the_model_reads_is_refused_and_not_cut_silently(text):
    record = Record.from_text("sea " * 600, ["Good."], id="long")
    with pytest.raises(DataError, match=r"record 'long', response 'r0': \d+ tokens, but the model reads 512"):
        text.encode(record)
    with pytest.raises(DataError, match=r"record 'long': \d+ tokens, but the model reads 512; set modality.max_prompt"):
        text.encode_prompt(record)


# -- templates


@pytest.mark.parametrize(
    ("system", "opening"),
    [
        (None, "<|im_start|>system\nYou are a bot.<|im_end|>\n<|im_start|>user\n"),
        ("Be kind.", "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"),
        ("", "<|im_start|>user\n"),
    ],
)
def test_system_message_of_prompts_that_have_none(folder, system, opening):
    modality = TextModality(model=folder, chat_template=SMOLLM_TEMPLATE, system=system)
    dialogue_of_two = dialogue(turn("assistant", "One"), turn("user", "More?"), turn("assistant", "Two"))
    for record in (Record.from_text("Hi", ["Good."]), dialogue_of_two):
        assert modality.render(encode_one(modality, record))[0][0].startswith(opening)
    own = modality.render(encode_one(modality, Record.from_text("Hi", ["Good."], system="Mine.")))
    assert own[0][0].startswith("<|im_start|>system\nMine.<|im_end|>\n<|im_start|>user\n")


def test_an_inseparable_system_text_is_refused(folder):
    merged = "{{ messages[0]['content'] + ' (be kind)' }}{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}"
    modality = TextModality(model=folder, chat_template=merged, system="")
    with pytest.raises(ConfigError, match=r"modality.system: this chat template cannot be rendered without"):
        modality.encode(Record.from_text("Hi", ["Good."]))


def test_a_base_model_gets_the_plain_template(folder):
    plain = TextModality(model=folder, chat_template=PLAIN_TEMPLATE)
    assert plain.render(encode_one(plain, Record.from_text("Hi", ["Good."]))) == [
        ("User:\nHi\n\nAssistant:\n", False),
        ("Good.<|im_end|>", True),
    ]


def test_a_tokenizer_without_a_template_falls_back_to_the_plain_one(folder):
    modality = TextModality(model=folder)
    modality.loaded_tokenizer.chat_template = None
    assert modality.render(encode_one(modality, Record.from_text("Hi", ["Good."])))[0][0].startswith("User:\nHi")


def test_a_template_without_end_tokens_gets_the_tokenizers(folder):
    bare = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    modality = TextModality(model=folder, chat_template=bare)
    assert modality.render(encode_one(modality, Record.from_text("Hi", ["Good."])))[1] == ("Good.\n<|im_end|>", True)


def test_a_template_that_ends_turns_with_a_token_of_its_own(folder):
    """As Gemma's or Llama 3's: turns end with another special token than sequences do."""
    own = CHAT_TEMPLATE.replace("<|im_end|>", "<|im_start|>")
    modality = TextModality(model=folder, chat_template=own)
    assert modality.end_ids == {modality.loaded_tokenizer.bos_token_id, modality.loaded_tokenizer.eos_token_id}


def test_a_template_that_opens_turns_differently_still_shares_the_prompt(folder):
    """As reasoning models' do: the open turn begins with a tag that closed turns lack."""
    thinking = CHAT_TEMPLATE.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")
    modality = TextModality(model=folder, chat_template=thinking)
    pieces = modality.render(encode_one(modality, Record.from_text("Hi", ["Good."])))
    assert pieces[0][0].endswith("assistant\n<think>\n") and pieces[1] == ("Good.<|im_end|>", True)


def test_a_template_that_rewrites_earlier_turns_is_refused_for_dialogues(folder):
    rewriting = CHAT_TEMPLATE.replace("message['content']", "(message['content'] if loop.last else '...')")
    modality = TextModality(model=folder, chat_template=rewriting)
    record = dialogue(turn("assistant", "One"), turn("user", "?"), turn("assistant", "Two"))
    with pytest.raises(
        DataError, match="record 'a', response 'r0': the chat template renders earlier turns differently"
    ):
        modality.encode(record)


def test_what_a_template_refuses_names_the_record(folder):
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    modality = TextModality(model=folder, chat_template=refusal + CHAT_TEMPLATE)
    with pytest.raises(DataError, match="record 'a': the chat template refuses these messages: System role"):
        modality.encode(Record.from_text("Hi", ["Good."], id="a", system="Be kind."))


def test_a_template_may_be_a_file(folder, tmp_path):
    (tmp_path / "mine.jinja").write_text(SMOLLM_TEMPLATE)
    modality = TextModality(model=folder, chat_template=str(tmp_path / "mine.jinja"))
    assert "You are a bot." in modality.render(encode_one(modality, Record.from_text("Hi", ["Good."])))[0][0]
    with pytest.raises(ConfigError, match=r"modality.chat_template: 'nowhere\.jinja' is neither"):
        TextModality(model=folder, chat_template="nowhere.jinja")


# -- identity


def test_the_fingerprint_changes_with_everything_that_changes_an_encoding(folder):
    choices = [{}, {"system": "Be kind."}, {"max_prompt_tokens": 5}, {"max_response_tokens": 5}]
    choices += [{"chat_template": PLAIN_TEMPLATE}]
    prints = [TextModality(model=folder, **choice).fingerprint() for choice in choices]
    assert len(set(prints)) == len(prints)
    assert TextModality(model=folder, generation_batch_size=3).fingerprint() == prints[0]


# -- prompts that are scored


def trained(*trains: float | None) -> Record:
    turns = [
        turn(role, text, train)
        for role, text, train in zip(("system", "user"), ("Be kind.", "Hi"), trains, strict=True)
    ]
    return Record.from_text("Hi", ["Good.", "Bad!"], id="a").model_copy(update={"prompt": tuple(turns)})


def test_a_trained_prompt_is_scored_but_for_its_first_token(text):
    plain, joint = text.encode(trained(None, None)), text.encode(trained(1.0, 1.0))
    for alone, together in zip(plain, joint, strict=True):
        assert together.size == alone.size
        assert together.steps == alone.steps + len(alone.tensors["prompt_ids"]) - 1
        rows = [torch.cat([one.tensors["prompt_ids"], one.tensors["response_ids"]]) for one in (alone, together)]
        assert torch.equal(*rows)


def test_a_prompt_of_which_some_turns_are_trained_is_refused(text):
    with pytest.raises(
        DataError, match="record 'a': expected all turns of the prompt to have a `train` above 0, or none"
    ):
        text.encode(trained(None, 1.0))


def test_of_one_prompt_the_joint_margin_is_the_conditional_one(text):
    """So DOVE is DPO there: what the prompt adds to both responses cancels."""
    model = text.load(device=torch.device("cpu"), dtype=torch.float32)
    margins = []
    for record in (trained(None, None), trained(1.0, 1.0)):
        logps, mask = text.step_log_probs(model.network, text.encode(record))
        good, bad = torch.where(mask, logps, 0).sum(dim=1)
        margins.append((good - bad).item())
    assert margins[1] == pytest.approx(margins[0], abs=1e-4)
    assert abs(margins[0]) > 0.01
