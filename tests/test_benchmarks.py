"""The benchmark's measuring works, on a tiny model; nothing here is timed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
METHODS = ("dpo", "kto", "reward_model", "grpo")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports the benchmark's scripts by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def make_row(**fields: Any) -> dict[str, Any]:
    """Makes a row with one run of four seconds, 100 tokens and 4 GiB; `fields` change the row, or its run."""
    run = {"seconds": 4.0, "tokens": 100.0, "responses": 16, "losses": [0.7, 0.6], "peak_bytes": 4 * 2**30}
    run |= {"operations": 1e12} | {name: fields.pop(name) for name in list(fields) if name in run}
    row: dict[str, Any] = {"method": "dpo", "lora": True, "mix": "long", "system": "trl", "steps": 1, "prompts": 8}
    stamp = {"machine": {"device": "cpu"}, "date": "2026-01-02", "load": 0.04, "peak_operations": 1e12}
    return {**row, **stamp, "runs": [run], "errors": [], **fields}


# -- measuring


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_case_is_measured(scripts: Any, method: str, tiny_text_model: Path, tmp_path: Path) -> None:
    case = scripts("measuring").Case(method, "short", True, "mmalign", steps=2, prompts=2)
    trace = scripts("measure_mmalign").measure(case, tiny_text_model, tiny_text_model, tmp_path)
    arithmetic = scripts("arithmetic")
    network = arithmetic.describe_network(tiny_text_model, 16)
    stored = scripts("workloads").count_lengths(case, tiny_text_model)
    result = scripts("measuring").build_measurement(case, trace, network, stored)
    assert result.seconds > 0
    assert result.operations > 0
    assert len(result.losses) == 3
    assert result.responses == (16 if method == "grpo" else 4)
    # A byte-level tokenizer of few merges: every response has many tokens, its prompt included.
    assert result.tokens > 20 * result.responses
    assert (result.generation_seconds > 0) == (method == "grpo")
    if method != "grpo":
        assert result.tokens == sum(map(arithmetic.count_tokens, stored[1:])) / 2


@pytest.mark.slow
def test_groups_are_sampled_to_full_length(scripts: Any, tiny_text_model: Path, tmp_path: Path) -> None:
    """The prompts of the stored rows in their order, eight responses of 48 steps to each; TRL is asked for the same.

    Both rows have the same prompt here, so it has sixteen responses.
    """
    case = scripts("measuring").Case("grpo", "short", True, "mmalign", steps=1, prompts=2)
    trace = scripts("measure_mmalign").measure(case, tiny_text_model, tiny_text_model, tmp_path)
    stored = scripts("workloads").count_lengths(case, tiny_text_model)
    assert [[group.prompt for group in step] for step in trace.sampled] == [
        [group.prompt for group in step] for step in stored
    ]
    assert {group.responses for step in trace.sampled for group in step} == {(48,) * 16}
    assert len(trace.generation) == 2


@pytest.mark.slow
def test_the_score_head_is_the_known_one(
    scripts: Any, tiny_text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other weights the first loss is another one."""
    measure, losses = scripts("measure_mmalign").measure, []
    case = scripts("measuring").Case("reward_model", "short", True, "mmalign", steps=1, prompts=2)
    for scale in (1, 1, 50):
        start = scripts("measuring").start_score_head

        def scaled(weight: torch.Tensor, start: Any = start, scale: int = scale) -> None:
            start(weight)
            weight.data *= scale

        with monkeypatch.context() as patch:
            patch.setattr(scripts("measuring"), "start_score_head", scaled)
            folder = tmp_path / str(len(losses))
            folder.mkdir()
            losses.append(measure(case, tiny_text_model, tiny_text_model, folder).losses[0])
    assert losses[0] == losses[1] != losses[2]


def test_micro_batches_are_bounded_on_a_cpu(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    build, case = scripts("measure_mmalign").build_config, scripts("measuring").Case
    for cuda, system, bound in [
        (False, "mmalign", 1024),
        (False, "mmalign-one-pass", None),
        (False, "mmalign-padded", None),
        (True, "mmalign", None),
    ]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        config = build(case("dpo", "short", True, system, 1, 2), *[Path("x")] * 4)
        assert config["train"]["micro_batch_tokens"] == bound
        assert config["modality"]["packing"] == ("off" if system == "mmalign-padded" else "auto")


def test_sampling_never_ends_early(scripts: Any) -> None:
    decoding = scripts("benchmark_plugin").FullLength(end_ids=frozenset({0, 2}))
    adjusted = decoding.adjust(torch.zeros(2, 4), torch.zeros(2, 0))
    assert adjusted.tolist() == [[-torch.inf, 0.0, -torch.inf, 0.0]] * 2


def test_rows_are_the_same_for_every_system(scripts: Any) -> None:
    workloads = scripts("workloads")
    for mix in workloads.MIXES:
        rows = workloads.build_pairs(mix, 5)
        assert rows == workloads.build_pairs(mix, 5)
        assert len(rows) == 5
        assert all(set(row) == {"prompt", "chosen", "rejected"} and all(row.values()) for row in rows)


@pytest.mark.slow
def test_runs_with_and_without_overlap_end_alike(scripts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts("overlap").main(["--delay", "0.01", "--rounds", "1"]) == 0
    *_, one, four, same = capsys.readouterr().out.splitlines()
    assert one.startswith("overlap_parts 1: ") and four.startswith("overlap_parts 4: ")
    assert same == "the weights are the same"


# -- arithmetic


def test_useful_operations_of_a_step(scripts: Any) -> None:
    """One prompt of 3 tokens with responses of 2 and 1; body 100, head 10, adapter 7, attention 5.

    Six tokens go through the body, three steps through the head: a forward pass is 2 (100 x 6 + 10 x 3) = 1260, the
    adapter's 2 x 7 x 6 = 84. The prompt's positions see 1 + 2 + 3, those of the first response 4 + 5, that of the
    second 4 positions: 19 in all, 4 x 5 x 19 = 380.
    """
    arithmetic = scripts("arithmetic")
    step = [arithmetic.Group(3, (2, 1))]
    lora, full = arithmetic.Network(100, 10, 7, 5), arithmetic.Network(100, 10, 0, 5)
    count = arithmetic.count_operations
    # Frozen weights twice, adapter and attention three times; the reference has no adapter.
    assert count("dpo", lora, step) == 2 * 1260 + 3 * 84 + 3 * 380 + (1260 + 380)
    assert count("dpo", full, step) == 3 * 1260 + 3 * 380 + (1260 + 380)
    # No head, no reference.
    assert count("reward_model", lora, step) == 2 * 1200 + 3 * 84 + 3 * 380
    # Sampling is one forward pass more.
    assert count("grpo", lora, step) == (2 * 1260 + 3 * 84 + 3 * 380) + (1260 + 84 + 380)


def test_useful_operations_of_the_reference_point(scripts: Any) -> None:
    """KTO scores every response under the next prompt, too, with both models.

    Prompts of 3 and 1 tokens, a response of 2 to each. The mismatched ones: 2 tokens that see 2 + 3 = 5 positions after
    the prompt of 1, and 4 + 5 = 9 after the prompt of 3.
    """
    arithmetic = scripts("arithmetic")
    step = [arithmetic.Group(3, (2,)), arithmetic.Group(1, (2,))]
    network = arithmetic.Network(100, 10, 7, 5)
    extra = arithmetic.count_operations("kto", network, step) - arithmetic.count_operations("dpo", network, step)
    assert extra == 2 * (2 * 110 * 4 + 4 * 5 * 14) + 2 * 7 * 4


def test_sizes_of_a_network(scripts: Any, tiny_text_model: Path) -> None:
    """Two layers of width 32, feed-forward 64, four heads of size 8, two of keys and values.

    A layer: queries and output 32 x 32 each, keys and values 16 x 32 each, three of 32 x 64.
    """
    arithmetic = scripts("arithmetic")
    network = arithmetic.describe_network(tiny_text_model, 2)
    assert network.body == 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64)
    assert network.head % 32 == 0
    assert network.adapter == 2 * 2 * (2 * 64 + 2 * 48 + 3 * 96)
    assert network.attention == 2 * 4 * 8
    assert arithmetic.describe_network(tiny_text_model, None).adapter == 0


def test_responses_are_grouped_by_prompt(scripts: Any) -> None:
    arithmetic = scripts("arithmetic")
    groups = arithmetic.group_lengths([("a", 3, 5), ("b", 2, 1), ("a", 3, 4)])
    assert groups == [arithmetic.Group(3, (5, 4)), arithmetic.Group(2, (1,))]
    assert arithmetic.count_tokens(groups) == (3 + 5) + (2 + 1) + (3 + 4)


def test_the_peak_is_a_throughput(scripts: Any) -> None:
    assert scripts("peak").measure_peak(torch.float32, sizes=(64,), repeats=1) > 1e6


# -- the table


def test_a_table_compares_with_trl(scripts: Any) -> None:
    """Twice the tokens a second in half of the memory; 1e12 operations in 2 s at a peak of 1e12 a second are a half."""
    mine = make_row(system="mmalign", losses=[0.7, 0.61], peak_bytes=2**31)
    mine["runs"] = [{**mine["runs"][0], "seconds": seconds} for seconds in (1.0, 2.0, 9.0)]
    rows = [make_row(), mine, make_row(system="trl-liger", runs=[])]
    *_, trl, mmalign, liger = scripts("rows").build_table(rows).splitlines()
    assert "| 4.00 |  | 4.00 | 25 | 4.00 | 1.00x | 1.00x | 25.0% | 0.7000, 0.6000 |  | 2026-01-02 | 0.0 |" in trl
    assert "| 2.00 |  | 8.00 | 50 | 2.00 | 2.00x | 0.50x | 50.0% | 0.7000, 0.6100 | +0.0000, +0.0100 |" in mmalign
    assert "| trl-liger | failed |" in liger
    assert {line.count("|") for line in scripts("rows").build_table(rows).splitlines()} == {17}


def test_sampling_and_the_rest_are_told_apart(scripts: Any) -> None:
    row = make_row(method="grpo")
    row["runs"][0]["generation_seconds"] = 1.5
    assert "| 4.00 | 1.50 + 2.50 |" in scripts("rows").build_table([row])


@pytest.mark.parametrize(("cuda", "missing"), [(False, {"trl-liger"}), (True, {"mmalign-one-pass"})])
def test_systems_of_a_machine(scripts: Any, cuda: bool, missing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    compare, systems = scripts("compare"), set(scripts("measuring").SYSTEMS)
    assert {system for system in systems if not compare.is_sensible("dpo", system)} == missing
    assert not compare.is_sensible("grpo", "trl-precomputed")


@pytest.mark.parametrize("change", [{"steps": 2}, {"prompts": 4}, {"method": "grpo"}])
def test_losses_are_compared_on_the_same_data_only(scripts: Any, change: dict[str, Any]) -> None:
    method = {"method": change.get("method", "dpo")}
    table = scripts("rows").build_table([make_row(**method), make_row(**{"system": "mmalign", **change})])
    assert "+0.0" not in table


def test_new_rows_replace_old_ones_and_keep_the_others(scripts: Any) -> None:
    merge = scripts("rows").merge_rows
    old = [make_row(system="mmalign", seconds=9.0), make_row(method="kto"), make_row(lora=False)]
    new = [make_row(system="mmalign", seconds=1.0), make_row()]
    merged = merge(old, new)
    assert [(row["method"], row["lora"], row["system"]) for row in merged] == [
        ("dpo", True, "trl"),
        ("dpo", True, "mmalign"),
        ("dpo", False, "trl"),
        ("kto", True, "trl"),
    ]
    assert merged[1]["runs"][0]["seconds"] == 1.0
    assert len(merge(old, [make_row(machine={"device": "gpu"}, method="kto")])) == 4


def test_a_failure_or_an_unmeasured_row_replaces_no_measured_one(scripts: Any) -> None:
    merge, failed = scripts("rows").merge_rows, make_row(runs=[], errors=[{"error": "x"}])
    assert merge([make_row()], [failed])[0]["runs"]
    assert merge([], [failed]) == [failed]
    assert merge([], [make_row(runs=[])]) == []


def test_the_page_keeps_its_text(scripts: Any, tmp_path: Path) -> None:
    rows, page = scripts("rows"), tmp_path / "page.md"
    page.write_text(f"text\n\n{rows.MARKER}\n\nold table\n", encoding="utf-8")
    gpu = make_row(machine={"device": "gpu", "cores": 8})
    for _ in range(2):
        rows.write_page(page, [make_row(), gpu])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"text\n\n{rows.MARKER}\n\nMeasured on: device cpu.\n\n| method |")
    assert "\n\nMeasured on: device gpu, cores 8.\n\n| method |" in text
    assert text.count("| dpo |") == 2
    assert "old table" not in text


def test_stored_rows_are_those_of_the_page(scripts: Any) -> None:
    rows = scripts("rows")
    stored = rows.load_rows(FOLDER / "results/compare.json")
    page = (FOLDER.parent / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert stored
    assert rows.build_table(stored).splitlines()[-1] in page
    assert rows.merge_rows(stored, []) == stored


def test_quick_is_a_choice_that_other_options_change(scripts: Any) -> None:
    compare = scripts("compare")
    cases = compare.list_cases(compare.parse_options(["--quick"]))
    assert {(case.method, case.mix, case.lora, case.steps) for case in cases} == {("dpo", "long", True, 2)}
    assert compare.parse_options(["--quick", "--methods", "kto"]).methods == ["kto"]
    assert compare.parse_options([]).steps == 5


def test_results_are_written_after_every_measurement(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run into a file of its own leaves the page alone."""
    compare, file = scripts("compare"), tmp_path / "results.json"
    monkeypatch.setattr(compare, "prepare_environment", lambda: None)
    monkeypatch.setattr(compare, "measure_peak", lambda dtype: 1e12)
    counts: list[int] = []

    def measure(case: Any) -> dict[str, Any]:
        counts.append(len(scripts("rows").load_rows(file)))
        return {"error": "no"} if case.system == "trl" else dict(make_row()["runs"][0])

    monkeypatch.setattr(compare, "measure", measure)
    page = compare.PAGE.read_text(encoding="utf-8")
    compare.main(["--quick", "--results", str(file)])
    assert counts == [0, 1, 2, 3]
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert [len(row["errors"]) for row in rows] == [1, 0, 0, 0]
    assert all(row["date"] and row["load"] >= 0 and row["peak_operations"] == 1e12 for row in rows)
    assert compare.PAGE.read_text(encoding="utf-8") == page


# -- memory


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
