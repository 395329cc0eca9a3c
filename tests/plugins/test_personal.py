"""Users as a condition: the branch by hand, who a record is for, and opposite preferences in one model (PPD)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from image_records import write_image_pairs
from safetensors.torch import load_file
from torch import Tensor

import mmalign
from mmalign import ConfigError, DataError, Record, RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.run import Run
from mmalign_diffusion.families.personal import Personal
from mmalign_diffusion.testing_pipelines import build_tiny_pipeline

TIMESTEPS = {"strategy": "range", "range": [200, 600], "draws": 8}
CUSTOM = {"name": "custom", "target": "personal_denoiser:build"}


def family(**settings: Any) -> Personal:
    return Personal(None, None, base=CUSTOM, **{"users": ("ann", "ben"), **settings})


def record_of(user: str | None = None, meta: dict[str, Any] | None = None, count: int = 0) -> Record:
    """A record with two images of numbers, the first preferred."""
    images = [json.dumps((torch.full((1, 8, 8), value)).tolist()) for value in (0.8, -0.8)]
    order = [["r0"], ["r1"]] if user != "ben" else [["r1"], ["r0"]]
    row = {
        **Record.from_text("p" * (1 + count % 3), images, id=f"{user}{count}").to_dict(),
        "meta": json.dumps(meta or {}),
    }
    row["labels"] = [{"kind": "pair", "order": order, "user": user}]
    return Record.from_dict(row)


@pytest.fixture
def opposite(tmp_path: Path) -> Path:
    """The same pairs, of which two users prefer the opposite."""
    rows = [record_of(user, count=count).to_json() for count in range(8) for user in ("ann", "ben")]
    path = tmp_path / "opposite.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def config_of(data: Path, output: Path, drop_user: float = 0.1, **sections: Any) -> RunConfig:
    settings = {"name": "personal", "base": CUSTOM, "users": ["ann", "ben"], "drop_user": drop_user}
    config = {
        "modality": {
            "name": "diffusion",
            "family": settings,
            "timesteps": TIMESTEPS,
            "drop_condition": 0.0,
        },
        "data": {"train": {"path": str(data)}, "eval": {"path": str(data)}},
        "objective": {"name": "ppd", "beta": 400.0},
        "train": {"steps": 40, "batch_size": 16, "learning_rate": 2e-2, "schedule": "cosine"},
        "output": str(output),
    }
    return RunConfig.model_validate(config | sections)


# -- the branch


def predict(own: Personal, network: Any, user: Tensor) -> Tensor:
    condition = {**own.collate([own.embed([own.tokenise(record_of())])[0]]), "user": user}
    with torch.no_grad():
        return own.predict(network, noisy(), torch.tensor([300]), condition)


def noisy() -> Tensor:
    return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def load(own: Personal) -> Any:
    torch.manual_seed(0)
    return own.load(device=torch.device("cpu"), dtype=torch.float32).eval()


def test_a_fresh_branch_nobody_and_a_branch_switched_off_change_nothing() -> None:
    own = family()
    network = load(own)
    ann, nobody = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    with torch.no_grad():
        condition = own.base.collate([own.base.tokenise(record_of())])
        base = own.base.predict(network.base, noisy(), torch.tensor([300]), condition)
    assert torch.equal(predict(own, network, ann), base)
    for branch in network.branches().values():
        torch.nn.init.normal_(branch.to_v.weight)
    assert not torch.allclose(predict(own, network, ann), base, atol=1e-3)
    assert torch.equal(predict(own, network, nobody), base)
    with network.disable_adapter():
        assert torch.equal(predict(own, network, ann), base)
    assert not torch.allclose(predict(own, network, ann), base, atol=1e-3)


def test_the_branch_by_hand() -> None:
    """softmax(Q K^T / sqrt d) V + softmax(Q K'^T / sqrt d) V', then the output layer, with its bias once."""
    network = load(family(tokens=3))
    attention = next(module for module in network.modules() if getattr(module, "is_cross_attention", False))
    branch = attention.processor
    torch.nn.init.normal_(branch.to_v.weight)
    user, hidden, text = torch.randn(2, 2), torch.randn(2, 5, attention.query_dim), torch.randn(2, 4, 6)
    branch.context.user = user
    heads = attention.heads
    query = attention.to_q(hidden).unflatten(2, (heads, -1)).transpose(1, 2)
    total = torch.zeros_like(query)
    for key, value in (
        (attention.to_k(text), attention.to_v(text)),
        ((user @ branch.to_k.weight.T).unflatten(1, (3, -1)), (user @ branch.to_v.weight.T).unflatten(1, (3, -1))),
    ):
        key, value = (one.unflatten(2, (heads, -1)).transpose(1, 2) for one in (key, value))
        total = total + (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1) @ value
    expected = attention.to_out[0](total.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(hidden, encoder_hidden_states=text), expected, atol=1e-5, rtol=1e-4)


def test_only_the_branches_are_trained() -> None:
    network = load(family())
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained and all(name.endswith(("processor.to_k.weight", "processor.to_v.weight")) for name in trained)


# -- who a record is for


def test_a_user_is_named_by_labels_by_meta_or_known_by_examples() -> None:
    own = family()
    for record, expected in (
        (record_of("ben"), [0.0, 1.0]),
        (record_of(meta={"user": "ann"}), [1.0, 0.0]),
        (record_of("ann", meta={"user_examples": [[0.0, 1.0], [0.5, 0.0]]}), [0.25, 0.5]),
        (record_of(), [0.0, 0.0]),
    ):
        assert own.tokenise(record)["user"].tolist() == expected
    assert own.null_tokens is not None and own.null_tokens["user"].tolist() == [0.0, 0.0]


def test_a_table_has_the_embeddings_of_users(tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text('{"cat": [0.1, 0.2, 0.3]}')
    own = family(users=(), table=str(tmp_path / "users.json"))
    assert own.tokenise(record_of("cat"))["user"].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_wrong_users_are_named() -> None:
    own = family()
    with pytest.raises(DataError, match="unknown user 'anna'; did you mean 'ann'"):
        own.tokenise(record_of("anna"))
    both = record_of("ann")
    both = both.model_copy(update={"labels": (*both.labels, *record_of("ben").labels)})
    with pytest.raises(DataError, match="labels of several users, ann, ben"):
        own.tokenise(both)
    with pytest.raises(DataError, match=r"meta\.user_examples: expected a list of vectors of 2 numbers"):
        own.tokenise(record_of(meta={"user_examples": [[1.0]]}))
    with pytest.raises(ConfigError, match=r"width: expected one number for all embeddings; missing"):
        family(users=())


def test_a_denoiser_without_cross_attention_is_refused(tiny_class_unet: Path) -> None:
    own = Personal(str(tiny_class_unet), None, base={"name": "class_unet"}, users=("ann",))
    with pytest.raises(ConfigError, match="has no cross-attention that could attend to users"):
        load(own)


# -- runs


def final_loss(run: Run) -> float:
    return float(run.after["loss"])


@pytest.mark.slow
def test_opposite_preferences_need_to_know_the_user(opposite: Path, tmp_path: Path) -> None:
    aware = mmalign.train(config_of(opposite, tmp_path / "aware", drop_user=0.0))
    first = next(row for row in read_metrics(aware.output) if row["kind"] == "train")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert final_loss(aware) < 0.5 and aware.after["reward_accuracies"] > 0.8
    train = {"steps": 15, "batch_size": 16, "learning_rate": 1e-3}
    modality = {"name": "diffusion", "family": CUSTOM, "timesteps": TIMESTEPS, "drop_condition": 0.0}
    blind = mmalign.train(config_of(opposite, tmp_path / "blind", train=train, modality=modality))
    assert final_loss(blind) > math.log(2) - 0.02, "all weights, and no user"
    # A new user, known by two examples that resemble ann's.
    shown = {"user_examples": [[1.0, 0.1], [0.8, 0.1]]}
    rows = [record_of(meta=shown, count=count).to_json() for count in range(8)]
    (tmp_path / "new.jsonl").write_text("\n".join(rows), encoding="utf-8")
    known = mmalign.evaluate(aware.output, {"data.eval.path": str(tmp_path / "new.jsonl")})
    assert known["loss"] < 0.5 and known["reward_accuracies"] > 0.8


def test_branches_are_saved_and_loaded(opposite: Path, tmp_path: Path) -> None:
    run = mmalign.train(config_of(opposite, tmp_path / "run", train={"steps": 2, "batch_size": 4}))
    saved = load_file(run.output / "model" / "user_branch.safetensors")
    assert saved and all(name.endswith((".to_k", ".to_v")) for name in saved)
    network = load(family(branch=str(run.output / "model")))
    for name, value in network.state().items():
        assert torch.equal(value, saved[name]), name
    with pytest.raises(ConfigError, match="another denoiser, width or number of tokens"):
        load(family(branch=str(run.output / "model"), tokens=2))


def test_resuming_is_exact(opposite: Path, tmp_path: Path) -> None:
    train = {"batch_size": 4, "learning_rate": 1e-2}
    whole = mmalign.train(config_of(opposite, tmp_path / "whole", train={**train, "steps": 3}))
    mmalign.train(config_of(opposite, tmp_path / "parts", train={**train, "steps": 2}))
    resumed = mmalign.train(config_of(opposite, tmp_path / "parts", train={**train, "steps": 3}), resume=True)
    for name, weight in resumed.trainable().items():
        assert torch.equal(weight, whole.trainable()[name]), name


@pytest.mark.slow
def test_stable_diffusion_can_be_personalised(tmp_path: Path) -> None:
    model = build_tiny_pipeline(tmp_path / "pipeline", "stable_diffusion")
    data = write_image_pairs(tmp_path, 4)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps({**row, "meta": json.dumps({"user": "ann"})}) + "\n" for row in rows))
    settings = {"name": "personal", "base": {"name": "stable_diffusion", "cache": False}, "users": ["ann"]}
    modality = {"name": "diffusion", "family": settings, "model": str(model)}
    run = mmalign.train(config_of(data, tmp_path / "run", modality=modality, train={"steps": 2, "batch_size": 4}))
    assert run.before["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (run.output / "model" / "user_branch.safetensors").is_file()
