"""Stable Diffusion that reads a user: the branch by hand, the base model without it, two users who disagree."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusion_cases import complete
from diffusion_cases import load as load_model
from image_records import write_image_pairs, write_rows
from safetensors.torch import save_file
from torch import Tensor

import mmalign
from mmalign import ConfigError, DataError, LoRAParameters, Record, RunConfig
from mmalign.data import DataConfig, open_source
from mmalign.metrics_log import read_metrics
from mmalign_diffusion.config import Timesteps
from mmalign_diffusion.families import find_family
from mmalign_diffusion.families.ppd import BRANCHES, PPD
from mmalign_diffusion.modality import Diffusion

CPU = torch.device("cpu")
Pipeline = Callable[..., Path]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of two tokens, eight wide, of ann and bob."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("users") / "users.safetensors"
    save_file({name: torch.randn(2, 8, generator=generator) for name in ("ann", "bob")}, path)
    return path


@pytest.fixture
def family(tiny_pipeline: Pipeline, users: Path) -> PPD:
    return cast(PPD, find_family("ppd")(str(tiny_pipeline("stable_diffusion")), (16, 16), users=str(users)))


def record(user: str | None = None, **fields: Any) -> Record:
    labels = [{"kind": "pair", "order": [["r0"], ["r1"]], "user": user}]
    return Record.model_validate(Record.from_text("a cat", ["x", "y"], id="a").to_dict() | {"labels": labels, **fields})


def load(family: PPD, *, moved: bool) -> Any:
    torch.manual_seed(0)
    network = family.load(device=CPU, dtype=torch.float32)
    if moved:
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if "to_v" in name and weight.requires_grad:
                    weight.normal_()
    return network


@torch.no_grad()
def predict(family: Any, network: Any, user: str | None) -> Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition = family.collate(family.embed([family.tokenise(record(user))]))
    output: Tensor = family.predict(network, x, torch.tensor([500]), condition)
    return output


def test_the_branch_starts_as_the_base_model_and_no_user_stays_it(family: PPD, tiny_pipeline: Pipeline) -> None:
    base_family = find_family("stable_diffusion")(str(tiny_pipeline("stable_diffusion")), (16, 16))
    base = predict(base_family, base_family.load(device=CPU, dtype=torch.float32), None)
    torch.testing.assert_close(predict(family, load(family, moved=False), "ann"), base)
    network = load(family, moved=True)
    torch.testing.assert_close(predict(family, network, None), base)
    ann, bob = (predict(family, network, name) for name in ("ann", "bob"))
    assert (ann - base).abs().max() > 1e-2 and (ann - bob).abs().max() > 1e-2
    with network.disable_adapter():
        torch.testing.assert_close(predict(family, network, "ann"), base)
    torch.testing.assert_close(predict(family, network, "ann"), ann)


def test_the_branch_adds_attention_to_the_user(family: PPD) -> None:
    """One layer against the formula, softmax(Q K'^T / sqrt d) V', written out head by head."""
    network = load(family, moved=True)
    name, branch = next(iter(network.branches.items()))
    layer = network.network.get_submodule(name)
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(1, 5, layer.to_q.in_features, generator=generator)
    text, user = torch.randn(1, 3, 32, generator=generator), torch.randn(1, 2, 8, generator=generator)
    told = torch.cat([text, torch.nn.functional.pad(user, (0, 24))], dim=1)
    with torch.no_grad():
        output = layer(hidden, encoder_hidden_states=told)
        branch.on = False
        without = layer(hidden, encoder_hidden_states=told)
        query, key, value = layer.to_q(hidden[0]), branch.to_k(user[0]), branch.to_v(user[0])
        size = query.shape[1] // layer.heads
        parts = []
        for head in range(layer.heads):
            at = slice(head * size, (head + 1) * size)
            parts.append((query[:, at] @ key[:, at].T / math.sqrt(size)).softmax(1) @ value[:, at])
        expected = torch.cat(parts, 1) @ layer.to_out[0].weight.T
    torch.testing.assert_close(output - without, expected[None], atol=1e-5, rtol=1e-4)


def test_only_the_branches_are_trained_and_they_load_again(
    family: PPD, tiny_pipeline: Pipeline, users: Path, tmp_path: Path
) -> None:
    network = load(family, moved=True)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained and all(".processor.to_" in name for name in trained)
    skeleton = family.build_skeleton()
    assert sum(p.numel() for p in skeleton.parameters()) == sum(p.numel() for p in network.parameters())
    family.save_adapter(network, str(tmp_path))
    model = str(tiny_pipeline("stable_diffusion"))
    again: Any = find_family("ppd")(model, (16, 16), users=str(users), branches=str(tmp_path / BRANCHES))
    loaded = again.load(device=CPU, dtype=torch.float32)
    torch.testing.assert_close(predict(again, loaded, "bob"), predict(family, network, "bob"))


def test_users_are_found_in_labels_or_meta(family: PPD, tiny_pipeline: Pipeline, users: Path, tmp_path: Path) -> None:
    assert torch.equal(family.tokenise(record("bob"))["user"], family.users["bob"])
    assert not family.tokenise(record())["user"].any() and not family.null_tokens["user"].any()
    with pytest.raises(DataError, match=r"record 'a': unknown user 'bib'; did you mean 'bob'"):
        family.tokenise(record("bib"))
    by_meta: Any = find_family("ppd")(family.model, (16, 16), users=str(users), user_key="rater")
    assert torch.equal(by_meta.tokenise(record(meta=json.dumps({"rater": "ann"})))["user"], family.users["ann"])
    tokens = family.tokenise(record("bob"))
    dropped = [not family.drop_parts(tokens, seed)["user"].any() for seed in range(300)]
    assert 10 < sum(dropped) < 60
    save_file({"ann": torch.zeros(2, 8), "bob": torch.zeros(3, 8)}, tmp_path / "uneven.safetensors")
    uneven: Any = find_family("ppd")(family.model, (16, 16), users=str(tmp_path / "uneven.safetensors"))
    with pytest.raises(ConfigError, match=r"family.users: expected tensors of one shape"):
        _ = uneven.users


def build_modality(tiny_pipeline: Pipeline, users: Path) -> Diffusion:
    family: Any = find_family("ppd")(str(tiny_pipeline("stable_diffusion")), (16, 16), users=str(users), drop_user=0.0)
    return Diffusion(family=family, drop_condition=0.0, timesteps=Timesteps(strategy="table", table=(200,)))


def train_on_disagreement(modality: Diffusion, pairs: Path) -> list[float]:
    """Trains on pairs that ann likes one way and bob the other, at the very same noise; returns the losses."""
    model = load_model(modality)
    records = list(open_source(DataConfig(path=str(pairs)), [], where="data.train"))
    encoded = complete(modality, model, records)
    by_user = []
    for name in ("ann", "bob"):
        told = {"condition|user": cast(PPD, modality.network_family).users[name]}
        by_user.append([replace(one, tensors={**one.tensors, **told}) for one in encoded])
    rows = [*by_user[0], *by_user[1]]
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(len(records))
    network: Any = model.network
    with torch.no_grad(), network.disable_adapter():
        reference = modality.step_log_probs(network, rows)[0].sum(1)
    optimiser = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], lr=1e-2)
    losses = []
    for _ in range(25):
        ratios = (modality.step_log_probs(network, rows)[0].sum(1) - reference).reshape(-1, 2)
        loss = -torch.nn.functional.logsigmoid(500.0 * signs * (ratios[:, 0] - ratios[:, 1])).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return losses


def test_users_who_disagree_are_satisfied_only_if_they_are_told_apart(
    tiny_pipeline: Pipeline, users: Path, tmp_path: Path
) -> None:
    """Whoever cannot tell them apart gets log 2 at best: of opposite labels the mean loss is at least that."""
    pairs = write_image_pairs(tmp_path, 2)
    losses = train_on_disagreement(build_modality(tiny_pipeline, users), pairs)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < 0.5
    alike = tmp_path / "alike.safetensors"
    save_file({name: torch.ones(2, 8) for name in ("ann", "bob")}, alike)
    blind = train_on_disagreement(build_modality(tiny_pipeline, alike), pairs)
    assert min(blind) >= math.log(2) - 1e-5


def test_a_run_trains_the_branches_with_dpo(tiny_pipeline: Pipeline, users: Path, tmp_path: Path) -> None:
    pairs = write_image_pairs(tmp_path, 2)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    for row, user in zip(rows, ("ann", "bob"), strict=True):
        row["labels"][0]["user"] = user
    config = {
        "modality": {
            "name": "diffusion",
            "family": {"name": "ppd", "users": str(users)},
            "model": str(tiny_pipeline("stable_diffusion")),
            "size": 16,
        },
        "data": {"train": {"path": str(write_rows(pairs, rows))}},
        "objective": {"name": "dpo", "beta": 200.0},
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 1e-2},
        "output": str(tmp_path / "run"),
    }
    run = mmalign.train(RunConfig.model_validate(config))
    first = next(row for row in read_metrics(run.output) if row["kind"] == "train")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert (run.output / "model" / BRANCHES).is_file()
    assert all(".processor.to_" in name for name in run.trainable())


def test_a_low_rank_adapter_on_top_is_refused(family: PPD) -> None:
    with pytest.raises(ConfigError, match=r"modality.lora: this family trains a part of its own"):
        Diffusion(family=family, lora=LoRAParameters(rank=2))
