"""Records with feedback from the policy's own samples: sampled responses, their scores, best-against-worst pairs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import torch

from mmalign.contract.components import Collector
from mmalign.contract.values import Rollout
from mmalign.data.records import Label, Record, Response, Score
from mmalign.media.outputs import output_bytes
from mmalign.rewards.scorer import decode_generated
from mmalign.run import Run

logger = logging.getLogger(__name__)


class Sampled(NamedTuple):
    """A record of sampled responses, and by rid what people see of them: texts, images."""

    record: Record
    outputs: Mapping[str, Any]


def sample_records(run: Run, prompts: Sequence[Record], **options: Any) -> Iterator[Record]:
    """Samples as `sample_outputs` does, with its options; yields the records alone."""
    return (sampled.record for sampled in sample_outputs(run, prompts, **options))


def sample_outputs(
    run: Run,
    prompts: Sequence[Record],
    *,
    count: int,
    pairs: int = 0,
    chunk: int = 8,
    collector: Collector | None = None,
) -> Iterator[Sampled]:
    """Samples `count` responses to every prompt and scores them with the run's rewards, if it has any.

    Args:
        collector: samples instead; `count` then says nothing.
        pairs: preference pairs a prompt, the best response against the worst, the second best against the second
            worst and so on; a pair of equal rewards or equal outputs is left out, and so are unpaired responses
            and records without a pair.
        chunk: prompts sampled together.

    Raises:
        TrainingError: pairs are wanted, but no rewards are configured.
    """
    backend = run.backend
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        rollouts = _sample(run, part, count) if collector is None else collector.collect(part, backend.generate)
        if not (backend.reward_names or pairs):
            yield from (_describe(run, rollout) for rollout in rollouts)
            continue
        rewards = backend.score_rollouts(rollouts)
        sizes = [len(rollout.responses) for rollout in rollouts]
        composite, components = torch.split(backend.compose(rewards), sizes), torch.split(rewards, sizes)
        for rollout, own, rows in zip(rollouts, composite, components, strict=True):
            (record, outputs), totals = _describe(run, rollout), own.tolist()
            scores = _build_scores(record, totals, rows.tolist(), backend.reward_names)
            labels = _build_pairs(record, list(outputs.values()), totals, pairs)
            record = record.model_copy(update={"scores": scores, "labels": labels})
            if labels:
                yield Sampled(_keep_paired(record), outputs)
            elif pairs:
                logger.warning("%s: all responses scored alike, so there is no pair; left out", record.id)
            else:
                yield Sampled(record, outputs)


def _sample(run: Run, prompts: Sequence[Record], count: int) -> list[Rollout]:
    groups = run.backend.generate(prompts, count)
    return [Rollout.build(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]


def _describe(run: Run, rollout: Rollout) -> Sampled:
    """Notes on every response what produced it."""
    decoding = run.assembly.decoding
    params = json.dumps({"temperature": decoding.temperature, "max_steps": decoding.max_steps})
    update: dict[str, Any] = {"model": run.model.name or None, "params": params}
    record = rollout.record.with_responses([one.response.model_copy(update=update) for one in rollout.responses])
    decode = run.assembly.modality.decode
    return Sampled(record, {one.response.rid: decode_generated(record, one, decode) for one in rollout.responses})


def _build_scores(
    record: Record, totals: Sequence[float], rows: Sequence[Sequence[float]], names: Sequence[str]
) -> tuple[Score, ...]:
    columns = {"reward": totals, **{name: [row[index] for row in rows] for index, name in enumerate(names)}}
    return tuple(
        Score(item=response.rid, name=name, level="response", value=round(value, 4))
        for name, values in columns.items()
        for response, value in zip(record.responses, values, strict=True)
        if not isnan(value)
    )


def _build_pairs(record: Record, outputs: Sequence[Any], rewards: Sequence[float], count: int) -> tuple[Label, ...]:
    ranked = sorted((row for row, reward in enumerate(rewards) if not isnan(reward)), key=lambda row: -rewards[row])
    matches = list(zip(ranked, reversed(ranked), strict=True))[: min(count, len(ranked) // 2)]
    responses = record.responses
    return tuple(
        Label(
            kind="pair",
            order=((responses[best].rid,), (responses[worst].rid,)),
            strength=round(rewards[best] - rewards[worst], 4),
            annotator="rule:reward",
        )
        for best, worst in matches
        if rewards[best] > rewards[worst]
        if _content(responses[best], outputs[best]) != _content(responses[worst], outputs[worst])
    )


def _content(response: Response, output: Any) -> Any:
    """What two responses must differ in to be preferred to each other."""
    content = output_bytes(output)
    return response.text if content is None else content


def _keep_paired(record: Record) -> Record:
    paired = {rid for label in record.labels for group in label.order for rid in group}
    responses = tuple(response for response in record.responses if response.rid in paired)
    scores = tuple(score for score in record.scores if score.item in paired)
    return record.model_copy(update={"responses": responses, "scores": scores})
