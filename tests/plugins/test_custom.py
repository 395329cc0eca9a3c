"""The family `custom`: what a function may return, how its weights are saved and found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from mmalign import ConfigError
from mmalign_diffusion.config import DiffusionConfig, FamilyComponent
from mmalign_diffusion.families.custom import Custom

CPU = torch.device("cpu")


def test_weights_of_a_run_load_again(tmp_path: Path) -> None:
    family = Custom(target="linear_denoiser:build", arguments={"weight": 0.25})
    network = family.load(device=CPU, dtype=torch.float32)
    family.save(network, str(tmp_path))
    again = Custom(model=str(tmp_path), target="linear_denoiser:build")
    assert again.load(device=CPU, dtype=torch.float32).get_parameter("weight").item() == 0.25
    assert again.name == str(tmp_path) and family.name == "linear_denoiser:build"


def test_a_schedule_may_be_the_settings_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Custom(target="linear_denoiser:build")
    family._denoiser.schedule = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 7}
    assert family.schedule.steps == 7


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:build", "cannot import 'no_such_module:build'"),
        ("linear_denoiser:biuld", "cannot import 'linear_denoiser:biuld'"),
        ("linear_denoiser:build_nothing", "returned a str; expected a Denoiser"),
    ],
)
def test_a_target_that_makes_no_denoiser_is_named(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"modality.family.target: .*{message}"):
        Custom(target=target)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    family = Custom(target="linear_denoiser:build_point_mass")
    family.save(family.load(device=CPU, dtype=torch.float32), str(tmp_path))
    with pytest.raises(ConfigError, match="does not fit this network"):
        Custom(model=str(tmp_path), target="linear_denoiser:build").load(device=CPU, dtype=torch.float32)


def test_families_and_their_keys_are_checked() -> None:
    config = DiffusionConfig.model_validate({"family": "class_unet"})
    assert config.family.own == {"classes": (), "class_key": None, "null_class": None}
    with pytest.raises(ValidationError, match="unknown 'clas_unet'; did you mean 'class_unet'"):
        DiffusionConfig.model_validate({"family": "clas_unet"})
    with pytest.raises(ValidationError, match="target: Field required"):
        FamilyComponent(name="custom")
    with pytest.raises(ValidationError, match="null_clas: unknown key; did you mean 'null_class'"):
        FamilyComponent(name="class_unet", null_clas=3)
