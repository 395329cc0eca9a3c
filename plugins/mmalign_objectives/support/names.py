"""Which log-probs a loss gets that is written for sums and used on means, or the other way round."""

_SIDES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")

MEANS_FOR_SUMS = {f"{side}_sequence_logps": f"{side}_mean_logps" for side in _SIDES}
SUMS_FOR_MEANS = {mean: total for total, mean in MEANS_FOR_SUMS.items()}
