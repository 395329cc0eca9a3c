"""Pairs that are scored with a further response: a gold one, an explanation, revisions. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec, QuantitySpec


def list_accompanied_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="tpo_triple",
            summary="Triple preference optimisation: contrasts two responses and imitates a gold one.",
            loss="mmalign_objectives.tpo_triple:tpo_triple_loss",
            config="mmalign_objectives.tpo_triple:TPOTripleConfig",
            per="pair",
            over="gold_row",
            equation="-logsigmoid(beta (pc - pr)) - gold_weight pg / lg",
            paper="Triple Preference Optimization (arXiv:2405.16681)",
        ),
        ObjectiveSpec(
            name="tpo_triple_l",
            summary="TPO-L: SimPO that imitates a gold response.",
            loss="mmalign_objectives.tpo_triple:tpo_triple_l_loss",
            config="mmalign_objectives.tpo_triple:TPOTripleLConfig",
            per="pair",
            over="gold_row",
            equation="-logsigmoid(beta (pc / lc - pr / lr) - gamma) - gold_weight pg / lg",
            paper="Triple Preference Optimization (arXiv:2405.16681)",
        ),
        ObjectiveSpec(
            name="rationale_dpo",
            summary="DPO that also learns the explanation of every preference.",
            loss="mmalign_objectives.rationale_dpo:rationale_dpo_loss",
            config="mmalign_objectives.rationale_dpo:RationaleDPOConfig",
            per="pair",
            over="rationale_row",
            equation="-logsigmoid(beta ((pc - rc) - (pr - rr))) - gamma p_why; bounded: - logsigmoid(gamma p_why)",
            paper="Data-Centric Human Preference Optimization with Rationales (arXiv:2407.14477)",
        ),
        ObjectiveSpec(
            name="rationale_orpo",
            summary="ORPO that also learns the explanation of every preference.",
            loss="mmalign_objectives.rationale_dpo:rationale_orpo_loss",
            config="mmalign_objectives.rationale_dpo:RationaleORPOConfig",
            per="pair",
            over="rationale_row",
            # The odds are those of a probability, which a bound on a log-prob is not.
            log_prob_kinds=("exact",),
            equation="-pc / lc - odds_weight logsigmoid(log odds ratio) - gamma p_why",
            paper="Data-Centric Human Preference Optimization with Rationales (arXiv:2407.14477)",
        ),
        ObjectiveSpec(
            name="rationale",
            summary="Likelihood of the explanation of every preference alone, to be added to any objective on pairs.",
            loss="mmalign_objectives.rationale_dpo:rationale_loss",
            config="mmalign_objectives.rationale_dpo:RationaleConfig",
            per="pair",
            over="rationale_row",
            equation="-gamma p_why; bounded: -logsigmoid(gamma p_why)",
            paper="Data-Centric Human Preference Optimization with Rationales (arXiv:2407.14477)",
        ),
        ObjectiveSpec(
            name="srpo",
            summary="Learns to answer and to improve on an answer: squared residuals of the optimum of both.",
            loss="mmalign_objectives.srpo:srpo_loss",
            config="mmalign_objectives.srpo:SRPOConfig",
            per="pair",
            over="rejected_to_chosen_row",
            equation="(1 - w) (1/2 - beta / 2 (l(c|r) - l(r|c) + l(c) - l(r)))^2 + w (1/2 - beta (l(c|r) - l(r|r)))^2 "
            "+ w (1/2 + beta (l(r|c) - l(c|c)))^2, l = log(policy / reference)",
            paper="Self-Improving Robust Preference Optimization (arXiv:2406.01660)",
        ),
    ]


def list_companions() -> list[QuantitySpec]:
    """Lists the roles that further responses play."""
    return [
        QuantitySpec(
            name="gold_row",
            summary="The response to the same prompt that a `unary` label praises most, else the best rated.",
            axes="MI",
            stage="companion",
            compute="mmalign_objectives.companion_rows:find_gold",
        ),
        QuantitySpec(
            name="rationale_row",
            summary="The note of kind `rationale` about a pair, as the answer to the question why.",
            config="mmalign_objectives.companion_rows:RationaleConfig",
            axes="MI",
            stage="companion",
            compute="mmalign_objectives.companion_rows:build_rationale",
        ),
        QuantitySpec(
            name="rejected_to_chosen_row",
            summary="The chosen response as a revision of the rejected one.",
            config="mmalign_objectives.companion_rows:RevisionConfig",
            axes="MI",
            stage="companion",
            compute="mmalign_objectives.companion_rows:revise_rejected_into_chosen",
        ),
        QuantitySpec(
            name="chosen_to_rejected_row",
            summary="The rejected response as a revision of the chosen one.",
            config="mmalign_objectives.companion_rows:RevisionConfig",
            axes="MI",
            stage="companion",
            compute="mmalign_objectives.companion_rows:revise_chosen_into_rejected",
        ),
        QuantitySpec(
            name="chosen_to_chosen_row",
            summary="The chosen response as a revision of itself.",
            config="mmalign_objectives.companion_rows:RevisionConfig",
            axes="MI",
            stage="companion",
            compute="mmalign_objectives.companion_rows:revise_chosen_into_itself",
        ),
        QuantitySpec(
            name="rejected_to_rejected_row",
            summary="The rejected response as a revision of itself.",
            config="mmalign_objectives.companion_rows:RevisionConfig",
            axes="MI",
            stage="companion",
            compute="mmalign_objectives.companion_rows:revise_rejected_into_itself",
        ),
    ]
