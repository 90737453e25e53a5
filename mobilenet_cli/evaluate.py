"""`evaluate` and `explain`: how good a model is on images with labels, and what it looks at."""

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
    end,
    find,
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
            help="As --model of `predict`: a name of published weights, a .keras file, a folder of save_pretrained, a "
            "repository on the Hugging Face Hub, or an exported file."
        ),
    ],
    data: Annotated[str, typer.Argument(help="A folder with a folder of images for each class.")],
    split: Annotated[str | None, typer.Option(help="Its part: train, validation or test. All if left out.")] = None,
    batch_size: BatchSize = 32,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The report to write, an .html file.")] = None,
    history: Annotated[Path | None, typer.Option(help="A CSV log of the training, for the report's curves.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="An .npz to write the probabilities to, which `train --teacher` takes.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with every class and confusion.")] = False,
) -> None:
    """Measure a model on images whose classes are known.

    `mobilenet-zoo evaluate flowers.keras photos/ --split test -o report.html`

    Classes are found among the model's by their names. An image that can't be read is reported and skipped; the exit
    status is then 1.
    """
    integer("--batch-size", batch_size, 1)
    if output is not None and output.suffix != ".html":
        raise ArgumentError(f"--output={output} is not allowed: the file must end with .html.")
    if history is not None and output is None:
        raise ArgumentError("--history is for the report: name its file by --output.")
    if predictions is not None and predictions.suffix != ".npz":
        raise ArgumentError(f"--predictions={predictions} is not allowed: the file must end with .npz.")
    check_name("MODEL", model)
    evaluation = importlib.import_module("mobilenet_runtime.evaluation")
    examples = importlib.import_module("mobilenet_runtime.examples").read_examples(data, split)
    exported = is_exported_name(model)
    classifier = exported_classifier(model) if exported else keras_classifier(model)

    with progress() as bar:
        task = bar.add_task("images", total=len(examples))

        def shown(count, failures):
            for error in failures:
                bar.console.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
            bar.advance(task, count + len(failures))

        found = evaluation.evaluate(classifier, examples, batch_size=batch_size, progress=shown)
    print_json(found.as_dict()) if json else Console().print(_table(found))
    if predictions is not None:
        names = [examples.name_of(i) for i in found.indices]
        evaluation.save_predictions(predictions, found.probabilities, names, found.class_names)
        messages.print(f"The probabilities are in {escape(str(predictions))}.", soft_wrap=True)
    if output is not None:
        _report(output, evaluation, found, None if exported else classifier.model, history, data, split)
    end(len(found.damaged))


def _report(output, evaluation, found, model, history, data, split):
    facts = {
        "Data": data if split is None else f"{data}, {split}",
        "Made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "Versions": f"mobilenet-zoo {VERSION}, Python {sys.version.split()[0]}",
        "Command": shlex.join(["mobilenet-zoo", *sys.argv[1:]]),
    }
    overlays = None
    if model is not None:
        try:
            overlays = importlib.import_module("mobilenet_zoo.evaluation").heat_on_mistakes(model, found)
        except ArgumentError as error:  # a head without a pool; everything else can be reported
            messages.print(f"[yellow]Without heat maps:[/yellow] {escape(str(error))}", soft_wrap=True)
    evaluation.write_report(output, found, history=history, overlays=overlays, facts=facts)
    messages.print(f"The report is {escape(str(output))}.", soft_wrap=True)


def _table(found):
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right", no_wrap=True)
    metrics, speed = found.metrics, found.speed
    table.add_row("top-1", f"{metrics.top1:.2%}")
    if metrics.top5 is not None:
        table.add_row("top-5", f"{metrics.top5:.2%}")
    table.add_row("log loss", f"{metrics.log_loss:.4f}")
    table.add_row("ECE", f"{metrics.calibration.ece:.4f}")
    table.add_row("images", f"{len(found.labels):,}")
    table.add_row("images per second", f"{speed.images_per_second:,.1f}")
    table.add_row(f"latency, batch {speed.latency_batch} (ms)", f"{speed.latency_ms:,.2f}")
    if speed.peak_memory_mb is not None:
        table.add_row("peak memory (MB)", f"{speed.peak_memory_mb:,.0f}")
    return table


def explain(
    images: Annotated[list[str], typer.Argument(help="Files, folders (with all below them) and patterns.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The image to write; with several images, a folder for them.")
    ],
    model: ModelName = DEFAULT_MODEL,
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class to explain, by name or number; the likeliest if left out.")
    ] = None,
) -> None:
    """Show what a model looks at: heat on images where they speak for a class (Grad-CAM).

    `mobilenet-zoo explain cat.jpg --model mobilenetv4_conv_medium -o heat.png`

    An image that can't be read is reported and skipped; the exit status is then 1.
    """
    if is_exported_name(model):
        raise ArgumentError(
            f"{model} is an exported file, which gives no gradients: name the Keras model that it was made from."
        )
    check_name("--model", model)
    paths, failed = find(images)
    count = len(paths) + failed
    if count > 1 and output.suffix:
        raise ArgumentError(f"--output={output} is one file, but there are {count} images: name a folder.")
    several = not output.suffix
    network = load(model)
    gradcam = importlib.import_module("mobilenet_zoo.evaluation")
    names = _names(network)
    wanted = None if class_name is None else _number(class_name, names)
    for place, path in zip(_places(paths, output, several), paths, strict=True):
        try:
            found = gradcam.explain(network, path, wanted)
        except ImageError as error:
            messages.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
            failed += 1
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        found.overlay.save(place)
        print(f"{path}: {names[found.class_index]} ({found.probability:.1%}), written to {place}.")
    end(failed)


def _names(network):
    """Return a name for each class of a Keras model: its own, ImageNet's, or the numbers."""
    outputs, imagenet = network.output_shape[-1], [name for _, name in (BACKGROUND, *imagenet_classes())]
    known = imagenet[-outputs:] if outputs in (len(imagenet) - 1, len(imagenet)) else map(str, range(outputs))
    return zoo().class_names_of(network) or list(known)


def _number(class_name, names):
    if class_name in names:
        return names.index(class_name)
    if class_name.isascii() and class_name.isdigit() and int(class_name) < len(names):
        return int(class_name)
    raise unknown_name("--class", class_name, names)


def _places(paths, output, several):
    """Return where each overlay goes: names of images in different folders may be the same."""
    if not several:
        return [output]
    stems = [Path(path).stem for path in paths]
    return [
        output / f"{stem}{f'-{stems[:i].count(stem) + 1}' if stems.index(stem) < i else ''}.png"
        for i, stem in enumerate(stems)
    ]
