"""`export`: write models as files for other runtimes."""

import glob
import importlib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mobilenet_cli.calibration_labels import read_labels
from mobilenet_cli.exported_files import is_exported_name
from mobilenet_cli.output import messages, print_json
from mobilenet_cli.predict import load
from mobilenet_cli.zoo import zoo
from mobilenet_common.errors import ArgumentError, ExportError, either, integer
from mobilenet_runtime import reading
from mobilenet_runtime.file_formats import BY_ENDING, ENDINGS

# Each ending with the title of its format, unless both are the same word.
_ENDINGS = [
    ending if ending[1:] == BY_ENDING[ending].title.lower() else f"{ending} ({BY_ENDING[ending].title})"
    for ending in ENDINGS
]


class Quantization(StrEnum):
    """Values of `--quantize`."""

    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"


def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            help="Name of published weights (see `list`), a model's name for its best weights, a .keras file, a "
            "folder written by save_pretrained, or a repository on the Hugging Face Hub (user/name).",
        ),
    ],
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT",
            help=f"Files to write: {either(_ENDINGS)}; a path without an ending becomes the folder of a SavedModel.",
        ),
    ],
    quantize: Annotated[
        Quantization | None,
        typer.Option(
            help="Store weights in float16 or, with dynamic, in int8. int8 also computes in integers and needs "
            "--calibrate. Default: float32."
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER_OR_PATTERN",
            help="Images like those that the model will see: a folder, a file or a quoted pattern; may be repeated. A "
            "fifth of them is not used for calibration, but to compare each file with the model.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|folders",
            help="Classes of these images: a file with lines image,class, or the word folders for the names of their "
            "folders. Adds the accuracy to the report.",
        ),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size", "-b", metavar="N|any", help="Batch size of the files; any for a variable batch size."
        ),
    ] = "1",
    size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Height and width of the images. Default: the model's size.")
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Whether the files take pixels in 0..255 and normalize them.")
    ] = False,
    softmax: Annotated[
        bool | None,
        typer.Option("--softmax/--logits", help="Return probabilities or logits. Default: as the model does."),
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(metavar="BLOCK", help="Layer that --quantize leaves in float32; may be repeated."),
    ] = None,
    no_search: Annotated[
        bool,
        typer.Option(
            "--no-search",
            help="Skip the search for layers that --quantize int8 should leave in float32. All layers except those of "
            "--keep-float are then quantized, whatever the loss of accuracy.",
        ),
    ] = False,
    reduce_range: Annotated[
        bool,
        typer.Option(
            "--reduce-range",
            help="Limit int8 kernels to 7 bits, for x86 processors without VNNI (ONNX, OpenVINO).",
        ),
    ] = False,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Leave class names, normalization and license out of the files.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Don't open the files, and don't compare them with the model.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Export a model to files for other runtimes, and compare each file with the model.

    `mobilenet-zoo export mobilenetv4_conv_small.e2400_r224_in1k small.tflite small.onnx`

    `mobilenet-zoo export flowers.keras flowers.tflite --quantize int8 --calibrate photos/ --labels folders`

    Each file is opened in its own runtime. If its outputs deviate from the model's, the command fails and appends
    .rejected to the file's name; the files written before it are kept.
    """
    if is_exported_name(name):
        raise ArgumentError(f"{name} is already an exported file and can't be exported again: name a Keras model.")
    if quantize == Quantization.INT8 and not calibrate:
        raise ArgumentError(
            "--quantize=int8 needs --calibrate: name a folder of images like those that the model will see."
        )
    if no_search and quantize != Quantization.INT8:
        raise ArgumentError("--no-search is for --quantize=int8 only: leave it out, or add --quantize int8.")
    if labels and not calibrate:
        raise ArgumentError(f"--labels={labels} needs --calibrate: name the images that the labels belong to.")
    options = {
        "batch_size": None if batch_size == "any" else _whole_number("--batch-size", batch_size, " or 'any'"),
        "image_size": _size(size),
        "quantization": quantize.value if quantize else None,
        "include_preprocessing": pixels,
        "include_softmax": softmax,
        "metadata": not no_metadata,
        "verify": not no_verify,
        "float_blocks": tuple(keep_float or ()) if keep_float or no_search else None,
        "reduce_range": reduce_range,
    }
    for pattern in calibrate or ():
        if not glob.has_magic(pattern) and not os.path.exists(pattern):
            raise ArgumentError(f"--calibrate={pattern} does not exist: name a folder, a file or a quoted pattern.")
    origins = {path: pattern for pattern in reversed(calibrate or ()) for path in reading.find_images([pattern])}
    images = reading.find_images(calibrate) if calibrate else None
    if calibrate and not images:
        raise ArgumentError(f"There are no images in {', '.join(calibrate)}: name files, folders or patterns.")
    model = load(name)
    if labels:
        images = (images, _class_indices(labels, images, model, origins))
    reports = []
    try:
        for report in _export_all(model, outputs, options | {"calibration": images}):
            reports.append(report)
    except ExportError:
        missing = [output for output in outputs if str(Path(output)) not in [report.path for report in reports]]
        if len(missing) > 1:
            messages.print(f"Not written: {', '.join(missing)}.", soft_wrap=True, markup=False)
        raise
    finally:  # Show the files that were written before a failure.
        if reports and json:
            print_json([report.as_dict() for report in reports])
        elif reports:
            _print(reports)


def _export_all(model, outputs, options):
    """Yield the report of each output, and show the steps meanwhile: a progress bar in a terminal, lines elsewhere."""
    exporting = importlib.import_module("mobilenet_zoo.exporting")
    paths = dict.fromkeys(outputs)
    if not messages.is_terminal:
        yield from exporting.export_all(model, paths, **options, progress=_print_step)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remaining]}"),
    )
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("load", total=None, remaining="")

        def show(step):
            if step.notice:
                messages.print(f"{step.path}: {step.notice}", soft_wrap=True, markup=False)
            remaining = "" if step.remaining is None else f"about {step.remaining:.0f} s left"
            description = f"{escape(Path(step.path).name)}: {step.text}"
            progress.update(
                task, description=description, completed=step.number - 1, total=step.total, remaining=remaining
            )

        yield from exporting.export_all(model, paths, **options, progress=show)


def _print_step(step):
    """Print a line at the start of a step."""
    if step.notice:
        messages.print(f"{step.path}: {step.notice}", soft_wrap=True, markup=False)
    messages.print(str(step), soft_wrap=True, markup=False)


def _whole_number(option, text, alternative):
    if not (text.isascii() and text.isdigit()):
        raise ArgumentError(f"{option}={text} is not allowed: it must be a whole number{alternative}.")
    return integer(option, int(text), 1)


def _size(text):
    """Return the image size in a text: one number for `224`, two for `192x256`, None for None."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ArgumentError(f"--size={text} is not allowed: it must be one whole number, or two such as 192x256.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _class_indices(source, images, model, origins):
    """Return the class index of each image, as an array."""
    import numpy as np

    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ArgumentError(f"--labels is for classifiers only, but {model.name} returns features: leave it out.")
    return np.array(read_labels(source, images, zoo().class_names_of(model), model.outputs[0].shape[-1], origins))


def _percent(fraction):
    return "" if fraction is None else f"{fraction:.1%}"


def _accuracies(report):
    return "" if report.accuracy is None else f"{report.float_accuracy:.1%} → {report.accuracy:.1%}"


# `{heading: (function of a report that returns the cell, rank)}`. In a narrow terminal, columns with a rank above 0 are
# left out, starting with the highest rank.
_COLUMNS = {
    "file": (lambda report: Path(report.path).name, 0),
    "format": (lambda report: report.format, 4),
    "size (MB)": (lambda report: f"{report.bytes / 1e6:.2f}", 0),
    "of float32": (lambda report: f"{report.bytes / report.float_bytes:.0%}" if report.quantization else "", 3),
    "deviation": (lambda report: "" if report.deviation is None else f"{report.deviation:.1e}", 0),
    "same class": (lambda report: _percent(report.agreement), 1),
    "accuracy": (_accuracies, 0),
    "latency (ms)": (lambda report: "" if report.latency_ms is None else f"{report.latency_ms:.2f}", 0),
    "operations": (lambda report: "" if report.operations is None else str(report.operation_count), 2),
    "runtime": (lambda report: report.runtime or "", 5),
}
_LEFT_ALIGNED = ("file", "format", "runtime")


def _print(reports):
    """Print a table of the reports without its empty columns, and the notes of the reports below it."""
    console = Console()
    cells = {title: [cell(report) for report in reports] for title, (cell, _) in _COLUMNS.items()}
    cells = {title: texts for title, texts in cells.items() if any(texts)}
    widths = {title: max(map(len, [*texts, *title.split()])) for title, texts in cells.items()}
    while sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
        highest = max(widths, key=lambda title: _COLUMNS[title][1])
        if not _COLUMNS[highest][1]:
            break
        del widths[highest]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in widths:
        side = "left" if title in _LEFT_ALIGNED else "right"
        table.add_column(title.replace(" ", "\n"), justify=side, no_wrap=True, overflow="ellipsis", vertical="bottom")
    for row in zip(*(cells[title] for title in widths), strict=True):
        table.add_row(*map(escape, row))
    console.print(table)
    for report in reports:
        notes = [f"left in float32: {', '.join(report.float_blocks)}"] if report.float_blocks else []
        for note in (*notes, *report.notes):
            console.print(f"{Path(report.path).name}: {note}", markup=False, highlight=False)
