"""Quantities that are read from the fields of records. Imports no torch."""

from __future__ import annotations

from mmalign import QuantitySpec


def list_record_values() -> list[QuantitySpec]:
    """Lists the specs."""
    return [
        QuantitySpec(
            name="margin_rewards",
            summary="Named response-level scores, in the order of the names; NaN where one is missing.",
            config="mmalign_objectives.record_values:MarginRewardsConfig",
            axes="NK",
            stage="data",
            compute="mmalign_objectives.record_values:compute_margin_rewards",
        ),
        QuantitySpec(
            name="rating_advantages",
            summary="Rating less the value of the prompt; NaN where either is unknown.",
            config="mmalign_objectives.record_values:AdvantagesConfig",
            axes="N",
            stage="data",
            compute="mmalign_objectives.record_values:compute_rating_advantages",
            needs=("ratings",),
        ),
        QuantitySpec(
            name="win_probabilities",
            summary="Response-level score that says how likely a response beats one of the reference; NaN if missing.",
            config="mmalign_objectives.record_values:WinProbabilitiesConfig",
            axes="N",
            stage="data",
            compute="mmalign_objectives.record_values:compute_win_probabilities",
        ),
        QuantitySpec(
            name="visit_counts",
            summary="Visits of the tree node of a response; NaN where no node has its rid.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.record_values:compute_visit_counts",
        ),
        QuantitySpec(
            name="next_values",
            summary="Value V of the tree node of a response; NaN where no node has its rid.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.record_values:compute_next_values",
        ),
        QuantitySpec(
            name="preference_probabilities",
            summary="Share of a record's labels that agree with a pair, ties one half.",
            axes="M",
            stage="data",
            compute="mmalign_objectives.record_values:compute_preference_probabilities",
            needs=("pairs",),
        ),
        QuantitySpec(
            name="ordered_pairs",
            summary="True for the responses of records that have pairs of different strength.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.mapl:mark_ordered_pairs",
        ),
        QuantitySpec(
            name="trace_pairs",
            summary="1 for pairs whose label has the context `trace`, 0 for `empty`.",
            axes="M",
            stage="data",
            compute="mmalign_objectives.record_values:compute_trace_pairs",
            needs=("pairs",),
        ),
        QuantitySpec(
            name="removal_levels",
            summary="How much key content a version of a response lacks, as a level; NaN where unknown.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.record_values:compute_removal_levels",
        ),
        QuantitySpec(
            name="label_smoothing",
            summary="Probability that the label of a chosen response is wrong; NaN where unknown.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.record_values:compute_label_smoothing",
        ),
    ]
