"""`evaluate` and `explain`: measure a model on labeled images, and show which image regions it uses."""

import importlib
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mobilenet_cli.exported_files import exported_classifier, is_exported_name
from mobilenet_cli.output import messages, print_json
from mobilenet_cli.predict import (
    DEFAULT_MODEL,
    BatchSize,
    ModelName,
    check_name,
    exit_if_failed,
    find_images,
    keras_classifier,
    load,
    progress,
)
from mobilenet_cli.zoo import zoo
from mobilenet_common.errors import ArgumentError, integer, unknown_name
from mobilenet_runtime import ImageError
from mobilenet_runtime.class_names import BACKGROUND, imagenet_classes
from mobilenet_runtime.version import VERSION


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Model to evaluate: a name of published weights, a .keras file, a folder written by save_pretrained, "
            "a repository on the Hugging Face Hub, or an exported file."
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="Labeled images: an image folder (one sub-folder per class), or any other DATA that `train` accepts."
        ),
    ],
    split: Annotated[
        str | None, typer.Option(help="Part of DATA to use: train, validation or test. Default: all of DATA.")
    ] = None,
    batch_size: BatchSize = 32,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Report to write, an .html file.")] = None,
    history: Annotated[Path | None, typer.Option(help="CSV log of the training, plotted in the report.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="File for the predicted probabilities, an .npz for `train --teacher`.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, including all classes and confusions.")] = False,
) -> None:
    """Evaluate a model on labeled images.

    `mobilenet-zoo evaluate flowers.keras photos/ --split test -o report.html`

    The classes of the data are matched to the model's classes by name. An image that can't be read is reported and
    skipped; the exit status is then 1.
    """
    integer("--batch-size", batch_size, 1)
    if output is not None and output.suffix != ".html":
        raise ArgumentError(f"--output={output} is not allowed: the file must end with .html.")
    if history is not None and output is None:
        raise ArgumentError("--history is for the report only: add --output with the report's file name.")
    if predictions is not None and predictions.suffix != ".npz":
        raise ArgumentError(f"--predictions={predictions} is not allowed: the file must end with .npz.")
    check_name("MODEL", model)
    evaluation = importlib.import_module("mobilenet_runtime.evaluation")
    examples = importlib.import_module("mobilenet_runtime.examples").read_examples(data, split)
    exported = is_exported_name(model)
    classifier = exported_classifier(model) if exported else keras_classifier(model)

    with progress() as bar:
        task = bar.add_task("images", total=len(examples))

        def report_batch(count, failures):
            for error in failures:
                bar.console.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
            bar.advance(task, count + len(failures))

        result = evaluation.evaluate(classifier, examples, batch_size=batch_size, progress=report_batch)
    print_json(result.as_dict()) if json else Console().print(_table(result))
    if predictions is not None:
        names = [examples.name_of(i) for i in result.indices]
        evaluation.save_predictions(predictions, result.probabilities, names, result.class_names)
        messages.print(f"Probabilities written to {escape(str(predictions))}.", soft_wrap=True)
    if output is not None:
        _report(output, evaluation, result, None if exported else classifier.model, history, data, split)
    exit_if_failed(len(result.damaged))


def _report(output, evaluation, result, model, history, data, split):
    facts = {
        "Data": data if split is None else f"{data}, {split}",
        "Created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "Versions": f"mobilenet-zoo {VERSION}, Python {sys.version.split()[0]}",
        "Command": shlex.join(["mobilenet-zoo", *sys.argv[1:]]),
    }
    overlays = None
    if model is not None:
        try:
            overlays = importlib.import_module("mobilenet_zoo.evaluation").heat_on_mistakes(model, result)
        except ArgumentError as error:  # The head has no pooling layer. The rest of the report doesn't need one.
            messages.print(f"[yellow]No heat maps in the report:[/yellow] {escape(str(error))}", soft_wrap=True)
    evaluation.write_report(output, result, history=history, overlays=overlays, facts=facts)
    messages.print(f"Report written to {escape(str(output))}.", soft_wrap=True)


def _table(result):
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right", no_wrap=True)
    metrics, speed = result.metrics, result.speed
    table.add_row("top-1", f"{metrics.top1:.2%}")
    if metrics.top5 is not None:
        table.add_row("top-5", f"{metrics.top5:.2%}")
    table.add_row("log loss", f"{metrics.log_loss:.4f}")
    table.add_row("ECE", f"{metrics.calibration.ece:.4f}")
    table.add_row("images", f"{len(result.labels):,}")
    table.add_row("images per second", f"{speed.images_per_second:,.1f}")
    table.add_row(f"latency, batch {speed.latency_batch} (ms)", f"{speed.latency_ms:,.2f}")
    if speed.peak_memory_mb is not None:
        table.add_row("peak memory (MB)", f"{speed.peak_memory_mb:,.0f}")
    return table


def explain(
    images: Annotated[list[str], typer.Argument(help="Image files, folders (searched recursively) and patterns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Image to write; for several images, a folder.")],
    model: ModelName = DEFAULT_MODEL,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class", help="Class to explain, by name or number. Default: the most likely class of each image."
        ),
    ] = None,
) -> None:
    """Show which regions of each image support a class, as heat maps (Grad-CAM).

    `mobilenet-zoo explain cat.jpg --model mobilenetv4_conv_medium -o heat.png`

    An image that can't be read is reported and skipped; the exit status is then 1.
    """
    if is_exported_name(model):
        raise ArgumentError(
            f"{model} is an exported file, which can't compute gradients: name the Keras model it was exported from."
        )
    check_name("--model", model)
    paths, failed = find_images(images)
    count = len(paths) + failed
    if count > 1 and output.suffix:
        raise ArgumentError(f"--output={output} is one file, but there are {count} images: name a folder.")
    is_folder = not output.suffix
    network = load(model)
    gradcam = importlib.import_module("mobilenet_zoo.evaluation")
    names = _class_names(network)
    class_index = None if class_name is None else _class_index(class_name, names)
    for overlay_path, path in zip(_overlay_paths(paths, output, is_folder), paths, strict=True):
        try:
            explanation = gradcam.explain(network, path, class_index)
        except ImageError as error:
            messages.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
            failed += 1
            continue
        overlay_path.parent.mkdir(parents=True, exist_ok=True)
        explanation.overlay.save(overlay_path)
        print(f"{path}: {names[explanation.class_index]} ({explanation.probability:.1%}), written to {overlay_path}.")
    exit_if_failed(failed)


def _class_names(network):
    """Return the class names of a Keras model: those saved with it, else ImageNet's names, else the class numbers."""
    outputs, imagenet = network.output_shape[-1], [name for _, name in (BACKGROUND, *imagenet_classes())]
    known = imagenet[-outputs:] if outputs in (len(imagenet) - 1, len(imagenet)) else map(str, range(outputs))
    return zoo().class_names_of(network) or list(known)


def _class_index(class_name, names):
    if class_name in names:
        return names.index(class_name)
    if class_name.isascii() and class_name.isdigit() and int(class_name) < len(names):
        return int(class_name)
    raise unknown_name("--class", class_name, names)


def _overlay_paths(paths, output, is_folder):
    """Return the path of each overlay. Images of the same name from different folders get numbered names."""
    if not is_folder:
        return [output]
    stems = [Path(path).stem for path in paths]
    return [
        output / f"{stem}{f'-{stems[:i].count(stem) + 1}' if stems.index(stem) < i else ''}.png"
        for i, stem in enumerate(stems)
    ]
