"""First-party objectives: what there is, without importing torch. The losses are in the modules of the same names."""

from __future__ import annotations

from mmalign import ConformanceSpec, ObjectiveSpec, QuantitySpec, hookimpl
from mmalign_objectives.conformance_index import list_conformance
from mmalign_objectives.specs.accompanied_pairs import list_accompanied_pairs, list_companions
from mmalign_objectives.specs.anchored_pairs import list_anchored_pairs
from mmalign_objectives.specs.coupled import list_coupled, list_coupled_quantities
from mmalign_objectives.specs.diffusion import list_diffusion, list_diffusion_quantities
from mmalign_objectives.specs.distillation import list_distillation
from mmalign_objectives.specs.graded_pairs import list_graded_pairs
from mmalign_objectives.specs.heads import list_head_objectives, list_head_quantities
from mmalign_objectives.specs.hybrid import list_hybrid, list_hybrid_quantities
from mmalign_objectives.specs.lists import list_list_quantities, list_lists
from mmalign_objectives.specs.margin_pairs import list_margin_pairs
from mmalign_objectives.specs.penalties import list_penalties
from mmalign_objectives.specs.policy_gradients import list_policy_gradients
from mmalign_objectives.specs.record_values import list_record_values
from mmalign_objectives.specs.reference_free_pairs import list_reference_free_pairs
from mmalign_objectives.specs.reference_pairs import list_reference_pairs
from mmalign_objectives.specs.supervised import list_supervised
from mmalign_objectives.specs.token_pairs import list_token_masks, list_token_pairs
from mmalign_objectives.specs.unpaired import list_unpaired
from mmalign_objectives.specs.weighted_responses import list_weighted_responses


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Announces the objectives."""
    return [
        *list_supervised(),
        *list_reference_pairs(),
        *list_margin_pairs(),
        *list_anchored_pairs(),
        *list_graded_pairs(),
        *list_accompanied_pairs(),
        *list_reference_free_pairs(),
        *list_unpaired(),
        *list_weighted_responses(),
        *list_lists(),
        *list_coupled(),
        *list_diffusion(),
        *list_policy_gradients(),
        *list_penalties(),
        *list_distillation(),
        *list_token_pairs(),
        *list_head_objectives(),
        *list_hybrid(),
    ]


@hookimpl
def register_quantities() -> list[QuantitySpec]:
    """Announces what these objectives need beside the quantities of the contract."""
    return [
        QuantitySpec(
            name="kl_reference_point",
            summary="Estimate of KL(policy, reference) from responses under other prompts, at least 0.",
            axes="",
            stage="step",
            compute="mmalign_objectives.kto:estimate_kl_reference_point",
            needs=("reference_logps",),
            min_prompts=2,
            paper="KTO: Model Alignment as Prospect Theoretic Optimization (arXiv:2402.01306)",
        ),
        *list_record_values(),
        *list_companions(),
        *list_list_quantities(),
        *list_coupled_quantities(),
        *list_diffusion_quantities(),
        *list_token_masks(),
        *list_head_quantities(),
        *list_hybrid_quantities(),
    ]


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors these objectives can compute."""
    return list_conformance()
