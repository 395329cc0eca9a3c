"""Prompts as a server gets them."""

from __future__ import annotations

from layout_rows import read_row

from mmalign import MediaLimits
from mmalign_engines.messages import chat_messages


def test_calls_and_their_answers_are_sent_as_servers_know_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"town": "Oslo"}'}}
    prompt = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3 C"},
    ]
    assert chat_messages(read_row({"prompt": prompt}, 0), MediaLimits()) == prompt
