"""Turns of the assistant are found by rendering, whatever they say and however a template shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from chat_templates import CONTROL_TOKENS, DEEPSEEK_R1, HERMES, LLAMA_2, PHI_3, QWEN_3, TEMPLATES, THINKING_CHATML
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign import DataError, Message, Part, Record, Response
from mmalign.data.record_rows import Function, ToolCall
from mmalign.testing import build_tiny_tokenizer
from mmalign.toolkits.language.chat import ChatFormat
from mmalign.toolkits.language.encoding import LanguageEncoder, TokenLimits
from mmalign.toolkits.language.templates import ChatTemplate

Pieces = list[tuple[str, bool]]
SNIPPETS = [
    "d",
    "end",
    "im",
    "assistant",
    "user",
    "think",
    "q0zx",
    "q1zx",
    "zqx",
    "</think>",
    "\n",
    "  ",
    "",
    "[INST",
    "é",
    "{{ x }}",
]
"""Texts that occur in templates, are pieces of end tokens, are what a marker may be, or are nothing."""
TOOLS = json.dumps([{"type": "function", "function": {"name": "get_weather"}}])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = build_tiny_tokenizer(384)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(CONTROL_TOKENS)}, replace_extra_special_tokens=False
    )
    return tokenizer


@pytest.fixture(scope="module")
def encode(tokenizer: Any) -> Callable[..., list[Pieces]]:
    """Encodes a record with a template and returns, for every response, its pieces and whether they are scored."""
    formats: dict[str, LanguageEncoder] = {}

    def run(template: str, record: Record) -> list[Pieces]:
        if template not in formats:
            chat = ChatFormat(tokenizer, ChatTemplate(template, template, own=True), None)
            formats[template] = LanguageEncoder(tokenizer, chat, TokenLimits())
        return [_pieces(tokenizer, one.tensors) for one in formats[template].encode(record)]

    return run


def _pieces(tokenizer: Any, tensors: Any) -> Pieces:
    pieces: Pieces = [(tokenizer.decode(tensors["prompt_ids"]), False)]
    counts = tensors["response_mask"].tolist()
    start = 0
    for place in range(1, len(counts) + 1):
        if place == len(counts) or counts[place] != counts[start]:
            pieces.append((tokenizer.decode(tensors["response_ids"][start:place]), counts[start]))
            start = place
    return pieces


def message(role: Any, text: str = "", **more: Any) -> Message:
    return Message(role=role, content=(Part(type="text", text=text),) if text else (), **more)


def answered(*turns: Message, prompt: str = "q?", **more: Any) -> Record:
    record = Record(id="a", prompt=(message("user", prompt),), **more)
    return record.with_responses([Response(rid="r0", messages=turns)])


def scored(pieces: Pieces) -> list[str]:
    return [text for text, counts in pieces if counts]


TEXT = st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=4)), max_size=4).map("".join)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(question=TEXT, answer=TEXT)
def test_a_turn_is_trained_whole_and_alone(encode: Any, name: str, question: str, answer: str) -> None:
    """Scored are what was written, but for space that the template trims, and one end token; the prompt is the same."""
    try:
        (pieces,) = encode(TEMPLATES[name], answered(message("assistant", answer), prompt=question))
    except DataError as error:
        assert "record 'a'" in str(error)
        # What a template takes for reasoning it may reorder; then it is refused by name.
        assert "</think>" in answer and name in ("Qwen 3", "DeepSeek R1")
        return
    (text,) = scored(pieces)
    ends = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
    body = next(text.removesuffix(end) for end in ends if text.endswith(end))
    assert not any(end in body for end in ends)
    assert _squeeze(body).removeprefix("<think></think>" if name == "Qwen 3" else "") in (
        _squeeze(answer),
        # Where the prompt opened the reasoning, the answer's own opening tag is not repeated.
        _squeeze(answer).removeprefix("<think>"),
        *(["<think>" + _squeeze(answer)] if name == "Qwen 3" else []),
    )
    (other,) = encode(TEMPLATES[name], answered(message("assistant", "Other."), prompt=question))
    assert pieces[0] == other[0]


def _squeeze(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    texts=st.lists(
        st.one_of(st.sampled_from([one for one in SNIPPETS if "think" not in one]), st.text("abc<|", max_size=4)),
        min_size=5,
        max_size=5,
    )
)
def test_every_turn_of_a_dialogue_is_trained_at_its_place(encode: Any, name: str, texts: list[str]) -> None:
    """The question after a reasoning model's turn takes the (empty) reasoning out of it, and it is still found."""
    first, second, third, fourth, question = texts
    turns = [message("assistant", first), message("user", second), message("assistant", third)]
    turns += [message("user", fourth), message("assistant", "last")]
    (pieces,) = encode(TEMPLATES[name], answered(*turns, prompt=question))
    bodies = [_squeeze(text.rpartition("<")[0]) for text in scored(pieces)]
    assert [body.removeprefix("<think></think>") for body in bodies] == [_squeeze(first), _squeeze(third), "last"]
    joined = "".join(text for text, counts in pieces if not counts)
    assert all(_squeeze(text) in _squeeze(joined) for text in (question, second, fourth))


# -- by hand


def test_short_answers_after_an_opened_thought(encode: Any) -> None:
    record = Record.from_text("Which letter?", ["d", "end", "think", "<think>\nHm.\n</think>\nd"], id="a")
    pieces = encode(THINKING_CHATML, record)
    assert [one[0][0].endswith("assistant\n<think>\n") for one in pieces] == [True] * 4
    assert [scored(one) for one in pieces] == [
        ["d<|im_end|>"],
        ["end<|im_end|>"],
        ["think<|im_end|>"],
        ["Hm.\n</think>\nd<|im_end|>"],
    ]


def test_a_prefix_that_is_a_piece_of_the_end_token_is_left_open(encode: Any) -> None:
    prompt = [{"role": "user", "content": "Spell it."}, {"role": "assistant", "content": "end"}]
    for template in (TEMPLATES["ChatML"], THINKING_CHATML):
        (pieces,) = encode(template, Record.from_text(prompt, ["ing"], id="a"))
        assert pieces == [
            ("<|im_start|>user\nSpell it.<|im_end|>\n<|im_start|>assistant\nend", False),
            ("ing<|im_end|>", True),
        ]


@pytest.mark.parametrize("answer", ["<think>\nHm.\n</think>\n\nMadrid.", "Hm.\n</think>\n\nMadrid."])
def test_reasoning_that_the_template_drops_is_trained_in_a_last_turn(encode: Any, answer: str) -> None:
    """It is what the model samples after the prompt, which opens the reasoning."""
    (pieces,) = encode(DEEPSEEK_R1, answered(message("assistant", answer)))
    assert pieces[0][0].endswith("<|Assistant|><think>\n")
    assert scored(pieces) == ["Hm.\n</think>\n\nMadrid.<|im_end|>"]


def test_reasoning_content_stands_where_the_template_puts_it(encode: Any) -> None:
    (pieces,) = encode(QWEN_3, answered(message("assistant", "Madrid.", reasoning_content="Hm.")))
    assert scored(pieces) == ["<think>\nHm.\n</think>\n\nMadrid.<|im_end|>"]


@pytest.mark.parametrize(
    "turn",
    [
        message("assistant", "Madrid.", reasoning_content="Hm."),
        message("assistant", "<think>\nHm.\n</think>\n\nMadrid."),
    ],
)
def test_reasoning_that_the_template_drops_from_an_earlier_turn_is_refused_unless_it_is_context(
    encode: Any, turn: Message
) -> None:
    later = (message("user", "Sure?"), message("assistant", "Yes."))
    with pytest.raises(
        DataError, match=r"record 'a', response 'r0': the chat template does not show turn 1 .*`train: 0`"
    ):
        encode(QWEN_3, answered(turn, *later))
    (pieces,) = encode(QWEN_3, answered(turn.model_copy(update={"train": 0.0}), *later))
    assert "Hm." not in pieces[1][0] and "Madrid." in pieces[1][0]
    assert scored(pieces) == ["<think>\n\n</think>\n\nYes.<|im_end|>"]


def call(town: str) -> ToolCall:
    return ToolCall(function=Function(name="get_weather", arguments=json.dumps({"town": town})))


@pytest.mark.parametrize("template", [QWEN_3, HERMES], ids=["Qwen 3", "Hermes"])
def test_calls_are_trained_and_what_tools_answer_is_not(encode: Any, template: str) -> None:
    turns = (
        message("assistant", tool_calls=(call("Oslo"), call("Bergen"))),
        message("tool", "3 C"),
        message("tool", "4 C"),
        message("assistant", "Cold."),
    )
    (pieces,) = encode(template, answered(*turns, tools=TOOLS))
    assert "get_weather" in pieces[0][0]
    asked, told = scored(pieces)
    assert (
        asked.count("<tool_call>") == 2 and '{"town": "Bergen"}' in asked and asked.endswith("</tool_call><|im_end|>")
    )
    assert told.removeprefix("<think>\n\n</think>\n\n") == "Cold.<|im_end|>"
    context = "".join(text for text, counts in pieces[2:] if not counts)
    assert "3 C" in context and "4 C" in context and "Cold." not in context


def test_what_a_template_does_not_show_is_refused(encode: Any) -> None:
    with pytest.raises(DataError, match="record 'a': it has tools, but the chat template shows none"):
        encode(TEMPLATES["ChatML"], answered(message("assistant", "a"), tools=TOOLS))
    turns = (message("assistant", tool_calls=(call("Oslo"),)), message("tool", "3 C"), message("assistant", "Cold."))
    with pytest.raises(
        DataError, match="record 'a', response 'r0': turn 1 calls tools, but the chat template shows no"
    ):
        encode(TEMPLATES["ChatML"], answered(*turns))


def test_a_second_end_after_the_last_turn_is_not_trained(encode: Any) -> None:
    turns = (message("assistant", "One"), message("user", "?"), message("assistant", "Two"))
    (pieces,) = encode(PHI_3, answered(*turns))
    assert pieces[1:] == [("One<|end|>", True), ("\n<|user|>\n?<|end|>\n<|assistant|>\n", False), ("Two<|end|>", True)]


def test_a_template_that_shows_a_turn_twice_is_refused(encode: Any) -> None:
    twice = TEMPLATES["ChatML"].replace("m['content'] +", "m['content'] + (m['content'] if not loop.last else '') +")
    turns = (message("assistant", "One"), message("user", "?"), message("assistant", "Two"))
    with pytest.raises(
        DataError, match="record 'a', response 'r0': the chat template shows what an assistant says 2 times"
    ):
        encode(twice, answered(*turns))


def test_a_template_that_changes_an_answer_is_refused(encode: Any) -> None:
    changing = TEMPLATES["ChatML"].replace("m['content'] +", "(m['content'] | replace('Madrid', 'Rome')) +")
    with pytest.raises(DataError, match="does not show turn 1 of this response as written"):
        encode(changing, answered(message("assistant", "Madrid")))


def test_an_answer_that_the_template_shortens_is_trained_as_it_is_sampled(encode: Any) -> None:
    """An old template of R1 drops reasoning although its prompt opens none; what is sampled has it."""
    cut = DEEPSEEK_R1.replace("<think>\n' }}{% endif %}", "' }}{% endif %}")
    (pieces,) = encode(cut, answered(message("assistant", "<think>Hm.</think>Madrid")))
    assert scored(pieces) == ["<think>Hm.</think>Madrid<|im_end|>"]


def test_roles_that_alternate_and_no_generation_prompt(encode: Any) -> None:
    turns = (message("assistant", "One "), message("user", "?"), message("assistant", "inst"))
    (pieces,) = encode(LLAMA_2, answered(*turns))
    assert scored(pieces) == [" One <|im_end|>", " inst <|im_end|>"]
