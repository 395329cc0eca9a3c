"""What a modality can answer wrongly: refused by `check` where the modality is small, and where the answer comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmalign
from mmalign import PluginError

PLUGIN = """
import torch
from toy_plugin import Toy, ToyConfig
from mmalign import ModalitySpec, ObjectiveSpec, hookimpl

class Mine(Toy):
    def step_outputs(self, policy, responses, plan, anchors=None):
        logps, mask = self.step_log_probs(policy.network, responses)
        return {"logps": logps, "entropy": -logps, "step_mask": mask}

def mine_loss(policy_logps, entropy):
    return -policy_logps - entropy, {}

@hookimpl
def register_modalities():
    spec = {"target": "mine:Mine", "config": "toy_plugin:ToyConfig", "provides": ("logps", "entropy")}
    return [ModalitySpec(name="mine", summary=".", **spec)]

@hookimpl
def register_objectives():
    return [ObjectiveSpec(name="mine", summary=".", loss="mine:mine_loss", per="step")]
"""

ANSWER = 'return {"logps": logps, "entropy": -logps, "step_mask": mask}'
MISTAKES = {
    "another name": (
        ANSWER,
        'return {"logprobs": logps, "entropy": -logps, "step_mask": mask}',
        "modality Mine: its step_outputs has no 'logps', which was to be given; did you mean 'logprobs'",
    ),
    "an output that it does not give": (
        ANSWER,
        'return {"logps": logps, "step_mask": mask}',
        "modality Mine: its step_outputs has no 'entropy'",
    ),
    "an output that nothing could give": (
        "def step_outputs(",
        "def outputs_of_steps(",
        "modality Mine of mine.py announces 'entropy' in `provides`, but does not override step_outputs",
    ),
    "an output that there is none of": ('("logps", "entropy")', '("logps", "entropies")', "did you mean 'entropy'"),
    "another shape": (
        '"logps": logps,',
        '"logps": logps.sum(dim=1),',
        r"modality Mine: logps has shape \(4,\); expected \[N = 4, T = \d+\]",
    ),
    "half precision": (
        '"logps": logps,',
        '"logps": logps.bfloat16(),',
        r"modality Mine: logps is of torch\.bfloat16; expected torch\.float32",
    ),
    "a mask of numbers": (
        '"step_mask": mask',
        '"step_mask": mask.float()',
        "step_mask is of torch.float32; expected torch",
    ),
    "a mask that marks other steps": (
        '"step_mask": mask',
        '"step_mask": mask.roll(1, dims=1) & mask',
        r"step_mask marks the steps .* of a response of \d steps",
    ),
    "no mapping": (ANSWER, "return logps", "step_outputs returned Tensor; expected a mapping"),
    "an error": (
        ANSWER,
        "return logps['x']",
        r"modality Mine of mine.py failed: TypeError: .* \(.*mine.py, line 9, in step_outputs\)",
    ),
}


@pytest.fixture
def config(tmp_path: Path, toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path]) -> Any:
    """Writes the configuration of a run on the modality of the given source."""

    def write(source: str) -> Path:
        file = tmp_path / "mine.py"
        file.write_text(source)
        sections = toy_config(objective={"name": "mine"}, modality={"name": "mine"})
        sections["plugins"].append(str(file))
        return write_config(sections)

    return write


def test_the_modality_is_right_as_it_stands(config: Any) -> None:
    mmalign.check(config(PLUGIN))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(config: Any, mistake: str) -> None:
    right, wrong, message = MISTAKES[mistake]
    assert PLUGIN.count(right) == 1, "the row does not apply"
    with pytest.raises(PluginError, match=message) as caught:
        mmalign.check(config(PLUGIN.replace(right, wrong)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_modality_that_says_it_is_large_answers_for_itself_in_training(config: Any) -> None:
    large = "    def parameter_counts(self):\n        return 10**9, 10**9\n\n    def step_outputs("
    wrong = PLUGIN.replace("    def step_outputs(", large).replace('"logps": logps,', '"logps": logps.bfloat16(),')
    mmalign.check(config(wrong))
    with pytest.raises(PluginError, match=r"modality Mine: logps is of torch\.bfloat16"):
        mmalign.train(config(wrong))
