"""`export`: models as files for other runtimes."""

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

# An ending with the format's title, unless the two are the same word.
_ENDINGS = [
    ending if ending[1:] == BY_ENDING[ending].title.lower() else f"{ending} ({BY_ENDING[ending].title})"
    for ending in ENDINGS
]


class Quantization(StrEnum):
    """What `export` makes of the weights."""

    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"


def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            help="Weights as `list` names them, a model's name for its best ones, a .keras file, a folder of "
            "save_pretrained, or a repository on the Hugging Face Hub, user/name.",
        ),
    ],
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT",
            help=f"Files to write: {either(_ENDINGS)}; without an ending the folder of a SavedModel.",
        ),
    ],
    quantize: Annotated[
        Quantization | None,
        typer.Option(
            help="Store weights in float16, store them in int8 (dynamic), or compute in integers (int8, which needs "
            "--calibrate). Float32 if left out."
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER_OR_PATTERN",
            help="Images such as the model will see: a folder, a file or a quoted pattern, repeated for several. A "
            "fifth is held out, and compared on.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|folders",
            help="Their classes, to tell the accuracy: a file of lines image,class, or the names of their folders.",
        ),
    ] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", "-b", metavar="N|any", help="Images that the files take at once.")
    ] = "1",
    size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Height and width of the images; the model's if left out.")
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Take pixels in 0..255 and normalize them in the file.")
    ] = False,
    softmax: Annotated[
        bool | None,
        typer.Option("--softmax/--logits", help="Give probabilities, or logits. As the model does if left out."),
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(metavar="BLOCK", help="A layer that --quantize leaves in float; repeated for several."),
    ] = None,
    no_search: Annotated[
        bool,
        typer.Option(
            "--no-search",
            help="Leave no layer in float32 for --quantize int8, whatever integers cost, and save the search for them.",
        ),
    ] = False,
    reduce_range: Annotated[
        bool,
        typer.Option(
            "--reduce-range",
            help="Keep int8 kernels to 7 bits, for x86 processors without VNNI (ONNX, OpenVINO).",
        ),
    ] = False,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Leave class names, normalization and license out of the files.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Neither open the files nor compare them with the model.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a model as files for other runtimes, and compare each with the model.

    `mobilenet-zoo export mobilenetv4_conv_small.e2400_r224_in1k small.tflite small.onnx`

    `mobilenet-zoo export flowers.keras flowers.tflite --quantize int8 --calibrate photos/ --labels folders`

    Each file is opened by its own runtime. One that doesn't compute what the model does is an error: it is kept with
    .rejected after its name, and what was written before stays.
    """
    if is_exported_name(name):
        raise ArgumentError(f"{name} is an exported file already, which can't be exported again: name a Keras model.")
    if quantize == Quantization.INT8 and not calibrate:
        raise ArgumentError("--quantize=int8 needs --calibrate: a folder of images such as the model will see.")
    if no_search and quantize != Quantization.INT8:
        raise ArgumentError("--no-search is for --quantize=int8: leave it out.")
    if labels and not calibrate:
        raise ArgumentError(f"--labels={labels} needs --calibrate: the images that it is about.")
    options = {
        "batch_size": None if batch_size == "any" else _whole("--batch-size", batch_size, "or 'any'"),
        "image_size": _size(size),
        "quantization": quantize.value if quantize else None,
        "include_preprocessing": pixels,
        "include_softmax": softmax,
        "metadata": not no_metadata,
        "verify": not no_verify,
        "float_blocks": tuple(keep_float or ()) if keep_float or no_search else None,
        "reduce_range": reduce_range,
    }
    for place in calibrate or ():
        if not glob.has_magic(place) and not os.path.exists(place):
            raise ArgumentError(f"--calibrate={place} does not exist: name a folder, a file or a quoted pattern.")
    found = {path: place for place in reversed(calibrate or ()) for path in reading.find_images([place])}
    images = reading.find_images(calibrate) if calibrate else None
    if calibrate and not images:
        raise ArgumentError(f"There are no images in {', '.join(calibrate)}: name files, folders or patterns.")
    model = load(name)
    if labels:
        images = (images, _labels(labels, images, model, found))
    reports = []
    try:
        for report in _written(model, outputs, options | {"calibration": images}):
            reports.append(report)
    except ExportError:
        missing = [output for output in outputs if str(Path(output)) not in [report.path for report in reports]]
        if len(missing) > 1:
            messages.print(f"Not written: {', '.join(missing)}.", soft_wrap=True, markup=False)
        raise
    finally:  # one that fails hides none of those before
        if reports and json:
            print_json([report.as_dict() for report in reports])
        elif reports:
            _print(reports)


def _written(model, outputs, options):
    """Yield a report for each output, while the steps are shown: as a bar in a terminal, elsewhere as lines."""
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
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("load", total=None, left="")

        def show(step):
            if step.notice:
                messages.print(f"{step.path}: {step.notice}", soft_wrap=True, markup=False)
            left = "" if step.remaining is None else f"about {step.remaining:.0f} s left"
            description = f"{escape(Path(step.path).name)}: {step.text}"
            progress.update(task, description=description, completed=step.number - 1, total=step.total, left=left)

        yield from exporting.export_all(model, paths, **options, progress=show)


def _print_step(step):
    """Print a line for a step that begins."""
    if step.notice:
        messages.print(f"{step.path}: {step.notice}", soft_wrap=True, markup=False)
    messages.print(str(step), soft_wrap=True, markup=False)


def _whole(option, text, otherwise):
    if not (text.isascii() and text.isdigit()):
        raise ArgumentError(f"{option}={text} is not allowed: it must be a whole number, {otherwise}.")
    return integer(option, int(text), 1)


def _size(text):
    """Return height and width, of a text such as `224` or `192x256`, or None."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ArgumentError(f"--size={text} is not allowed: it must be one whole number, or two as in 192x256.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _labels(source, images, model, places):
    """Return the class of each of the images, as an array."""
    import numpy as np

    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ArgumentError(f"--labels is for classifiers, and {model.name} gives features: leave it out.")
    return np.array(read_labels(source, images, zoo().class_names_of(model), model.outputs[0].shape[-1], places))


def _percent(share):
    return "" if share is None else f"{share:.1%}"


def _accuracies(report):
    return "" if report.accuracy is None else f"{report.float_accuracy:.1%} → {report.accuracy:.1%}"


_COLUMNS = {  # by heading: what stands below, and which a narrow terminal goes without, the largest number first
    "file": (lambda report: Path(report.path).name, 0),
    "format": (lambda report: report.format, 4),
    "size (MB)": (lambda report: f"{report.bytes / 1e6:.2f}", 0),
    "of float32": (lambda report: f"{report.bytes / report.float_bytes:.0%}" if report.quantization else "", 3),
    "deviation": (lambda report: "" if report.deviation is None else f"{report.deviation:.1e}", 0),
    "same class": (lambda report: _percent(report.agreement), 1),
    "accuracy": (_accuracies, 0),
    "latency (ms)": (lambda report: "" if report.latency_ms is None else f"{report.latency_ms:.2f}", 0),
    "operations": (lambda report: "" if report.operations is None else str(report.operation_count), 2),
    "opened by": (lambda report: report.runtime or "", 5),
}
_TEXTS = ("file", "format", "opened by")


def _print(reports):
    """Print the table of the reports, without empty columns, and the notes below it."""
    console = Console()
    cells = {title: [cell(report) for report in reports] for title, (cell, _) in _COLUMNS.items()}
    cells = {title: texts for title, texts in cells.items() if any(texts)}
    widths = {title: max(map(len, [*texts, *title.split()])) for title, texts in cells.items()}
    while sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
        last = max(widths, key=lambda title: _COLUMNS[title][1])
        if not _COLUMNS[last][1]:
            break
        del widths[last]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in widths:
        side = "left" if title in _TEXTS else "right"
        table.add_column(title.replace(" ", "\n"), justify=side, no_wrap=True, overflow="ellipsis", vertical="bottom")
    for row in zip(*(cells[title] for title in widths), strict=True):
        table.add_row(*map(escape, row))
    console.print(table)
    for report in reports:
        kept = [f"stayed in float: {', '.join(report.float_blocks)}"] if report.float_blocks else []
        for note in (*kept, *report.notes):
            console.print(f"{Path(report.path).name}: {note}", markup=False, highlight=False)
