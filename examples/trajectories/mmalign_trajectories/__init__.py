"""An mmalign plugin that is not about tokens: a Gaussian policy walks towards a goal in the plane.

Only names and import strings here: listing plugins must not import torch.
"""

from __future__ import annotations

from mmalign import ModalitySpec, ObjectiveSpec, RewardSpec, hookimpl

MMALIGN_API = 2


@hookimpl
def register_modalities() -> list[ModalitySpec]:
    """Announces the modality."""
    return [
        ModalitySpec(
            name="trajectory",
            summary="Paths in the plane from a Gaussian policy whose mean is a small network.",
            target="mmalign_trajectories.modality:TrajectoryModality",
            config="mmalign_trajectories.modality:TrajectoryConfig",
        )
    ]


@hookimpl
def register_rewards() -> list[RewardSpec]:
    """Announces the reward."""
    return [
        RewardSpec(
            name="reach",
            summary="Minus the distance from the path's last point to the goal.",
            target="mmalign_trajectories.reach:Reach",
            config="mmalign_trajectories.reach:ReachConfig",
        )
    ]


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Announces the objective."""
    return [
        ObjectiveSpec(
            name="exponential_po",
            summary="Preference optimisation with the exponential loss on the reference-normalised margin.",
            loss="mmalign_trajectories.exponential_po:exponential_po_loss",
            config="mmalign_trajectories.exponential_po:ExponentialPOConfig",
            per="pair",
            equation="exp(-beta * ((policy - reference)(chosen) - (policy - reference)(rejected)))",
            paper="Generalized Preference Optimization (arXiv:2402.05749)",
        )
    ]
