"""The confidence of an image classifier in the class that is asked for."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from image_models import make_image_samples, random_images
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from mmalign import ConfigError
from mmalign_rewards.classifier_networks import NetworkConfig, PreprocessingConfig, prepare_image
from mmalign_rewards.image_classifier import ImageClassifier, ImageClassifierConfig, find_label_in

JUDGE = """
import torch

class Judge(torch.nn.Module):
    '''The mean grey, 0.5 and 0, as three logits.'''

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(float(scale)))

    def forward(self, pixels):
        grey = pixels.mean(dim=(1, 2, 3))
        return self.scale * torch.stack([grey, torch.full_like(grey, 0.5), torch.zeros_like(grey)], dim=1)

class Flat(Judge):
    def forward(self, pixels):
        return pixels.mean(dim=(1, 2, 3))

def build_nothing():
    return 3
"""
GREY = PreprocessingConfig(size=4, crop=1.0, mean=(0.0,), std=(1.0,))


def grey(value: int, side: int = 4) -> Image.Image:
    return Image.new("L", (side, side), value)


@pytest.fixture
def judge(tmp_path: Path) -> NetworkConfig:
    """A module of the user's own, with scale 2."""
    (tmp_path / "judge.py").write_text(JUDGE)
    save_file({"scale": torch.tensor(2.0)}, tmp_path / "judge.safetensors")
    weights = str(tmp_path / "judge.safetensors")
    return NetworkConfig(architecture=f"{tmp_path}/judge.py:Judge", weights=weights, device="cpu")


def test_outputs_of_a_module_of_ones_own_by_hand(judge: NetworkConfig) -> None:
    """White has logits (2, 1, 0), black (0, 1, 0)."""
    samples = make_image_samples([grey(255), grey(0)])
    weights = [[2.718281828**one for one in row] for row in ((2, 1, 0), (0, 1, 0))]
    expected = [row[0] / sum(row) for row in weights]
    assert ImageClassifier(judge, GREY, label=0, output="logit").score(samples) == pytest.approx([2.0, 0.0], abs=1e-5)
    assert ImageClassifier(judge, GREY, label=0).score(samples) == pytest.approx(expected, abs=1e-5)
    logs = ImageClassifier(judge, GREY, label="0", output="log_probability").score(samples)
    assert logs == pytest.approx([log(one) for one in expected], abs=1e-5)


def test_the_class_comes_from_the_prompt_or_the_metadata(judge: NetworkConfig, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("white\nnothing\nblack\n")
    options: dict[str, Any] = {"labels": str(tmp_path / "labels.txt"), "output": "logit"}
    prompts = ("a white square", "Nothing", "black", "a white and black one", "green")
    scores = ImageClassifier(judge, GREY, **options).score(make_image_samples([grey(255)] * 5, prompts))
    assert scores[:3] == pytest.approx([2.0, 1.0, 0.0], abs=1e-5)
    assert [str(one) for one in scores[3:]] == [
        "the prompt names several classes: black, white",
        "the prompt names no class",
    ]
    for meta, expected in (('{"digit": 1}', 1.0), ('{"digit": "white"}', 2.0)):
        reward = ImageClassifier(judge, GREY, metadata="digit", **options)
        assert reward.score(make_image_samples([grey(255)], meta=meta)) == pytest.approx([expected], abs=1e-5)
    for meta, cause in (
        ("{}", "have no 'digit'"),
        ('{"digit": 3}', "unknown class 3 of 3"),
        ('{"digit": true}', "True"),
    ):
        (failure,) = reward.score(make_image_samples([grey(255)], meta=meta))
        assert isinstance(failure, ValueError) and cause in str(failure)


@pytest.mark.parametrize(
    ("text", "index"), [("7", 7), ("Draw a 3, please", 3), ("10", None), ("3 or 4", None), ("", None)]
)
def test_classes_that_are_numbers(text: str, index: int | None) -> None:
    names = [str(digit) for digit in range(10)]
    if index is None:
        with pytest.raises(ValueError, match="the prompt names"):
            find_label_in(text, names)
    else:
        assert find_label_in(text, names) == index


def test_batches_order_and_failures(judge: NetworkConfig) -> None:
    images: list[Any] = [grey(value) for value in (0, 60, 120, 250)]
    samples = make_image_samples([*images[:2], "text", *images[2:]])
    scores = ImageClassifier(judge, GREY, label=0).score(samples)
    assert isinstance(scores[2], TypeError)
    assert scores[0] < scores[1] < scores[3] < scores[4]
    for size in (1, 3):
        again = ImageClassifier(judge, GREY, label=0, batch_size=size).score(samples[::-1])[::-1]
        assert again[:2] + again[3:] == pytest.approx(scores[:2] + scores[3:], abs=1e-6)


def test_a_torchvision_and_a_timm_network(tmp_path: Path) -> None:
    import timm
    import torchvision

    torch.manual_seed(0)
    builders = {
        "torchvision:squeezenet1_1": torchvision.models.squeezenet1_1(num_classes=5),
        "timm:test_resnet": timm.create_model("test_resnet", num_classes=5),
    }
    images = random_images(2, size=(64, 64))
    for name, network in builders.items():
        file = str(tmp_path / "weights.safetensors")
        save_file(network.state_dict(), file)
        config = NetworkConfig(architecture=name, weights=file, arguments={"num_classes": 5}, device="cpu")
        scores = ImageClassifier(config, label=3).score(make_image_samples(images))
        with torch.no_grad():
            pixels = torch.stack([preset(image) for image in images])
            expected = network.eval()(pixels).softmax(dim=1)[:, 3].tolist()
        assert scores == pytest.approx(expected, abs=1e-4)


def preset(image: Image.Image) -> torch.Tensor:
    """The evaluation preset of torchvision: 256, middle 224."""
    from torchvision.transforms import v2

    steps = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    pixels: torch.Tensor = v2.functional.normalize(steps(image), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return pixels


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (40, 48), (256, 256), (17, 333)])
def test_preprocessing_is_torchvisions(size: tuple[int, int]) -> None:
    (image,) = random_images(1, size=size)
    prepared = torch.from_numpy(prepare_image(image, PreprocessingConfig()))
    assert prepared.shape == (3, 224, 224)
    assert torch.allclose(prepared, preset(image), atol=1e-5)


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    (image,) = random_images(1, size=(4, 4))
    prepared = prepare_image(image, GREY)
    assert prepared.shape == (1, 4, 4)
    assert [round(255 * float(one)) for one in prepared.ravel()] == list(image.convert("L").tobytes())


def build(judge: NetworkConfig, **changes: Any) -> ImageClassifier:
    return ImageClassifier(judge.model_copy(update=changes), GREY, label=0)


def test_a_wrong_network_is_a_configuration_error(judge: NetworkConfig, tmp_path: Path) -> None:
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    file = f"{tmp_path}/judge.py"
    for changes, message in (
        (
            {"architecture": "torchvision:resnt18"},
            r"architecture: unknown torchvision model 'resnt18'; did you mean 'resne",
        ),
        ({"architecture": "timm:resnt18"}, r"architecture: unknown timm model 'resnt18'; did you mean"),
        ({"architecture": f"{file}:Juge"}, r"architecture: .* has no 'Juge'; did you mean 'Judge'"),
        ({"architecture": "no_such_module:Judge"}, r"architecture: cannot import 'no_such_module'"),
        (
            {"architecture": f"{file}:build_nothing"},
            r"architecture: .* gives a value of type int, expected a torch\.nn\.Module",
        ),
        (
            {"architecture": f"{file}:Flat"},
            r"architecture: expected logits \[images, classes\] of the network, got shape \[1\]",
        ),
        ({"arguments": {"depth": 3}}, r"architecture: cannot build .*: TypeError"),
        (
            {"arguments": {"weights": None}, "architecture": "torchvision:resnet18"},
            r"architecture: cannot build .*: TypeError",
        ),
        ({"weights": str(tmp_path / "gone.pth")}, r"weights: there is no file"),
        ({"weights": str(tmp_path / "other.safetensors")}, r"weights: .* does not fit the network"),
        ({"device": "cuda:99"}, r"device: no device 'cuda:99'"),
    ):
        with pytest.raises(ConfigError, match=rf"rewards\.image_classifier\.network\.{message}"):
            build(judge, **changes).score(make_image_samples([grey(0)]))


def test_wrong_labels_are_configuration_errors(judge: NetworkConfig, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a\nb\n")
    for options, message in (
        ({"labels": str(tmp_path / "two.txt")}, r"\.labels: .* names 2 classes, but the network has 3"),
        ({"labels": str(tmp_path / "gone.txt")}, r"\.labels: cannot read"),
        ({"label": 3}, r"\.label: unknown class 3 of 3"),
        ({"label": "cat"}, r"\.label: unknown class 'cat' of 3; known: 0, 1, 2"),
    ):
        with pytest.raises(ConfigError, match=rf"rewards\.image_classifier{message}"):
            ImageClassifier(judge, GREY, **{"label": 0, **options}).score(make_image_samples([grey(0)]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 0, "metadata": "digit"}, "give label or metadata, not both"),
        ({"preprocessing": {"mean": (0.5, 0.5), "std": (1, 1)}}, "mean: expected one or three numbers"),
        ({"preprocessing": {"mean": (0.5,), "std": (0,)}}, r"std\.0\s+Input should be greater than 0"),
        ({"preprocessing": {"crop": 1.5}}, "crop"),
    ],
)
def test_a_wrong_parameter_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageClassifierConfig(network={"architecture": "timm:x", "weights": "w"}, **given)
