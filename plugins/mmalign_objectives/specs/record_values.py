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
            needs=("ratings",),
            stage="data",
            compute="mmalign_objectives.record_values:compute_rating_advantages",
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
            needs=("pairs",),
            stage="data",
            compute="mmalign_objectives.record_values:compute_preference_probabilities",
        ),
        QuantitySpec(
            name="ordered_pairs",
            summary="True for the responses of records that have pairs of different strength.",
            axes="N",
            needs=("pairs", "pair_strength", "prompt_index"),
            stage="data",
            compute="mmalign_objectives.mapl:mark_ordered_pairs",
        ),
        QuantitySpec(
            name="trace_pairs",
            summary="1 for pairs whose label has the context `trace`, 0 for `empty`.",
            axes="M",
            needs=("pairs",),
            stage="data",
            compute="mmalign_objectives.record_values:compute_trace_pairs",
        ),
    ]
