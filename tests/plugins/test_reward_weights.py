"""Weights from local files, and devices by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmalign import ConfigError
from mmalign_rewards.weights import find_device, load_weights


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_a_state_dict_is_found_and_its_prefix_taken_off(wrapper: str | None, tmp_path: Path) -> None:
    inner = {"module.a.weight": torch.arange(2.0)}
    torch.save({wrapper: inner, "step": 3} if wrapper else inner, tmp_path / "w.pth")
    loaded = load_weights(str(tmp_path / "w.pth"), "here")
    assert list(loaded) == ["a.weight"] and torch.equal(loaded["a.weight"], torch.arange(2.0))


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(load_weights(str(tmp_path / "w.safetensors"), "here")["a"], torch.ones(2))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "w.pth")
    with pytest.raises(ConfigError, match=r"here: cannot read weights from 'w\.pth'"):
        load_weights("w.pth", "here")
    assert not Path("executed").exists()


def test_devices() -> None:
    assert find_device("cpu", "here") == torch.device("cpu")
    assert find_device(None, "here").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"here: no device '{name}' here"):
            find_device(name, "here")
