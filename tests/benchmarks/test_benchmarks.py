"""The benchmark's measuring works, on a tiny model; nothing here is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

METHODS = ("dpo", "kto", "reward_model", "grpo")


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
        draw = torch.randn

        def scaled(*size: Any, draw: Any = draw, scale: int = scale, **options: Any) -> torch.Tensor:
            drawn = draw(*size, **options)
            # The plugin of the benchmark has modules of its own; only the head is drawn [1, D] from a generator.
            return drawn * scale if "generator" in options and drawn.dim() == 2 and len(drawn) == 1 else drawn

        with monkeypatch.context() as patch:
            patch.setattr(torch, "randn", scaled)
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


def test_the_peak_ends_within_its_budget_on_slow_hardware(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1e9 operations a second, products of 256 take 0.03 s, of 512 0.27 s, of 1024 2.1 s: above the budget."""
    peak, clock, sizes = scripts("peak"), [0.0], []

    def time_product(left: torch.Tensor, right: torch.Tensor) -> float:
        sizes.append(len(left))
        seconds = 2 * len(left) ** 3 / 1e9
        clock[0] += seconds
        return seconds

    monkeypatch.setattr(peak, "_time_product", time_product)
    monkeypatch.setattr(peak.time, "perf_counter", lambda: clock[0])
    assert peak.measure_peak(torch.float32, budget=2.0) == pytest.approx(1e9)
    assert set(sizes) == {256, 512} and clock[0] <= 2.0


def test_weights_are_of_the_dtype_that_training_chooses(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = scripts("measuring")
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("mmalign.hardware.has_fast_bfloat16", lambda device, fast=fast: fast)
        assert measuring.training_dtype(lora=True) == expected
        assert measuring.training_dtype(lora=False) == torch.float32
