"""The benchmark of memory measures what it says, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


def test_the_meter_sees_what_is_allocated(scripts: Any) -> None:
    meter = scripts("memory_meter").MemoryMeter()
    meter.start()
    for _ in range(3):
        torch.ones(2**25)  # 128 MiB
    meter.stop()
    assert 100 * 2**20 < meter.rise < 300 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("system", ["naive", "mmalign-padded", "mmalign"])
def test_the_memory_of_a_step_is_measured(scripts: Any, system: str, tmp_path: Path) -> None:
    module = scripts("measure_memory")
    assert module.measure(module.MemoryCase(system, 32, 1024), str(tmp_path)) >= 0


def test_the_naive_way_computes_the_same_log_probs(scripts: Any, tiny_text_model: Path) -> None:
    """The mean of the network's own token losses over the response, times its tokens."""
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(tiny_text_model)
    ids = torch.arange(2, 14).view(2, 6)
    labels = ids.clone()
    labels[:, :2] = -100
    logps = scripts("measure_memory")._sequence_logps(network, ids, 2)
    assert logps.sum().item() == pytest.approx(-8 * network(input_ids=ids, labels=labels).loss.item(), rel=1e-5)


def test_memory_is_tabled_and_drawn(scripts: Any, tmp_path: Path) -> None:
    memory = scripts("memory")
    sizes = {"naive": 3, "mmalign-padded": 2, "mmalign": 1}
    rows = [
        {
            "system": case.system,
            "length": case.length,
            "vocabulary": case.vocabulary,
            "bytes": sizes[case.system] * 2**20,
        }
        for case in memory.list_cases()
    ]
    table = memory.build_table(rows)
    assert len(table.splitlines()) == 2 + 9
    assert "| 256 | 32768 | 3 | 2 | 1 |" in table
    assert [at for at, _ in memory.select(rows, "mmalign", "vocabulary")] == list(memory.VOCABULARIES)
    pytest.importorskip("matplotlib")
    memory.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000
