"""Measures one case of `images.py` in this process and writes the result as JSON; `images.py` starts it.

python benchmarks/measure_images.py CASE.json RESULT.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measure_mmalign
from image_workload import build_image_pairs, find_image_model, to_record
from measuring import Case, Trace, build_measurement
from workloads import write_rows

import mmalign
from mmalign.config.run_config import RunConfig


def main(arguments: list[str]) -> None:
    """Reads a case and writes its measurement."""
    case_file, result_file = map(Path, arguments)
    case = Case(**json.loads(case_file.read_text(encoding="utf-8")))
    model = find_image_model()
    with tempfile.TemporaryDirectory() as folder:
        trace = measure(case, model, Path(folder))
    result_file.write_text(json.dumps(asdict(build_measurement(case, trace))), encoding="utf-8")


def measure(case: Case, model: Path, folder: Path) -> Trace:
    """Trains for a warm-up step and `case.steps` more.

    Args:
        model: folder of the model and its processor.
        folder: where the run may write.
    """
    rows = build_image_pairs(case, folder)
    if case.system.startswith("trl"):
        # TRL is in `.venv-bench` alone.
        from measure_images_trl import train

        return train(case, model, rows, folder)
    data = write_rows(folder / "data.jsonl", [to_record(number, row) for number, row in enumerate(rows)])
    run = mmalign.train(RunConfig.model_validate(build_config(case, model, data, folder / "run")))
    return measure_mmalign.read_trace(case, run)


def build_config(case: Case, model: Path, data: Path, output: Path) -> dict[str, Any]:
    """Builds mmalign's configuration of a case: that of texts, with a model that reads images."""
    config = measure_mmalign.build_config(case, model, model, data, output)
    del config["modality"]["tokenizer"]
    config["modality"]["name"] = "vision_language"
    return config


if __name__ == "__main__":
    main(sys.argv[1:])
