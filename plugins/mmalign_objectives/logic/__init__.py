"""The logic of losses on pairs: a loss as the semantic loss of a formula about what the model produces. No torch here.

Read in this order: `formulas` (propositions and their combinations), `counting` (weighted model counting),
`structures` (from formulas to losses, named instances, comparison), `enumeration` (all losses over a few propositions).
"""

from mmalign_objectives.logic.counting import weighted_count
from mmalign_objectives.logic.enumeration import count_structures, iter_structures
from mmalign_objectives.logic.formulas import FALSE, TRUE, Formula, Proposition, entails
from mmalign_objectives.logic.structures import INSTANCES, PreferenceStructure, compare

__all__ = [
    "FALSE",
    "INSTANCES",
    "TRUE",
    "Formula",
    "PreferenceStructure",
    "Proposition",
    "compare",
    "count_structures",
    "entails",
    "iter_structures",
    "weighted_count",
]
