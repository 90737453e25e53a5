"""`bench`: measure the speed and memory use of exported files."""

import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mobilenet_cli.output import messages, print_json
from mobilenet_common.errors import MobileNetError, either, integer
from mobilenet_runtime.file_formats import ENDINGS
from mobilenet_runtime.measure import measure, size_of

_VARYING = ("latency_ms", "fastest_ms", "peak_memory_mb", "load_s")


def bench(
    files: Annotated[
        list[str],
        typer.Argument(help=f"Exported files to measure: {either(ENDINGS)}, or the folder of a SavedModel."),
    ],
    threads: Annotated[
        int | None, typer.Option(help="Number of threads that the runtime may use. Default: the runtime's own choice.")
    ] = None,
    runs: Annotated[int, typer.Option(help="Number of timed runs of one batch in each round.")] = 10,
    rounds: Annotated[int, typer.Option(help="Number of times that each file is measured.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure exported files side by side, each in its own runtime.

    `mobilenet-zoo bench model.tflite model.onnx model.xml --threads 1`

    Each measurement runs in its own process, and only one runs at a time. Each round measures all files in turn; the
    table shows the medians over the rounds. Latency is the time of one batch if the file has a fixed batch size, and of
    one image otherwise. A file that can't be measured is reported and skipped; the exit status is then 1.
    """
    integer("--rounds", rounds, 1)
    integer("--runs", runs, 1)
    if threads is not None:
        integer("--threads", threads, 1)
    files = list(dict.fromkeys(files))
    records = _measure_all(files, threads, runs, rounds)
    if json:
        print_json(records)
    elif records:
        Console().print(_table(records))
    if len(records) < len(files):
        raise typer.Exit(1)


def _measure_all(files, threads, runs, rounds):
    """Return one record for each file that could be measured, in the order of the files."""
    records = {file: [] for file in files}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task("measurements", total=len(files) * rounds)
        for _ in range(rounds):
            for file in list(records):
                try:
                    record, _ = measure(file, threads=threads, runs=runs)
                except (MobileNetError, OSError) as error:
                    progress.console.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
                    del records[file]
                else:
                    records[file].append(record)
                progress.advance(task)
    return [_median(file, file_records) for file, file_records in records.items()]


def _median(file, records):
    varying = {}
    for key in _VARYING:
        values = [record[key] for record in records if record[key] is not None]
        varying[key] = statistics.median(values) if values else None
    return {"file": file, "size_mb": size_of(file) / 1e6, **records[0], **varying}


def _table(records):
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", no_wrap=True, overflow="ellipsis")
    # The minimum widths keep numbers on one line in a narrow terminal, where only the headings wrap.
    table.add_column("size (MB)", justify="right", min_width=6)
    table.add_column("runtime", overflow="fold", min_width=len("runtime"))
    for title in ("operations", "latency (ms)", "memory (MB)", "load (s)"):
        table.add_column(title, justify="right", min_width=6)
    for record in records:
        memory = record["peak_memory_mb"]
        table.add_row(
            escape(Path(record["file"]).name),
            f"{record['size_mb']:.2f}",
            record["runtime"],
            str(sum(record["operations"].values())),
            f"{record['latency_ms']:.2f}",
            "" if memory is None else f"{memory:.0f}",
            f"{record['load_s']:.2f}",
        )
    return table
