"""mmalign from Python: a model is trained with a reward and an objective of our own, then used.

    python examples/python_api.py [FOLDER]

Everything is made here, in FOLDER or a temporary one, so that it runs offline and in less than a minute: a random
language model of 40 thousand weights learns to write vowels. With a real model only `modality.model` differs. The parts
of our own are in `vowels.py`; a model family of your own takes about as many lines, see `trajectories/`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mmalign
from mmalign import Record

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "python_api.yaml"


def main(folder: Path) -> None:
    """Runs the example in a folder."""
    # 1. Data. A record is a prompt with any number of responses and the feedback on them; here, prompts alone.
    prompts = [Record.from_text(f"Write line {number}.", id=f"prompt-{number}") for number in range(40)]
    write_records(folder / "train.jsonl", prompts[:32])
    write_records(folder / "heldout.jsonl", prompts[32:])

    # 2. The configuration is a file; what differs from it is given by dotted keys.
    overrides = {
        "modality.model": str(mmalign.build_tiny_text_model(folder / "model")),
        "data.train.path": str(folder / "train.jsonl"),
        "data.eval.path": str(folder / "heldout.jsonl"),
        "plugins": [str(HERE / "vowels.py")],
        "output": str(folder / "run"),
    }

    # 3. Check it: no weights are loaded, and a mistake is one readable error.
    try:
        mmalign.check(CONFIG, {**overrides, "objective.name": "reinforse"})
    except mmalign.ConfigError as error:
        print("a mistake:", error)
    plan = mmalign.check(CONFIG, overrides).assembly.plan
    print("quantities:", ", ".join(provider.name for provider in plan.providers))

    # 4. Train. The run that comes back holds the held-out metrics and the trained model.
    run = mmalign.train(CONFIG, overrides)
    print(f"share of vowels: {run.before['generation/reward']:.2f} before, {run.after['generation/reward']:.2f} after")
    (responses,) = run.backend.generate([Record.from_text("Write a line.")], 2)
    for response in responses:
        print("a response:", repr(response.response.text))

    # 5. Later, in another process: a folder of a run is all it takes.
    print(f"evaluated again: {mmalign.evaluate(folder / 'run')['generation/reward']:.2f}")
    print("restored at step", mmalign.load_run(folder / "run").step)

    # 6. A configuration is a value, too: read, changed and trained in code.
    config = mmalign.load_config(CONFIG, {**overrides, "train.steps": 10})
    for name in ("reinforce", "grpo"):
        objective = config.objective[0].model_copy(update={"name": name})
        changed = config.model_copy(update={"objective": (objective,), "output": str(folder / name)})
        print(f"10 steps of {name}: {mmalign.train(changed).after['generation/reward']:.2f}")


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Writes one record a line."""
    path.write_text("".join(f"{record.to_json()}\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
