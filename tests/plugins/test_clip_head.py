"""Heads on CLIP features: the layers by hand, the published layouts, what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from image_models import WIDTH, make_image_samples, random_images, save_transformers_clip
from safetensors.torch import save_file

from mmalign import ConfigError
from mmalign_rewards.clip_head import ClipHead, apply_layers, order_layers
from mmalign_rewards.clip_models import ClipConfig, compute_features, load_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipConfig:
    return ClipConfig(model=str(save_transformers_clip(tmp_path_factory.mktemp("clip") / "model")), device="cpu")


def save(folder: Path, weights: dict[str, torch.Tensor]) -> str:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "head.safetensors")
    return str(folder / "head.safetensors")


def aesthetic_mlp(width: int = WIDTH) -> dict[str, torch.Tensor]:
    """The layout of LAION's improved aesthetic predictor: a Sequential with dropouts at 1, 3, 5."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b) for a, b in ((width, 12), (12, 8), (8, 6), (6, 4), (4, 1))]
    return {
        f"layers.{place}.{name}": tensor.detach()
        for place, layer in zip((0, 2, 4, 6, 7), layers, strict=True)
        for name, tensor in layer.named_parameters()
    }


def features_of(clip: ClipConfig, images: list[Any]) -> torch.Tensor:
    return compute_features(load_clip(clip, "clip").embed_images, images, 8)


def test_a_linear_head_by_hand() -> None:
    """(3, 4) has length 5, so (0.6, 0.8) (10, 20) + 1 = 23."""
    layers = order_layers({"weight": torch.tensor([[10.0, 20.0]]), "bias": torch.tensor([1.0])})
    features = torch.nn.functional.normalize(torch.tensor([[3.0, 4.0]]), dim=1)
    assert apply_layers(features, layers, activation="none").tolist() == [[pytest.approx(23.0)]]


def test_layers_and_activations_by_hand() -> None:
    """(1, -2) by [[1, 0], [0, 1]], relu, by [[3, 5]]: 3; without activation 3 - 10 = -7."""
    weights = {"net.10.weight": torch.tensor([[3.0, 5.0]]), "net.2.weight": torch.eye(2)}
    layers = order_layers(weights)
    features = torch.tensor([[1.0, -2.0]])
    assert apply_layers(features, layers, activation="relu").item() == 3.0
    assert apply_layers(features, layers, activation="none").item() == -7.0
    gelu = 3 * 0.8413447460685429 + 5 * -2 * 0.022750131948179195
    assert apply_layers(features, layers, activation="gelu").item() == pytest.approx(gelu, abs=1e-6)


def test_the_aesthetic_predictor(clip: ClipConfig, tmp_path: Path) -> None:
    weights, images = aesthetic_mlp(), random_images(5)
    state = features_of(clip, images)
    state = state / state.norm(dim=1, keepdim=True)
    for place in (0, 2, 4, 6, 7):
        state = state @ weights[f"layers.{place}.weight"].T + weights[f"layers.{place}.bias"]
    reward = ClipHead(clip, save(tmp_path, weights), batch_size=2)
    assert reward.score(make_image_samples(images)) == pytest.approx(state[:, 0].tolist(), abs=1e-5)
    # The published file is a state dict of torch.
    torch.save(weights, tmp_path / "head.pth")
    plain = ClipHead(clip, str(tmp_path / "head.pth")).score(make_image_samples(images))
    assert plain == pytest.approx(state[:, 0].tolist(), abs=1e-5)


def test_features_as_they_are(clip: ClipConfig, tmp_path: Path) -> None:
    images = random_images(3)
    head = save(tmp_path, {"weight": torch.ones(1, WIDTH)})
    scores = ClipHead(clip, head, unit_features=False).score(make_image_samples(images))
    assert scores == pytest.approx(features_of(clip, images).sum(dim=1).tolist(), abs=1e-4)


def test_batches_order_and_failures(clip: ClipConfig, tmp_path: Path) -> None:
    head = save(tmp_path, aesthetic_mlp())
    images: list[Any] = random_images(4)
    samples = make_image_samples([*images[:2], None, *images[2:]])
    together = ClipHead(clip, head).score(samples)
    assert isinstance(together[2], TypeError)
    for size in (1, 3):
        again = ClipHead(clip, head, batch_size=size).score(samples[::-1])[::-1]
        del again[2]
        assert again == pytest.approx([one for one in together if isinstance(one, float)], abs=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.ones(1, 5)}, "reads 5 features, but '.*' has 16"),
        ({"weight": torch.ones(2, WIDTH)}, r"to 1 output, got weight \[2, 16\]"),
        (
            {"0.weight": torch.ones(3, WIDTH), "1.weight": torch.ones(1, 4)},
            r"got 0.weight \[3, 16\], 1.weight \[1, 4\]",
        ),
        ({"weight": torch.ones(1, WIDTH), "bias": torch.ones(2)}, "expected layers"),
        ({"weight": torch.ones(1, WIDTH), "scale": torch.ones(1)}, "linear layers only, got 'scale'"),
        ({"bias": torch.ones(1)}, "linear layers only, got 'bias'"),
        ({"weight": torch.ones(WIDTH)}, "expected layers"),
    ],
)
def test_a_head_that_does_not_fit_is_a_configuration_error(
    weights: dict[str, torch.Tensor], message: str, clip: ClipConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"rewards\.clip_head\.head: .*{message}"):
        ClipHead(clip, save(tmp_path, weights)).score(make_image_samples(random_images(1)))


def test_a_missing_or_broken_file_is_a_configuration_error(clip: ClipConfig, tmp_path: Path) -> None:
    (tmp_path / "short.safetensors").write_text("short")
    (tmp_path / "short.pth").write_text("short")
    torch.save([1], tmp_path / "list.pth")
    for name, message in (
        ("gone.pth", "there is no file"),
        ("short.safetensors", "cannot read weights"),
        ("short.pth", "cannot read weights"),
        ("list.pth", "does not hold tensors by name, but a list"),
    ):
        with pytest.raises(ConfigError, match=rf"rewards\.clip_head\.head: .*{message}"):
            ClipHead(clip, str(tmp_path / name)).score(make_image_samples(random_images(1)))
