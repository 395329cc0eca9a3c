"""Fixtures that several test files share: a tiny language model, a toy modality, and runs on both."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from multimodal_models import Family, build_tiny_multimodal_model
from scoring_server import ScoringServer

from mmalign.testing import Architecture, build_tiny_text_model

TOY_PLUGIN = Path(__file__).with_name("toy_plugin.py")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

WriteRecords = Callable[..., Path]
WriteConfig = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="run every member of every family of tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--exhaustive"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps tests from finding what earlier ones, or the user's own runs, have left in the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random language model of 40 thousand weights."""
    return build_tiny_text_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_class_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random class-conditional denoiser of 8 x 8 grayscale images; class 3 of 4 is the null class."""
    from mmalign_diffusion.testing import build_tiny_class_unet

    return build_tiny_class_unet(tmp_path_factory.mktemp("tiny") / "unet")


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds the folder of a random text-to-image pipeline of 16 x 16 images, by family; each once."""
    from mmalign_diffusion.testing_pipelines import build_tiny_pipeline

    root = tmp_path_factory.mktemp("pipelines")
    return cache(lambda family, **settings: build_tiny_pipeline(root / f"{family}{len(settings)}", family, **settings))


@pytest.fixture(scope="session")
def tiny_multimodal(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """Builds the folder of a random language model that sees or hears, by family; each once."""
    root = tmp_path_factory.mktemp("multimodal")
    return cache(lambda family: build_tiny_multimodal_model(root / family, family))


@pytest.fixture(scope="session")
def seeing(tiny_multimodal: Callable[[Family], Path]) -> Callable[..., Any]:
    """Builds the modality on such a model, with further keys of its configuration."""
    from mmalign_vision_language.modality import VisionLanguageModality

    return lambda family="qwen2_vl", **keys: VisionLanguageModality(model=str(tiny_multimodal(family)), **keys)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of random language models, by architecture."""
    root = tmp_path_factory.mktemp("architectures")
    return {name: build_tiny_text_model(root / name, architecture=name) for name in get_args(Architecture)}


def load_network(folder: Path) -> Any:
    """Loads a causal language model in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


@pytest.fixture(params=get_args(Architecture))
def network(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    """A random language model of every architecture."""
    return load_network(folders[request.param])


@pytest.fixture
def llama(folders: dict[str, Path]) -> Any:
    """A random language model."""
    return load_network(folders["llama"])


def paired_record(id: str, prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    """One prompt with a preference between two responses, as a data file holds it."""
    return {
        "id": id,
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        "responses": [
            {"rid": rid, "messages": [{"role": "assistant", "content": [{"type": "text", "text": text}]}]}
            for rid, text in (("a", rejected), ("b", chosen))
        ],
        "labels": [{"kind": "pair", "order": [["b"], ["a"]]}],
    }


@pytest.fixture
def write_records(tmp_path: Path) -> WriteRecords:
    """Writes rows as JSON lines and returns the file."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def toy_pairs(write_records: WriteRecords) -> Path:
    """Ten prompts; the preferred response has more zeros."""
    rows = [paired_record(f"p{index}", "x" * (index + 1), "001"[: 1 + index % 3], "3321") for index in range(10)]
    return write_records("pairs.jsonl", rows)


@pytest.fixture
def toy_config(tmp_path: Path, toy_pairs: Path) -> Callable[..., dict[str, Any]]:
    """Builds the mapping of an offline dpo run on the toy modality; keywords replace whole sections."""

    def build(**sections: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "modality": {"name": "toy"},
            "data": {"train": {"path": str(toy_pairs)}, "eval": {"path": str(toy_pairs)}},
            "objective": {"name": "dpo"},
            "decoding": {"name": "sample", "max_steps": 6},
            "train": {"steps": 4, "batch_size": 4, "learning_rate": 0.05},
            "plugins": [str(TOY_PLUGIN)],
            "output": str(tmp_path / "run"),
        }
        return {**config, **sections}

    return build


@pytest.fixture
def toy_online(toy_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Builds the mapping of an online grpo run on the toy modality; keywords replace whole sections."""

    def build(**sections: Any) -> dict[str, Any]:
        online = {
            "objective": {"name": "grpo"},
            "collector": {"name": "group", "group_size": 4},
            "rewards": [{"name": "zeros"}],
            "advantage": {"name": "grpo"},
        }
        return toy_config(**{**online, **sections})

    return build


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a mapping as a YAML configuration and returns the file."""

    def write(config: Mapping[str, Any], name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def offline(toy_config: Callable[..., dict[str, Any]], write_config: WriteConfig) -> Path:
    """The file of an offline dpo run on the toy modality."""
    return write_config(toy_config())


@pytest.fixture(scope="session")
def saved_steps() -> Callable[[Path], list[int]]:
    """Lists the steps of the checkpoints in a run's folder."""
    return lambda folder: sorted(int(path.name[len("step-") :]) for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="session")
def tables() -> Callable[[Any], list[float]]:
    """Returns the weights of a run on the toy modality."""
    return lambda run: list(run.policy.network.table.flatten().tolist())


@pytest.fixture
def scoring_server() -> Iterator[ScoringServer]:
    """A server that scores texts, and fails as a test wants it to."""
    server = ScoringServer()
    yield server
    server.close()


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports the benchmark's scripts by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Lets this process have 2 GiB more than it has, where that can be told."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
