"""Asks every reward that costs nothing for the score of one response, before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.contract.modality import Modality
from mmalign.contract.values import Sample
from mmalign.data.records import Record, Response
from mmalign.errors import MmalignError, PluginError
from mmalign.foreign import describe_error, name_origin
from mmalign.rewards.global_state import preserved_state
from mmalign.rewards.scorer import BoundReward
from mmalign.rewards.scoring import score_each

_SLIPS = (AttributeError, ImportError, NameError, TypeError)
"""What a wrong program raises, whatever the response says."""


def try_rewards(rewards: Sequence[BoundReward], modality: Modality, record: Record) -> list[str]:
    """Scores a response to `record` with every reward that is not `costly`; lists what is wrong with them.

    The response is the record's first one, or made up where there is none; what a reward then says about its content
    does not count.
    """
    made_up = not record.responses
    response = Response.from_text("r0", "A short answer.") if made_up else record.responses[0]
    try:
        output = modality.decode(record.with_responses([response]), response)
        steps = None if made_up else modality.encode(record.with_responses([response]))[0].steps
    # What is made up need not be a response of this modality.
    except Exception:  # noqa: BLE001
        return []
    sample = Sample(record, response, output, steps)
    problems = (_try_reward(one, sample, made_up) for one in rewards if not one.reward.costly)
    return [problem for problem in problems if problem]


def _try_reward(bound: BoundReward, sample: Sample, made_up: bool) -> str:
    reward, name = bound.reward, str(bound.component.label or bound.component.name)
    who = f"reward {name!r} of {name_origin(reward)}"
    try:
        with preserved_state():
            (outcome,) = score_each(name, reward, [sample])
    except MmalignError as error:
        return str(error)
    if isinstance(outcome, Exception) and (not made_up or isinstance(outcome, _SLIPS)):
        told = describe_error(outcome, reward, outcome.__traceback__)
        return f"{who} failed on the first record ({sample.record.id!r}): {told}"
    return ""


def raise_all(problems: Sequence[str]) -> None:
    """Raises problems as one PluginError, if there are any."""
    if problems:
        raise PluginError("\n".join(problems))
