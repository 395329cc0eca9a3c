"""Quantities that many objectives need together."""

SUMS = ("policy_chosen_sequence_logps", "policy_rejected_sequence_logps")
MEANS = ("policy_chosen_mean_logps", "policy_rejected_mean_logps")
REFERENCE_SUMS = ("reference_chosen_sequence_logps", "reference_rejected_sequence_logps")
REFERENCE_MEANS = ("reference_chosen_mean_logps", "reference_rejected_mean_logps")
