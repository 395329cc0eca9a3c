"""Quantities with a module that is trained with the policy: planned, run, refused, and their learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.networks.policy import Policy
from mmalign.contract.forward_plan import ForwardPlan
import mmalign
from mmalign import ConfigError, EncodedResponse, Model, PlanError, QuantitySpec
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.training.optimisation import set_learning_rate
from mmalign.planning.providers import data_providers, plugin_provider
from mmalign.contract.quantities import plan_quantities
from mmalign.contract.provider import Provider
from mmalign.plugins.registry import load_registry

PLUGIN = '''
import torch
from torch import nn
from mmalign import ObjectiveSpec, QuantitySpec, hookimpl

class Gate(nn.Module):
    """A factor [N, T] of log-probs, from the lengths of responses and from the log-probs themselves."""

    def __init__(self, model):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, policy_logps, lengths):
        assert policy_logps.dtype == torch.float32 and lengths.dtype == torch.int64
        return self.scale * torch.ones_like(policy_logps) / lengths[:, None]

class Twice(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, gate):
        return 2 * gate + self.offset

def gated_loss(policy_logps, gate, twice):
    return -(gate + twice) * policy_logps + (gate - 1) ** 2, {"gate": gate.detach(), "twice": twice.detach()}

@hookimpl
def register_quantities():
    part = {"summary": ".", "axes": "NT"}
    return [
        QuantitySpec(name="gate", module="gate_plugin:Gate", **part),
        QuantitySpec(name="twice", module="gate_plugin:Twice", **part),
        QuantitySpec(name="late", module="gate_plugin:Twice", names={"gate": "policy_sequence_logps"}, **part),
        QuantitySpec(name="inside", module="gate_plugin:Twice", names={"gate": "policy_hidden"}, **part),
    ]

@hookimpl
def register_objectives():
    part = {"summary": ".", "loss": "gate_plugin:gated_loss", "per": "step"}
    return [
        ObjectiveSpec(name="gated", **part),
        *(ObjectiveSpec(name=f"needs_{name}", names={"twice": name}, **part) for name in ("late", "inside")),
    ]
'''


@pytest.fixture
def gated(tmp_path: Path, toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path]) -> Any:
    """Writes the configuration of a run on the toy modality with the plugin above."""
    file = tmp_path / "gate_plugin.py"
    file.write_text(PLUGIN)

    def write(name: str = "gated", **train: Any) -> Path:
        config = toy_config(objective={"name": name})
        config["plugins"].append(str(file))
        config["train"] |= train
        return write_config(config)

    return write


def test_modules_train_with_the_policy_on_any_modality(gated: Any) -> None:
    run = mmalign.train(gated())
    trained = run.trainable()
    assert {name for name in trained if name.startswith("heads")} == {"heads.gate.scale", "heads.twice.offset"}
    assert trained["heads.gate.scale"] != 1 and trained["heads.twice.offset"] != 0
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    # At the start the gate is 1 / length, and the second module sees the first.
    assert rows[0]["twice"] == pytest.approx(2 * rows[0]["gate"])
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_sampling_and_scoring_run_no_module(gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = mmalign.load_run(gated())
    for head in ("gate", "twice"):
        monkeypatch.setattr(run.policy.heads[head], "forward", lambda *inputs: pytest.fail("called"))
    records = [mmalign.Record.from_text("xx", ["0123"], id="a")]
    run.backend.policy_logps(run.backend.encode(records).responses)
    run.backend.generate(records, 2)


def test_what_is_computed_after_the_pass_is_refused(gated: Any) -> None:
    with pytest.raises(PlanError, match=r"'late' \(plugin gate_plugin\) is trained and needs 'policy_sequence_logps'"):
        mmalign.check(gated("needs_late"))


def test_a_modality_that_does_not_show_its_inside_is_refused(gated: Any) -> None:
    with pytest.raises(PlanError, match=r"'policy_hidden'.*a modality would have to provide 'hidden'"):
        mmalign.check(gated("needs_inside"))


def test_other_parameters_do_not_resume(tmp_path: Path, tiny_text_model: Path, toy_pairs: Path) -> None:
    config: dict[str, Any] = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(toy_pairs)}},
        "objective": {"name": "sparsepo_common"},
        "quantities": [{"name": "token_mask", "dropout": 0.0}],
        "train": {"steps": 1, "batch_size": 2},
        "output": str(tmp_path / "masks"),
    }
    mmalign.train(mmalign.RunConfig.model_validate(config))
    config["quantities"][0]["dropout"] = 0.5
    with pytest.raises(mmalign.CheckpointError, match=r"quantities\.dropout: 0\.0, now 0\.5"):
        mmalign.train(mmalign.RunConfig.model_validate(config), resume=True)


def test_heads_have_a_learning_rate_of_their_own(gated: Any) -> None:
    run = mmalign.load_run(gated(learning_rate=0.01, head_learning_rate=0.1))
    set_learning_rate(run.optimiser, 0.005)
    names = {id(value): name for name, value in run.trainable().items()}
    rates = {names[id(p)]: group["lr"] for group in run.optimiser.param_groups for p in group["params"]}
    assert rates == pytest.approx({"network.table": 0.005, "heads.gate.scale": 0.05, "heads.twice.offset": 0.05})


def test_a_frozen_quantity_may_feed_a_module() -> None:
    spec = QuantitySpec(name="mask", summary="", axes="NT", names={"input": "reference_layers"}, module="test_trained_quantities:build_linear")
    layers = Provider("reference_layers", "NTLD", "frozen")
    plan = plan_quantities({"me": ("mask",)}, {one.name: one for one in (*data_providers(), layers, provide(spec))})
    assert [one.name for one in plan.trained] == ["mask"]
    assert not plan.forward and plan.computed("policy") == ()


def provide(spec: QuantitySpec) -> Provider:
    return plugin_provider(spec, "plugin mine")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "has to name one of compute and module"),
        ({"compute": "a:b", "module": "a:b"}, "has to name one of compute and module"),
        ({"module": "a:b", "stage": "frozen"}, "has a module and stage 'frozen'"),
        ({"module": "a.b"}, "expected an import string"),
    ],
)
def test_a_wrong_spec_breaks_its_plugin(fields: dict[str, str], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(
        "import mmalign\n\n@mmalign.hookimpl\ndef register_quantities():\n"
        f"    return [mmalign.QuantitySpec(name='q', summary='.', axes='N', **{fields!r})]\n"
    )
    with pytest.raises((mmalign.PluginError, ConfigError), match=reason):
        load_registry(files=[file], strict=True)


def test_inputs_are_float32_under_autocast() -> None:
    class Doubles(mmalign.Modality):
        def step_outputs(self, policy, responses, plan, anchors=None):  # type: ignore[no-untyped-def]
            return {"hidden": torch.ones(1, 2, 2).bfloat16(), "step_mask": torch.ones(1, 2, dtype=torch.bool)}

        load = encode = step_log_probs = generate = decode = None  # type: ignore[assignment]

    spec = QuantitySpec(
        name="gate",
        summary="",
        axes="NT",
        names={"input": "policy_hidden"},
        module="test_trained_quantities:build_linear",
    )
    network = torch.nn.Identity()
    responses = [EncodedResponse({}, steps=2, size=2)]
    policy = Policy(Doubles(), Model(network), trained=[provide(spec)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = policy(responses, ForwardPlan.of("hidden"), known={})
    assert outputs["gate"].dtype == torch.float32
    assert "gate" not in policy(responses, ForwardPlan.of("hidden"))


def build_linear(model: Model) -> torch.nn.Module:
    return torch.nn.Linear(2, 2)
