"""Teachers: their quantities against longhand distributions, and what is said about those that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import mmalign
from mmalign import ConfigError, PlanError, build_tiny_text_model, load_run
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.contract.values import Anchor
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.toolkits.tokens.decoders import Decoder, DecoderOutput
from mmalign.toolkits.tokens.logps import score_steps
from mmalign.training.startup import open_data

ROWS = [
    {"prompt": "Say it.", "chosen": "good day", "rejected": "bad"},
    {"prompt": "Once more, please.", "chosen": "yes", "rejected": "no, never"},
]
PLUGIN = """
from mmalign import ObjectiveSpec, hookimpl

def loss(teacher_logps, teacher_reverse_kl, teacher_expected_logps, step_mask):
    return teacher_reverse_kl.where(step_mask, 0), {}

@hookimpl
def register_objectives():
    spec = {"loss": "%s:loss", "per": "step", "config": "mmalign_objectives.penalties.exact_kl:ExactKLConfig"}
    return [ObjectiveSpec(name="toy_distillation", summary="Reverse KL to a teacher.", **spec)]
"""

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path, tiny_text_model: Path) -> WriteRun:
    """Writes the configuration of a run on two pairs; keywords replace whole sections."""

    def write(**sections: Any) -> Path:
        data = tmp_path / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        base: dict[str, Any] = {
            "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
            "data": {"train": {"path": str(data)}},
            "objective": {"name": "dckd"},
            "train": {"steps": 2, "batch_size": 2, "learning_rate": 1e-2, "dtype": "float32"},
            "output": str(tmp_path / "run"),
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**base, **sections}))
        return path

    return write


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    """A model with the tokenizer of the tiny one and other, wider weights."""
    return build_tiny_text_model(tmp_path / "wider", hidden_size=48, layers=1, seed=3)


def teacher_of(model: Path) -> dict[str, Any]:
    return {"teacher": {"model": str(model)}}


def prepared(run: Any) -> tuple[Any, dict[str, Tensor]]:
    batch = run.backend.prepare(run.backend.encode(list(open_data(run.assembly, "train"))))
    return batch, run.backend.policy_values(batch)


def log_probs(network: nn.Module, batch: Any) -> list[tuple[Tensor, Tensor]]:
    """Log-probs [T, V] and tokens [T] of the scored steps of every response, from the network's own logits."""
    found = []
    for encoded in batch.responses:
        prompt, response = encoded.tensors["prompt_ids"], encoded.tensors["response_ids"]
        ids, mask = torch.cat([prompt, response])[None], encoded.tensors["response_mask"]
        logits = network(ids).logits[0].log_softmax(-1)
        found.append((logits[len(prompt) - 1 :][: len(response)][mask], response[mask]))
    return found


@pytest.mark.parametrize("packing", ["auto", "off"])
def test_quantities_of_a_teacher_are_those_of_whole_distributions(
    packing: str, write_run: WriteRun, wider: Path, tiny_text_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "toy_distillation.py"
    file.write_text(PLUGIN.replace("%s", "toy_distillation"))
    modality = {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}, "packing": packing}
    path = write_run(
        modality=modality, teachers=teacher_of(wider), plugins=[str(file)], objective={"name": "toy_distillation"}
    )
    run = load_run(path)
    run.assembly.modality.chunk_size = 3
    batch, values = prepared(run)
    students, teachers = (
        log_probs(network, batch) for network in (run.policy.network, run.backend.teachers["teacher"].policy.network)
    )
    for row, ((student, tokens), (teacher, _)) in enumerate(zip(students, teachers, strict=True)):
        steps = len(tokens)
        expected = {
            "teacher_logps": teacher.gather(1, tokens[:, None])[:, 0],
            "teacher_reverse_kl": (student.exp() * (student - teacher)).sum(-1),
            "teacher_expected_logps": (student.exp() * teacher).sum(-1),
        }
        for name, value in expected.items():
            torch.testing.assert_close(values[name][row, :steps], value, rtol=1e-4, atol=1e-5)


def test_a_run_learns_from_a_wider_teacher(write_run: WriteRun, wider: Path) -> None:
    path = write_run(teachers=teacher_of(wider), train={"steps": 20, "batch_size": 2, "learning_rate": 3e-2})
    run = mmalign.train(path)
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rows[-1]["chosen_kl"] < rows[0]["chosen_kl"]
    assert rows[-1]["rejected_kl"] < rows[0]["rejected_kl"]


def test_a_teacher_that_is_the_student_has_no_kl(write_run: WriteRun, tiny_text_model: Path) -> None:
    mmalign.train(write_run(teachers={"teacher": {}}))
    first, second = read_metrics(Path(write_run(teachers={"teacher": {}})).parent / "run")
    assert first["chosen_kl"] == pytest.approx(0, abs=1e-6) == first["rejected_kl"]
    assert second["chosen_kl"] > 1e-7


def test_a_teacher_is_not_trained_and_not_saved(write_run: WriteRun, wider: Path) -> None:
    run = mmalign.train(write_run(teachers=teacher_of(wider)))
    teacher = run.backend.teachers["teacher"].policy
    assert not any(value.requires_grad for value in teacher.parameters())
    assert not any("teacher" in name for name in run.tensors())


def test_run_json_has_the_fingerprint_of_every_teacher(write_run: WriteRun, wider: Path, tmp_path: Path) -> None:
    mmalign.train(write_run(teachers=teacher_of(wider)))
    first = json.loads((tmp_path / "run" / "run.json").read_text())["teachers"]
    other = build_tiny_text_model(tmp_path / "other", seed=4)
    mmalign.train(write_run(teachers=teacher_of(other), output=str(tmp_path / "second")))
    second = json.loads((tmp_path / "second" / "run.json").read_text())["teachers"]
    assert first.keys() == second.keys() == {"teacher"} and first != second


def test_check_counts_the_memory_of_teachers(write_run: WriteRun, wider: Path) -> None:
    with_teacher = mmalign.check(write_run(teachers=teacher_of(wider)))
    without = mmalign.check(write_run(objective={"name": "cpo"}))
    every, _ = with_teacher.assembly.teachers["teacher"].parameter_counts()
    assert with_teacher.memory - without.memory == every * 4


def test_a_wrong_teacher_is_refused(write_run: WriteRun, wider: Path, tmp_path: Path) -> None:
    def refusal(**sections: Any) -> str:
        with pytest.raises((ConfigError, PlanError)) as caught:
            mmalign.check(write_run(**sections))
        return str(caught.value)

    assert "add `teachers: {teacher: {model: ...}}`" in refusal()
    assert "'dpo_teacher' would be a frozen model" in refusal(objective={"name": "adpa"})
    assert "teachers.teacher: nothing in this run needs" in refusal(
        objective={"name": "dpo"}, teachers=teacher_of(wider)
    )
    assert "'policy' cannot name a teacher" in refusal(teachers={"policy": {}})
    assert "teachers.teacher.lora: a teacher is frozen" in refusal(teachers={"teacher": {"lora": {"rank": 2}}})
    assert "teachers.teacher.name" in refusal(teachers={"teacher": {"name": "text"}})
    assert "teachers.teacher.modl" in refusal(teachers={"teacher": {"modl": "x"}})
    missing = refusal(teachers=teacher_of(tmp_path / "nowhere"))
    assert "teachers.teacher" in missing and "nowhere" in missing


def test_a_teacher_with_another_vocabulary_is_refused(
    write_run: WriteRun, tiny_text_model: Path, tmp_path: Path
) -> None:
    other = build_tiny_text_model(tmp_path / "other", vocabulary=300)
    with pytest.raises(ConfigError, match=rf"teachers.teacher: the vocabulary of '{other}'.*'{tiny_text_model}'"):
        mmalign.check(write_run(teachers=teacher_of(other)))


def test_a_teacher_with_logits_of_another_width_is_refused(
    write_run: WriteRun, wider: Path, tiny_text_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(wider)
    network.resize_token_embeddings(network.config.vocab_size + 16)
    network.save_pretrained(wider)
    with pytest.raises(ConfigError, match=rf"'{wider}' has logits of width \d+, the policy '{tiny_text_model}' of \d+"):
        mmalign.check(write_run(teachers=teacher_of(wider)))


def test_log_probs_of_a_teacher_are_kept(write_run: WriteRun, wider: Path, tmp_path: Path) -> None:
    file = tmp_path / "toy_distillation.py"
    file.write_text(PLUGIN.replace("%s", "toy_distillation"))
    path = write_run(teachers=teacher_of(wider), plugins=[str(file)], objective={"name": "toy_distillation"})
    first, second = (mmalign.train(path, {"output": str(tmp_path / name)}) for name in ("one", "two"))
    assert first.backend.teacher_caches["teacher"].computed == 4
    assert second.backend.teacher_caches["teacher"].computed == 0
    assert second.backend.teacher_caches["teacher"].found == 8


class Identity(Decoder):
    """States are logits."""

    def run(self, inputs: Any, *, use_cache: bool = False) -> DecoderOutput:
        raise NotImplementedError

    def logits(self, states: Tensor) -> Tensor:
        return states

    def head_weights(self) -> tuple[Tensor, ...]:
        return ()

    plain_logits = logits


def test_several_anchors_are_compared_in_one_pass() -> None:
    """Policy (1/2, 1/2); one anchor (1/4, 3/4), the other the policy: KL(policy, one) = ln(2 / sqrt 3)."""
    states = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]).log()
    one = torch.tensor([[0.25, 0.75]] * 3).log()
    anchors = {"one": Anchor(one, lambda value: value), "other": Anchor(states, lambda value: value)}
    plan = ForwardPlan.of(one=["reverse_kl", "expected_logps"], other=["forward_kl"])
    outputs = score_steps(
        Identity(torch.nn.Identity()),
        states,
        torch.zeros(3, dtype=torch.long),
        plan,
        temperature=1.0,
        chunk=2,
        anchors=anchors,
    )
    assert outputs.keys() == set(plan.axes())
    torch.testing.assert_close(outputs["one_reverse_kl"], torch.full((3,), 2 / 3**0.5).log())
    torch.testing.assert_close(outputs["one_expected_logps"], torch.full((3,), (3 / 16) ** 0.5).log())
    torch.testing.assert_close(outputs["other_forward_kl"], torch.zeros(3))
