"""The few metrics of a run that are worth a look while it goes, whatever its objectives call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_HEADLINES: Sequence[Sequence[str]] = (
    ("reward",),
    ("loss",),
    ("kl", "forward_kl", "reverse_kl"),
    ("reward_accuracies", "accuracies", "reward_accuracy", "ranking_accuracy", "accuracy"),
    ("reward_margins", "margins", "margin", "reward_margin"),
    ("length", "lengths"),
)
"""What is shown, in this order: of every row the first name there is, with or without a prefix, `generation/kl`."""


def find_headlines(metrics: Mapping[str, float]) -> dict[str, float]:
    """Picks the metrics to show: reward, loss, KL, accuracy, margin, length, as far as there are such.

    >>> find_headlines({"grad_norm": 1.0, "loss": 0.5, "dpo/kl": 2.0, "dpo/loss": 0.4})
    {'loss': 0.5, 'dpo/kl': 2.0}
    """
    found = (_find(metrics, names) for names in _HEADLINES)
    return {name: metrics[name] for name in found if name is not None}


def format_headlines(metrics: Mapping[str, float]) -> str:
    """Writes the metrics to show in one line.

    >>> format_headlines({"loss": -6e-08, "reward": 0.25, "length": 12.0})
    'reward 0.25  loss -6e-08  length 12'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in find_headlines(metrics).items())


def _find(metrics: Mapping[str, float], names: Sequence[str]) -> str | None:
    for name in names:
        if name in metrics:
            return name
        # `reward/length` is the reward that is called length.
        prefixed = next((one for one in metrics if one.endswith(f"/{name}") and "reward/" not in one), None)
        if prefixed is not None:
            return prefixed
    return None
