"""Measures one case in this process and writes the result as JSON; `compare.py` starts it.

python benchmarks/measure.py CASE.json RESULT.json
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from arithmetic import describe_network
from measuring import LORA_RANK, Case, build_measurement
from workloads import count_lengths, find_model


def main(arguments: list[str]) -> None:
    """Reads a case and writes its measurement."""
    case_file, result_file = map(Path, arguments)
    case = Case(**json.loads(case_file.read_text(encoding="utf-8")))
    module = importlib.import_module("measure_trl" if case.system.startswith("trl") else "measure_mmalign")
    folders = find_model(torch.bfloat16 if case.lora else torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        trace = module.measure(case, *folders, Path(folder))
    network, tokenizer = folders
    sizes = describe_network(network, LORA_RANK if case.lora else None)
    measurement = build_measurement(case, trace, sizes, count_lengths(case, tokenizer))
    result_file.write_text(json.dumps(asdict(measurement)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
