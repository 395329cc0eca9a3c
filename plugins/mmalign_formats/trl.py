"""The columns that TRL's trainers read; `trl_export` is the way back.

    prompt, chosen, rejected          preference, the prompt explicit; strings or chat messages
    chosen, rejected                  preference, the prompt implicit: it is what both begin with
    prompt, completion                supervised
    prompt, completion, label         unpaired: the label is true for a desirable completion
    prompt, completions, labels       stepwise: a label for each step
    messages                          supervised: all assistant turns are trained on
    prompt                            prompts to sample from

`images` (or `image`) fill the image placeholders in order: parts of type image, or the word `<image>` in a text that is
not the assistant's. `tools` and `chat_template_kwargs` are for the chat template, `system` is the first message, and
`margin` is the strength of the pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmalign import DataError, Layout, Parameters, Record
from mmalign_formats.drafts import Draft, pair, read_flag, read_number, read_text, verdict
from mmalign_formats.media import Turn
from mmalign_formats.rows import CONVERSATION
from mmalign_formats.trl_export import TrlForm, write_trl
from mmalign_formats.turns import add_system, join_prompt, read_turns, split_conversations, split_messages

STEPS = frozenset({"tree"} | {f"tree.{name}" for name in ("nid", "parent", "content", "Q", "terminal", "rid")})
"""What stepwise rows hold of a tree."""
_SIDES = ("chosen", "rejected")


class TrlConfig(Parameters):
    """What is written of a record; nothing to set for reading."""

    form: TrlForm | None = None
    """Rows to write; default: preference where there is a comparison, unpaired where there are verdicts, stepwise where
    steps are judged, else completion or prompt."""
    view: str | None = None
    """Of a dialogue of several agents, the one who is trained: the others' turns become a user's."""


@dataclass
class Trl(Layout):
    """Reads and writes TRL's rows."""

    form: TrlForm | None
    view: str | None
    holds = (CONVERSATION - {"prompt.name", "responses.messages.name"}) | {"labels", "labels.strength"} | STEPS

    def recognise(self, columns: Mapping[str, Any], strength: int) -> int:
        """Leaves conversations without a prompt to the layout of OpenAI, which reads them alike."""
        alone = not any(name in columns for name in ("prompt", *_SIDES))
        return 0 if alone and "messages" in columns else strength

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of whatever form the columns tell."""
        if "completions" in columns and "labels" in columns:
            return _read_steps(columns, name)
        draft = _read_draft(columns)
        draft.prompt = add_system(draft.prompt, columns.get("system"))
        return draft.finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns the rows of one form."""
        return write_trl(record, self.form, view=self.view)


def _read_draft(columns: Mapping[str, Any]) -> Draft:
    if any(side in columns for side in _SIDES):
        prompt, sides = _read_preference(columns)
        return Draft(prompt, sides, labels=pair(read_number(columns, "margin") if "margin" in columns else None))
    if "completion" in columns:
        completion = read_turns(columns["completion"], "completion", "assistant")
        prompt, (response,) = join_prompt(_read_prompt(columns), {"completion": completion})
        return Draft(prompt, [response], labels=verdict(read_flag(columns, "label")) if "label" in columns else [])
    if "messages" in columns:
        prompt, response = split_messages(read_turns(columns["messages"], "messages"))
        return Draft(prompt, [response])
    if "prompt" not in columns:
        raise DataError("text: a text without a prompt has no place in a record; expected 'prompt' and 'completion'")
    return Draft(_read_prompt(columns))


def _read_prompt(columns: Mapping[str, Any]) -> list[Turn]:
    return read_turns(columns["prompt"], "prompt", "user")


def _read_preference(columns: Mapping[str, Any]) -> tuple[list[Turn], list[list[Turn]]]:
    for name, other in (_SIDES, _SIDES[::-1]):
        if name not in columns:
            raise DataError(f"{name}: missing beside {other!r}")
    if isinstance(columns["chosen"], str) != isinstance(columns["rejected"], str):
        raise DataError("chosen: expected two strings or two lists of messages as 'chosen' and 'rejected'")
    if "prompt" not in columns and isinstance(columns["chosen"], str):
        return _split_strings(columns["chosen"], columns["rejected"])
    sides = {side: read_turns(columns[side], side, "assistant") for side in _SIDES}
    return join_prompt(_read_prompt(columns), sides) if "prompt" in columns else split_conversations(sides)


def _split_strings(chosen: str, rejected: str) -> tuple[list[Turn], list[list[Turn]]]:
    shorter = min(len(chosen), len(rejected))
    shared = next((place for place in range(shorter) if chosen[place] != rejected[place]), shorter)
    # A prompt ends between words: " red" and " white" keep their space, "red" and "read" are not cut.
    while shared > 0 and not chosen[shared - 1].isspace():
        shared -= 1
    prompt = chosen[:shared].rstrip()
    if not prompt or not chosen[shared:] or not rejected[shared:]:
        raise DataError("prompt: missing, and 'chosen' and 'rejected' do not begin with a common one; add the column")
    sides = [[{"role": "assistant", "content": text[len(prompt) :]}] for text in (chosen, rejected)]
    return [{"role": "user", "content": prompt}], sides


def _read_steps(columns: Mapping[str, Any], name: str) -> Record:
    """Reads a response in steps as a path in a tree, whose nodes are good by the sign of Q."""
    steps, labels = columns["completions"], columns["labels"]
    if not isinstance(steps, list | tuple) or not steps or not all(isinstance(step, str) for step in steps):
        raise DataError("completions: expected a list of strings, one a step")
    if not isinstance(labels, list | tuple) or len(labels) != len(steps):
        raise DataError(f"labels: expected a list of {len(steps)}, true or false for each of 'completions'")
    verdicts = [read_flag({"labels": label}, "labels") for label in labels]
    # The steps of a response make up its text; TRL joins them by line breaks.
    texts = [f"{step}\n" for step in steps[:-1]] + [steps[-1]]
    tree: list[Turn] = [{"nid": "n0"}]
    for number, (text, good) in enumerate(zip(texts, verdicts, strict=True), start=1):
        content = [{"type": "text", "text": text}]
        tree.append({"nid": f"n{number}", "parent": f"n{number - 1}", "content": content, "Q": 1.0 if good else -1.0})
    tree[-1] |= {"terminal": True, "rid": "r0"}
    prompt = add_system([{"role": "user", "content": read_text(columns, "prompt")}], columns.get("system"))
    return Draft(prompt, [[{"role": "assistant", "content": "".join(texts)}]], tree=tree).finish(columns, name)
