"""A plugin of five kinds: an objective, a reward, an advantage, a transform, an evaluator."""

from pydantic import Field

import mmalign
from mmalign import (
    AdvantageSpec,
    Evaluator,
    EvaluatorSpec,
    ObjectiveSpec,
    Parameters,
    Reward,
    RewardSpec,
    Transform,
    TransformSpec,
)


class MarginConfig(Parameters):
    margin: float = Field(default=1.0, ge=0)
    """Nats per step by which the chosen response has to be ahead."""


def margin_loss(policy_chosen_mean_logps, policy_rejected_mean_logps, *, margin):
    return (margin - (policy_chosen_mean_logps - policy_rejected_mean_logps)).clamp(min=0), {}


def doubled(rewards):
    return 2 * rewards.sum(dim=-1)


class Vowels(Reward):
    def score(self, samples):
        return [sum(sample.output.count(vowel) for vowel in "aeiou") / max(1, len(sample.output)) for sample in samples]


class OnlyAsked(Transform):
    def apply(self, records):
        yield from (record for record in records if "?" in record.prompt_text)


class Counted(Evaluator):
    def evaluate(self, context):
        return {"held_out": float(len(context.records))}


@mmalign.hookimpl
def register_objectives():
    loss, config = "five_kinds:margin_loss", "five_kinds:MarginConfig"
    return [ObjectiveSpec(name="margin", summary="A hinge on mean log-probs.", loss=loss, config=config, per="pair")]


@mmalign.hookimpl
def register_rewards():
    return [RewardSpec(name="vowels", summary="The share of vowels.", target="five_kinds:Vowels")]


@mmalign.hookimpl
def register_advantages():
    return [AdvantageSpec(name="doubled", summary="Twice the reward.", function="five_kinds:doubled")]


@mmalign.hookimpl
def register_transforms():
    return [TransformSpec(name="only_asked", summary="Keeps questions.", target="five_kinds:OnlyAsked")]


@mmalign.hookimpl
def register_evaluators():
    return [EvaluatorSpec(name="counted", summary="How many records are held out.", target="five_kinds:Counted")]
