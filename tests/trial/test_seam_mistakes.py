"""What an author can get wrong between a method and the engine: each mistake is refused by `check` with one message.

A plugin with an objective, an estimator, a quantity, a trained module and a reward is right as it stands; every row of
the table changes one thing in its source.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmalign
from mmalign import ConfigError, MmalignError, PlanError, PluginError

OBJECTIVE = '''
from mmalign import AdvantageSpec, ObjectiveSpec, Parameters, QuantitySpec, Reward, RewardSpec, hookimpl
import torch
from torch import nn

class MineConfig(Parameters):
    beta: float = 0.1
    """Slope."""

def mine_loss(policy_chosen_sequence_logps, policy_rejected_sequence_logps, closeness, gate, *, beta):
    margin = beta * (policy_chosen_sequence_logps - policy_rejected_sequence_logps) + closeness
    losses = torch.nn.functional.softplus(-margin) + 0.1 * gate.sum(dim=1).mean()
    return losses, {"margin": margin.detach()}

def compute_closeness(policy_chosen_mean_logps, policy_rejected_mean_logps):
    return policy_chosen_mean_logps - policy_rejected_mean_logps

class Gate(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, policy_logps, step_mask):
        return self.scale * torch.where(step_mask, policy_logps, 0)

@hookimpl
def register_quantities():
    return [
        QuantitySpec(name="closeness", summary=".", axes="M", compute="mine:compute_closeness"),
        QuantitySpec(name="gate", summary=".", axes="NT", module="mine:Gate"),
    ]

@hookimpl
def register_objectives():
    return [
        ObjectiveSpec(
            name="mine", summary=".", loss="mine:mine_loss", config="mine:MineConfig", per="pair",
        )
    ]
'''

SWAPPED = """per="pair", names={
    "policy_chosen_sequence_logps": "policy_rejected_sequence_logps",
    "policy_rejected_sequence_logps": "policy_chosen_sequence_logps",
},"""
OLD = '("policy_rejected_sequence_logps", "policy_chosen_sequence_logps", "closeness", "gate")'

MISTAKES: dict[str, tuple[str, str, type[MmalignError], str]] = {
    "chosen and rejected swapped": (
        'per="pair",',
        SWAPPED,
        PluginError,
        "the name of another parameter, which gets 'policy_chosen_sequence_logps'",
    ),
    "needs in another order, as API 1 had them": (
        'per="pair",',
        f'per="pair", needs={OLD},',
        PluginError,
        r"objective 'mine': since plugin API 2 the parameters before `\*` name the quantities; drop `needs` "
        r"and rename the parameters of mine_loss \(.*mine.py, line 10\), or give the spec names=\{.*\}",
    ),
    "one need too few, as API 1 had them": (
        'per="pair",',
        'per="pair", needs=("policy_chosen_sequence_logps",),',
        PluginError,
        "needs has 1 names, mine_loss .* takes policy_chosen_sequence_logps, policy_rejected_sequence_logps, closeness",
    ),
    "a parameter that is no quantity": (
        "closeness, gate, *, beta):",
        "closness, gate, *, beta):\n    closeness = closness",
        PlanError,
        "objective 'mine' needs the quantity 'closness', which nothing in this run supplies; did you mean 'closeness'",
    ),
    "names for a parameter that is not there": (
        'per="pair",',
        'per="pair", names={"chosen": "policy_chosen_mean_logps"},',
        PluginError,
        r"objective 'mine' \(plugin mine\): names\['chosen'\]: mine_loss .* has no such parameter",
    ),
    "bta for beta in the loss": (
        "gate, *, beta):",
        "gate, *, bta):\n    beta = bta",
        PluginError,
        r"objective 'mine' \(plugin mine\): its config has the parameter 'beta', which is no keyword of mine_loss "
        r"\(.*line 10\); did you mean 'bta'",
    ),
    "a keyword that no config gives": (
        "gate, *, beta):",
        "gate, *, beta, gamma):",
        PluginError,
        "has the keyword 'gamma', which its config does not give",
    ),
    "a parameter of the config before the star": (
        "gate, *, beta):",
        "gate, beta=0.1):",
        PluginError,
        "the parameter 'beta' of mine_loss .* has a default, so it is no quantity; write `\\*` before",
    ),
    "needs in a star": (
        "closeness, gate, *, beta):",
        "*rest, beta):\n    closeness, gate = rest",
        PluginError,
        r"takes \*rest; name every quantity",
    ),
    "a wrong axis": (
        'axes="M", compute',
        'axes="N", compute',
        PluginError,
        r"quantity 'closeness' of mine.py returned shape \(3,\); announced is \[N\] with N = 5",
    ),
    "an axis that there is none of": (
        'axes="M", compute',
        'axes="B", compute',
        PluginError,
        "axes of 'closeness' are 'B'",
    ),
    "an axis too many": (
        'axes="NT", module',
        'axes="N", module',
        PluginError,
        r"quantity 'gate' of mine.py returned shape \(5, 4\); announced is \[N\]",
    ),
    "a wrong per": (
        'per="pair"',
        'per="response"',
        PluginError,
        r"objective 'mine' of mine.py: its loss has shape \(3,\), but one element per response is \(5,\)",
    ),
    "a per that there is none of": (
        'per="pair"',
        'per="pairs"',
        PluginError,
        "per of 'mine' is 'pairs'; did you mean 'pair'",
    ),
    "a stage that there is none of": (
        'axes="M", compute',
        'axes="M", stage="policies", compute',
        PluginError,
        "stage of 'closeness' is 'policies'",
    ),
    "a loss that raises": (
        "    losses = torch",
        "    1 / 0\n    losses = torch",
        PluginError,
        r"objective 'mine' of mine.py failed: ZeroDivisionError: division by zero \(.*mine.py, line 12, in mine_loss\)",
    ),
    "no dictionary of metrics": (
        'return losses, {"margin": margin.detach()}',
        "return losses",
        PluginError,
        r"objective 'mine' of mine.py: its loss returned a tensor \(3,\) of torch.float32; expected \(losses",
    ),
    "a metric that is no tensor": (
        '{"margin": margin.detach()}',
        '{"margin": 3.0}',
        PluginError,
        "its metric 'margin' is float; expected a tensor",
    ),
    "a metric with a gradient": (
        "margin.detach()}",
        "margin}",
        PluginError,
        "its metric 'margin' carries a gradient; return margin.detach",
    ),
    "a metric of another shape": (
        "margin.detach()}",
        "margin.detach().mean()}",
        PluginError,
        r"its metric 'margin' has shape \(\)",
    ),
    "a mean where elements are expected": (
        "return losses,",
        "return losses.mean(),",
        PluginError,
        r"its loss has shape \(\), but one element per pair is \(3,\)",
    ),
    "a detached loss": ("return losses,", "return losses.detach(),", PluginError, "its loss has no gradient"),
    "a gradient of nothing": (
        "return losses,",
        "return 0 * losses,",
        PluginError,
        "no gradient reaches policy_chosen_sequence_logps, policy_rejected_sequence_logps, closeness, gate",
    ),
    "a dropped mask": (
        "torch.where(step_mask, policy_logps, 0)",
        "policy_logps",
        PluginError,
        "its loss is nan where all numbers of steps that count are finite; .* does it leave out what `step_mask`",
    ),
    "a quantity that is no tensor": (
        "return policy_chosen_mean_logps - policy_rejected_mean_logps",
        "return None",
        PluginError,
        "quantity 'closeness' of mine.py returned NoneType; expected a tensor",
    ),
    "a module that is built with other arguments": (
        "def __init__(self, model):",
        "def __init__(self, model, width):",
        PluginError,
        r"quantity 'gate' \(plugin mine\): .*__init__ .* has the keyword 'width', which its config does not give",
    ),
    "an import string to nowhere": (
        'loss="mine:mine_loss"',
        'loss="mine:mime_loss"',
        PluginError,
        "import string 'mine:mime_loss': 'mine' has no 'mime_loss'; did you mean 'mine_loss'",
    ),
}

Check = Callable[[str], Any]


@pytest.fixture
def check(tmp_path: Path, toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path]) -> Check:
    """Checks a run with the plugin of the given source."""

    def run(source: str, **sections: Any) -> Any:
        file = tmp_path / "mine.py"
        file.write_text(source)
        config = toy_config(objective={"name": "mine"}, **sections)
        config["plugins"].append(str(file))
        return mmalign.check(write_config(config))

    return run


def test_the_plugin_is_right_as_it_stands(check: Check) -> None:
    check(OBJECTIVE)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(check: Check, mistake: str) -> None:
    right, wrong, error, message = MISTAKES[mistake]
    assert OBJECTIVE.count(right) == 1, "the row does not apply"
    with pytest.raises(error, match=message) as caught:
        check(OBJECTIVE.replace(right, wrong))
    assert len(str(caught.value).splitlines()) == 1


def test_all_mistakes_of_all_components_are_reported_together(check: Check) -> None:
    sections = {"modality": {"name": "toy", "dropuot": 1}, "decoding": {"name": "sample", "max_step": 3}}
    with pytest.raises(ConfigError) as caught:
        check(OBJECTIVE.replace("gate, *, beta):", "gate, *, bta):\n    beta = bta"), **sections)
    told = str(caught.value)
    assert len(told.splitlines()) == 3
    assert all(part in told for part in ("dropuot", "max_step", "'bta'"))


def test_all_methods_are_tried_together(check: Check) -> None:
    wrong = OBJECTIVE.replace("- policy_rejected_mean_logps", "- None").replace('axes="NT", module', 'axes="N", module')
    with pytest.raises(PluginError) as caught:
        check(wrong)
    first, second = str(caught.value).splitlines()
    assert first.startswith("quantity 'closeness' of mine.py failed: TypeError: unsupported operand")
    assert second == "quantity 'gate' of mine.py returned shape (5, 4); announced is [N] with N = 5"
