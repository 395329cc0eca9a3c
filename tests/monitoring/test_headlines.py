"""Which metrics of a run are shown while it goes."""

from __future__ import annotations

from mmalign.monitoring.headlines import find_headlines, format_headlines


def test_an_online_run_shows_more_than_its_loss() -> None:
    metrics = {"length": 12.0, "reward": 0.25, "reward/length": -1.0, "grpo/loss": 0.0, "loss": -6e-08}
    metrics |= {"kl_penalty/kl": 0.5, "grad_norm": 1.0}
    assert format_headlines(metrics) == "reward 0.25  loss -6e-08  kl_penalty/kl 0.5  length 12"


def test_preferences_show_accuracy_and_margin() -> None:
    metrics = {"loss": 0.6, "reward_margins": 0.2, "reward_accuracies": 0.75, "chosen_rewards": 0.1}
    assert list(find_headlines(metrics)) == ["loss", "reward_accuracies", "reward_margins"]


def test_held_out_metrics_have_the_prefix_of_their_evaluator() -> None:
    metrics = {
        "generation/reward": 1.0,
        "generation/reward/length": 2.0,
        "generation/kl": 3.0,
        "generation/length": 4.0,
    }
    assert list(find_headlines(metrics)) == ["generation/reward", "generation/kl", "generation/length"]


def test_nothing_known_is_nothing_shown() -> None:
    assert format_headlines({"grad_norm": 1.0}) == ""
