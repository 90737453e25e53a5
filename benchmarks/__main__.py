"""Command line of the benchmarks: run each contender in its own process, and write the results."""

import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import ContenderFailed, compare, grow
from benchmarks.contenders import MODELS, MODES, PRECISIONS, is_installed
from benchmarks.report import goal_table, write_report
from benchmarks.timing import cores

GROWTH = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "image size": (96, 128, 160, 192, 224, 288, 384, 512),
    "width": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
}
LIBRARIES = ("keras", "jax", "jaxlib", "torch", "tensorflow-cpu", "tensorflow", "numpy", "timm", "zeromodels")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.command()
def main(
    backend: Annotated[
        list[str] | None, typer.Option(help="Backend: tensorflow, jax or torch; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model, such as mobilenetv2_100; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch size of inference; may be repeated.")] = None,
    training_batch: Annotated[int, typer.Option(help="Batch size of training; 0 skips training.")] = 16,
    precision: Annotated[str, typer.Option(help=f"Precision: {' or '.join(PRECISIONS)}.")] = "float32",
    seconds: Annotated[float, typer.Option(help="Seconds per measurement, in which the contenders take turns.")] = 8.0,
    growth: Annotated[bool, typer.Option(help="Also measure how time and memory grow.")] = True,
    output: Annotated[Path, typer.Option(help="Folder for results.json, tables and plots.")] = Path("bench_output"),
) -> None:
    """Compare this library's speed with that of keras.applications, zeromodels and timm, if they are installed.

    Each contender runs in its own process, and the contenders take turns. Ratios are the peer's time divided by ours.
    """
    backends = _check_values("backend", backend, list(MODES)) or [name for name in MODES if is_installed(name)]
    names = _check_values("model", model, [entry.name for entry in MODELS]) or [entry.name for entry in MODELS]
    _check_values("precision", [precision], PRECISIONS)
    jobs = []
    for name in backends:
        for mode in MODES[name]:
            options = {"mode": mode, "precision": precision, "seconds": seconds}
            for entry in names:
                job = {"model": entry, "batches": batch or [1, 16], "training_batch": training_batch}
                jobs.append((compare, name, options | job))
        if growth:
            options = {"model": names[0] if len(names) == 1 else "mobilenetv2_100", "mode": MODES[name][0]}
            for axis, values in GROWTH.items():
                jobs.append(
                    (grow, name, options | {"precision": precision, "axis": axis, "values": values, "turns": 5})
                )

    results = {"machine": machine(), "command": " ".join(["python -m benchmarks", *sys.argv[1:]]), "rows": []}
    for index, (measure, name, job) in enumerate(jobs, 1):
        label = job.get("axis") or job["model"]
        console.print(f"{index}/{len(jobs)} {name} {job['mode']}: {label}")
        try:
            result = measure(name, job)
        except ContenderFailed as failure:
            console.print(f"  failed: {failure}")
            continue
        results["rows"] += result["rows"]
        rates = results.setdefault("matrix_product_rate", {})
        rates[name] = max(rates.get(name, 0.0), result["matrix_product_rate"] or 0.0)
        write_report(results, output)  # After each job, so that an interrupted run keeps its results.
    _print_goals(results)
    console.print(f"Written to {output}: results.json, tables.md and the plots.")


def _print_goals(results):
    header, *rows = goal_table(results)
    if not rows:
        return
    table = Table(*header, title="The peer's time divided by ours")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def machine():
    """Return the processor, the number of cores, the system and the library versions."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": _processor(), "cores": cores(), "system": platform.system(), "versions": versions}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _check_values(option, values, allowed):
    for value in values or ():
        if value not in allowed:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}.", param_hint=f"--{option}")
    return values


if __name__ == "__main__":
    app()
