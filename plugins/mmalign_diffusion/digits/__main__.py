"""`python -m mmalign_diffusion.digits`: train the embedded networks, or measure those that a folder holds."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from mmalign import ConfigError, MmalignError
from mmalign_diffusion.digits.assets import (
    ASSETS,
    load_classifier,
    load_denoiser,
    save_classifier,
    save_denoiser,
    save_summary,
)
from mmalign_diffusion.digits.data import CLASSES, load_parts
from mmalign_diffusion.digits.networks import build_scheduler
from mmalign_diffusion.digits.sampling import sample_digits
from mmalign_diffusion.digits.training import Budget, classification_accuracy, train_classifier, train_denoiser

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_GUIDANCE = (1.0, 2.0)


@app.command()
def train(
    output: Annotated[Path, typer.Option(help="Folder that is written.")] = Path("runs/digits"),
    seconds: Annotated[float, typer.Option(min=1, help="Wall time for the denoiser.")] = 300,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of the denoiser, if they are fewer.")] = None,
    classifier_steps: Annotated[int, typer.Option(min=1, help="Updates of each classifier.")] = 1000,
    samples: Annotated[int, typer.Option(min=1, help="Images sampled to measure the denoiser.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace networks that are there.")] = False,
) -> None:
    """Train the denoiser and both classifiers on real digits, and measure them on others."""
    if (output / "unet").exists() and not overwrite:
        raise ConfigError(f"--output: {output} holds networks already; choose another folder or add --overwrite")
    parts = load_parts()
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    trained = train_denoiser(parts.denoiser, Budget(seconds, steps), seed)
    spent = time.monotonic() - started
    save_denoiser(trained.network, output)
    # The seeds differ, so that the judge is not the reward's twin.
    save_classifier(train_classifier(parts.reward, classifier_steps, seed + 1), "reward", output)
    save_classifier(train_classifier(parts.judge, classifier_steps, seed + 2), "judge", output)
    summary = {
        "command": shlex.join(["python", "-m", "mmalign_diffusion.digits", *sys.argv[1:]]),
        "seed": seed,
        "denoiser": {"steps": trained.steps, "seconds": round(spent, 1), "loss": round(trained.loss, 5)},
        "classifiers": {"steps": classifier_steps},
        **_measure(output, samples, seed),
        "versions": {name: version(name) for name in ("torch", "diffusers", "mlxtend")} | _machine(),
    }
    save_summary(summary, output)
    typer.echo(json.dumps(summary, indent=2))


@app.command()
def measure(
    folder: Annotated[Path, typer.Argument(help="Folder that `train` has written; default what is shipped.")] = ASSETS,
    samples: Annotated[int, typer.Option(min=1, help="Images to sample.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Print the accuracy of the classifiers on held-out real digits, and how many samples the judge recognises."""
    typer.echo(json.dumps(_measure(folder, samples, seed), indent=2))


def _measure(folder: Path, samples: int, seed: int) -> dict[str, Any]:
    held_out = load_parts().held_out
    classifiers = {name: load_classifier(name, folder) for name in ("reward", "judge")}
    real = {name: classification_accuracy(one, held_out.pixels, held_out.labels) for name, one in classifiers.items()}
    network, scheduler = load_denoiser(folder), build_scheduler()
    labels = torch.arange(samples) % CLASSES
    sampled = {}
    for guidance in _GUIDANCE:
        generator = torch.Generator().manual_seed(seed)
        pixels = sample_digits(network, scheduler, labels, steps=15, guidance=guidance, generator=generator)
        accuracy = classification_accuracy(classifiers["judge"], pixels, labels)
        sampled[f"guidance_{guidance:g}"] = {
            "judge_accuracy": round(accuracy, 4),
            "ink": round(float(pixels.mean()), 4),
        }
    return {"held_out_accuracy": {name: round(value, 4) for name, value in real.items()}, "samples": sampled}


def _machine() -> dict[str, str]:
    return {"python": platform.python_version(), "processor": platform.machine()}


def main() -> None:
    """Runs the command line; a user's mistake is one line."""
    try:
        app()
    except MmalignError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
