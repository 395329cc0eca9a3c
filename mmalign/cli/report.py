"""How finished runs and inspections are shown in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mmalign.monitoring.progress import before_after_table, examples_table
from mmalign.planning.assembly import Assembly
from mmalign.run import Run
from mmalign.terminal import add_row, new_table, show_text
from mmalign.training.inspection import DataStatistics, Inspection


def print_result(run: Run, console: Console) -> None:
    """Prints the held-out metrics before and after training, examples side by side, and where everything is."""
    if run.interrupted:
        console.print(
            f"stopped after step {run.step} of {run.total_steps}; everything is saved, continue with --resume"
        )
        return
    if run.after:
        console.print(before_after_table(run.before, run.after))
    if run.examples:
        console.print(examples_table(run.examples))
    console.print(show_text(f"{run.step} steps; model, checkpoints and metrics are in {run.output}"))


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Prints the plan of a run: parts, quantities by stage, data, size."""
    console.print(_parts_table(inspection))
    console.print(_quantities_table(inspection))
    console.print(_data_table(inspection))
    for line in (*_size_lines(inspection), *(f"note: {note}" for note in inspection.notes)):
        console.print(show_text(line))


def _parts_table(inspection: Inspection) -> Table:
    assembly = inspection.assembly
    config = assembly.config
    table = Table(title="parts", show_header=False)
    components = [("modality", config.modality), *(("objective", one) for one in config.objective)]
    components += [(kind, getattr(config, kind)) for kind in ("collector", "advantage") if getattr(config, kind)]
    components += [("reward", one) for one in config.rewards]
    components += [("evaluator", one) for one in config.evaluation.evaluators]
    components += [("decoding", config.decoding)]
    for kind, component in components:
        plugin = assembly.registry.find(kind, component.name, kind).plugin
        add_row(table, kind, component.name, f"{plugin.distribution} {plugin.version}")
    return table


def _quantities_table(inspection: Inspection) -> Table:
    title = "quantities, in the order in which they are computed"
    table = new_table("quantity", "axes", "stage", "from", "supplied by", title=title)
    for provider in inspection.assembly.plan.providers:
        axes = f"[{', '.join(provider.axes)}]"
        add_row(table, provider.name, axes, provider.stage, ", ".join(provider.needs), provider.origin)
    return table


def _data_table(inspection: Inspection) -> Table:
    table = Table(title="data")
    for name in (
        "split",
        "records",
        "responses",
        "pairs",
        "labelled",
        "length",
        "longest",
        "steps",
        "cut",
        "quarantined",
    ):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, statistics in inspection.data.items():
        table.add_row(split, *_format_statistics(statistics))
    return table


def _format_statistics(statistics: DataStatistics) -> list[str]:
    counts = [statistics.responses, statistics.pairs, statistics.labelled]
    return [
        f"{statistics.records}{'+' if statistics.partial else ''}",
        *(str(count) for count in counts),
        f"{statistics.positions:.1f}",
        str(statistics.longest),
        f"{statistics.steps:.1f}",
        str(statistics.truncated),
        str(statistics.quarantined),
    ]


def _size_lines(inspection: Inspection) -> list[str]:
    assembly, train = inspection.assembly, inspection.assembly.config.train
    plan, stages = assembly.plan, inspection.data["train"].stages
    reference = f"reference: {_describe_reference(assembly)}" if plan.needs_reference else "no reference"
    lines = [
        f"{inspection.total_steps} steps of {train.batch_size} prompts in micro-batches of {train.micro_batch_size}",
        f"forward pass gives: {', '.join(plan.forward.axes()) or 'nothing'}; {reference}",
        *([f"teachers: {', '.join(assembly.teachers)}"] if assembly.teachers else []),
        *([f"stages of {', '.join(map(str, stages))} records"] if len(stages) > 1 else []),
        f"weights in {str(inspection.dtype).removeprefix('torch.')}",
    ]
    if inspection.parameters and inspection.memory:
        every, trained = inspection.parameters
        share = 100 * trained / every
        lines.append(f"{every:,} parameters, {trained:,} trained ({share:.2f} %)")
        lines.append(
            f"{inspection.memory / 2**30:.2f} GiB for weights, gradients and optimiser; activations come on top"
        )
    return lines


def _describe_reference(assembly: Assembly) -> str:
    config = assembly.config.reference
    if config.decay is not None:
        return f"moving average of the policy, decay {config.decay}"
    if config.keep is not None:
        return f"one of the latest {config.keep} policies, {config.every} steps apart, drawn for every round"
    if config.momentum is not None:
        return f"the policy of every {config.every} steps, which then goes on by {config.momentum} of its way"
    if config.every is not None:
        return f"the policy of every {config.every} steps"
    return "adapter off" if assembly.modality.adapter else "frozen copy"
