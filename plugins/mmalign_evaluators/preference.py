"""Metrics of how the policy ranks the held-out preference pairs, and of what training has done to their likelihood.

`PreferenceEvaluator.evaluate` reads top to bottom. What is compared with the reference is compared with the start of
the run, unless the reference moves. The three likelihoods of `log_ratio/...` show what a margin does
not: that the chosen response falls with the rejected one, and that both fall in favour of neither.

Shapes: M pairs, N responses, T steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from mmalign import Batch, DataError, EvaluationContext, Evaluator, Parameters, masked_sum
from mmalign_evaluators.diagnostics import flip_thresholds, idealised_log_ratios, is_higher, rater_proportions

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS, _BAR = 16, 40


class PreferenceConfig(Parameters):
    """Diagnostics on held-out preference pairs."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward, usually that of the objective."""
    proportions: bool = False
    """The strength of a pair is the proportion of raters that prefer chosen; else all of them are taken to agree."""
    by: str | None = None
    """Also shows accuracies by this key of `meta` or, for `model`, by what produced the chosen response."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many held-out records; null takes all."""


@dataclass(frozen=True)
class Side:
    """The chosen or the rejected responses of all pairs: log-probs summed over steps, and steps; [M] float64 each."""

    policy: Tensor
    reference: Tensor
    lengths: Tensor

    @property
    def log_ratios(self) -> Tensor:
        """Log of policy over reference: [M]."""
        return self.policy - self.reference


class PreferenceEvaluator(Evaluator):
    """Scores the stored responses of the held-out records under policy and reference.

    Attributes:
        margins: implicit-reward margins [M] of the latest evaluation.
    """

    def __init__(
        self, beta: float = 0.1, proportions: bool = False, by: str | None = None, limit: int | None = None
    ) -> None:
        self.beta = beta
        self.proportions = proportions
        self.by = by
        self.limit = limit
        self.margins = torch.zeros(0)

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Scores and summarises; every metric is a mean over pairs unless it says otherwise.

        Returns:
            `ranking_accuracy` and `reward_accuracy`, with what bounds them; `margin/...`, quantiles of the
            implicit-reward margin; `log_ratio/...` of chosen, rejected and unpaired responses; `displaced`, the share
            of pairs whose margin grew while chosen fell; `kl`, the mean over responses of log(reference / policy),
            which estimates KL(reference, policy) on responses of the reference; `length/...`, in steps.

        Raises:
            DataError: the held-out records hold no preference pairs.
        """
        batch = context.backend.encode(context.records[: self.limit], targets_only=False)
        pairs = batch.quantities["pairs"].cpu()
        if not len(pairs):
            raise DataError("evaluator 'preference': the held-out records hold no preference pairs")
        mask = batch.quantities["step_mask"].cpu()
        policy = masked_sum(context.backend.policy_logps(batch.responses).cpu(), mask).double()
        reference = masked_sum(context.backend.score_with_reference(batch.responses, stored=True).cpu(), mask).double()
        lengths = batch.quantities["lengths"].cpu().double()
        chosen, rejected = (Side(policy[rows], reference[rows], lengths[rows]) for rows in pairs.T)
        strengths = batch.quantities["pair_strength"].cpu().double()
        preferred = rater_proportions(strengths) if self.proportions else torch.ones_like(strengths)
        self.margins = self.beta * (chosen.log_ratios - rejected.log_ratios)
        unpaired = torch.ones(len(batch), dtype=torch.bool).index_fill(0, pairs.flatten(), False)
        return {
            **_describe_ranking(chosen, rejected, preferred, self.beta),
            **_describe_margins(self.margins),
            **_describe_likelihoods(chosen, rejected, (policy - reference)[unpaired]),
            "kl": float((reference - policy).mean()),
            **_describe_sources(_name_sources(batch, self.by), chosen, rejected),
        }


def _describe_ranking(chosen: Side, rejected: Side, preferred: Tensor, beta: float) -> dict[str, float]:
    """Accuracies on sums and on means over steps, what an idealised policy would reach, and how far away that is."""
    per_step = [side.policy / side.lengths for side in (chosen, rejected)]
    reference_per_step = [side.reference / side.lengths for side in (chosen, rejected)]
    ideal = idealised_log_ratios(chosen.reference, rejected.reference, preferred, beta=beta)
    ideal_per_step = idealised_log_ratios(reference_per_step[0], reference_per_step[1], preferred, beta=beta)
    metrics = {
        "ranking_accuracy": is_higher(chosen.policy, rejected.policy),
        "ranking_accuracy_per_step": is_higher(*per_step),
        "reward_accuracy": is_higher(chosen.log_ratios, rejected.log_ratios),
        "idealised_accuracy": is_higher(ideal, torch.zeros_like(ideal)),
        "idealised_accuracy_per_step": is_higher(ideal_per_step, torch.zeros_like(ideal)),
        "idealised_log_ratio": ideal,
        "flip_threshold": flip_thresholds(chosen.reference, rejected.reference, beta=beta),
    }
    means = {name: float(values.mean()) for name, values in metrics.items()}
    gaps = {
        f"alignment_gap{form}": means[f"idealised_accuracy{form}"] - means[f"ranking_accuracy{form}"]
        for form in ("", "_per_step")
    }
    return means | gaps


def _describe_margins(margins: Tensor) -> dict[str, float]:
    values = margins.quantile(torch.tensor(QUANTILES, dtype=margins.dtype)).tolist()
    return {f"margin/p{round(100 * share):02d}": value for share, value in zip(QUANTILES, values, strict=True)}


def _describe_likelihoods(chosen: Side, rejected: Side, unpaired: Tensor) -> dict[str, float]:
    """Log-ratios [M] of chosen and rejected, those of responses in no pair, if there are any, and lengths."""
    displaced = (chosen.log_ratios < 0) & (chosen.log_ratios > rejected.log_ratios)
    metrics = {
        "log_ratio/chosen": chosen.log_ratios,
        "log_ratio/rejected": rejected.log_ratios,
        "displaced": displaced.double(),
        "length/chosen": chosen.lengths,
        "length/rejected": rejected.lengths,
    }
    if len(unpaired):
        metrics["log_ratio/unpaired"] = unpaired
    return {name: float(values.mean()) for name, values in metrics.items()}


def _describe_sources(sources: list[str], chosen: Side, rejected: Side) -> dict[str, float]:
    ranked = is_higher(chosen.policy, rejected.policy)
    rewarded = is_higher(chosen.log_ratios, rejected.log_ratios)
    metrics = {}
    for source in sorted(set(sources)):
        rows = torch.tensor([own == source for own in sources])
        metrics[f"ranking_accuracy/{source}"] = float(ranked[rows].mean())
        metrics[f"reward_accuracy/{source}"] = float(rewarded[rows].mean())
    return metrics


def _name_sources(batch: Batch, key: str | None) -> list[str]:
    """Names the source of every pair; empty without a key. A name goes into those of metrics, so it holds no space."""
    if key is None:
        return []
    responses = [(record, response) for record in batch.records for response in record.responses]
    chosen = [responses[row] for row in batch.quantities["pairs"][:, 0].tolist()]
    names = [response.model if key == "model" else record.metadata.get(key) for record, response in chosen]
    return [re.sub(r"\s+", "_", str(name)) if name is not None else "unknown" for name in names]


def render_histogram(values: Tensor, bins: int = _BINS) -> str:
    """Draws how often values [M] fall into each of `bins` equal intervals, as lines of text.

    >>> print(render_histogram(torch.tensor([0.0, 1.0, 1.0, 2.0]), bins=2))
      0.000 to 1.000  ############# 1
      1.000 to 2.000  ######################################## 3
    """
    low, high = float(values.min()), float(values.max())
    counts = torch.histc(values.double(), bins, low, high).long().tolist() if high > low else [len(values)]
    width = (high - low) / len(counts)
    return "\n".join(
        f"{low + place * width:7.3f} to {low + (place + 1) * width:.3f}  {'#' * (_BAR * count // max(counts))} {count}"
        for place, count in enumerate(counts)
    )


def render_report(metrics: Mapping[str, float], margins: Tensor) -> str:
    """Renders the latest evaluation as Markdown: all metrics, and the histogram of the margins [M]."""
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    table = "\n".join(["| metric | value |", "|---|---:|", *rows])
    return f"# Preference pairs\n\n{table}\n\n## Margins\n\n```text\n{render_histogram(margins)}\n```\n"
