"""`predict` and `features`: run a model on images from disk."""

import contextlib
import csv
import importlib
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mobilenet_cli.constants import check_model, registry
from mobilenet_cli.exported_files import exported_classifier, is_exported_name
from mobilenet_cli.output import as_json, messages
from mobilenet_cli.zoo import zoo
from mobilenet_common.errors import ArgumentError, integer, printable
from mobilenet_common.foreign import without_hub
from mobilenet_common.writing import whole_file
from mobilenet_runtime import decode_predictions, reading
from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_runtime.file_formats import ENDINGS

Images = Annotated[list[str], typer.Argument(help="Image files, folders (searched recursively) and patterns.")]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of published weights (see `list`), a model's name for its best weights, a .keras file, a folder "
        "written by save_pretrained, or a repository on the Hugging Face Hub (user/name). `predict` also takes an "
        f"exported file: {', '.join(ENDINGS)} or the folder of a SavedModel.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", help="Number of images per batch.")]
DEFAULT_MODEL = "mobilenetv4_conv_small.e2400_r224_in1k"


class Format(StrEnum):
    """Values of `--format`."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


def predict(
    images: Images,
    model: ModelName = DEFAULT_MODEL,
    top: Annotated[int, typer.Option(help="Number of classes to show for each image.")] = 5,
    batch_size: BatchSize = 32,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="Output format: table, csv or jsonl (JSON Lines).")
    ] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="Same as --format jsonl.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write instead of standard output.")
    ] = None,
) -> None:
    """Predict the classes of images.

    `mobilenet-zoo predict photos/ 'more/*.jpg' --model mobilenetv4_conv_medium --format csv -o predictions.csv`

    An image that can't be read is reported and skipped; the exit status is then 1.
    """
    integer("--top", top, 1)
    integer("--batch-size", batch_size, 1)
    check_name("--model", model)
    paths, missing_count = find_images(images)
    classifier = exported_classifier(model) if is_exported_name(model) else keras_classifier(model)
    outputs = []

    def keep(batch_paths, values):
        outputs.extend(zip(batch_paths, classifier.probabilities(values), strict=True))

    failed = missing_count + run(classifier.predict, classifier.transform, paths, batch_size, keep)
    predictions = [
        (path, decode_predictions(values, top, _class_names(classifier, len(values)))) for path, values in outputs
    ]
    if predictions:
        with _opened(output) as stream:
            _WRITERS[Format.JSONL if json else format](predictions, stream)
    exit_if_failed(failed)


def features(
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, an .npz.")],
    model: ModelName = DEFAULT_MODEL,
    batch_size: BatchSize = 32,
) -> None:
    """Write the feature vectors of images: the outputs of the pooling layer before the classifier.

    The file contains `paths` and `features`, with one row per image, for nearest neighbors, clustering or your own
    classifier:

    `mobilenet-zoo features photos/ -o photos.npz`

    An image that can't be read is reported and skipped; the exit status is then 1.
    """
    if output.suffix != ".npz":
        raise ArgumentError(f"--output={output} is not allowed: the file must end with .npz.")
    if is_exported_name(model):
        raise ArgumentError(f"{model} is an exported file, whose outputs are fixed: name a Keras model.")
    integer("--batch-size", batch_size, 1)
    check_name("--model", model)
    image_paths, missing_count = find_images(images)
    extractor = feature_model(load(model))
    paths, rows = [], []

    def keep(batch_paths, values):
        paths.extend(batch_paths)
        rows.append(values)

    transform = zoo().preprocessing(extractor)
    failed = missing_count + run(extractor.predict_on_batch, transform, image_paths, batch_size, keep)
    if rows:
        with whole_file(output) as part:
            np.savez(part, paths=np.array(paths), features=np.concatenate(rows), model=np.array(model))
        print(f"{len(paths)} × {rows[0].shape[-1]} features written to {output}.")
    exit_if_failed(failed)


def check_name(argument: str, name: str) -> None:
    """Raise a `ValueError` for a name that no model has, before a framework is loaded."""
    if not is_exported_name(name):
        check_model(argument, name)


def load(name):
    """Return the Keras model that a value of `--model` names."""
    check_name("model", name)
    mobilenet_zoo = zoo()
    if Path(name).suffix == ".keras":
        import keras

        return keras.saving.load_model(name, compile=False)
    if without_hub(name) in registry():
        return mobilenet_zoo.create_model(name, weights="imagenet")
    return mobilenet_zoo.from_pretrained(name)


def feature_model(model):
    """Return the part of `model` up to its pooling layer, which returns one vector per image."""
    import keras

    from mobilenet_common.facts import facts_of, remember

    x = _features(model)
    if len(x.shape) == 4:  # The pooling layer keeps the spatial dimensions.
        x = keras.layers.Flatten()(x)
    return remember(keras.Model(model.inputs[0], x, name=model.name), facts_of(model))


def _features(model):
    """Return the feature tensor of a model.

    This is the output of the last global pooling layer, or the features of the last nested MobileNet if that comes
    later. Without either, it is the output of the model, averaged over its positions if it is a feature map.
    """
    import keras

    from mobilenet_common.nesting import as_functional, calls, stem_of
    from mobilenet_zoo.exporting.prepared import data_format_of

    pooling_layers = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    model = as_functional(model, "features")
    x = model.outputs[0]
    for layer, inputs, outputs in reversed(calls(model)):
        if isinstance(layer, pooling_layers):
            return outputs[0]
        if isinstance(layer, keras.Model) and stem_of(layer) is not None:
            features = keras.Model(layer.inputs, _features(layer))
            return features(inputs[0])
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(data_format=data_format_of(model))(x)
    return x


def keras_classifier(name):
    """Return the Keras model that a value of `--model` names, as a classifier."""
    model = load(name)
    return importlib.import_module("mobilenet_zoo.evaluation").KerasClassifier(model)


def _class_names(classifier, outputs):
    """Return the names of the classes, or None for ImageNet's names."""
    names, imagenet = classifier.class_names, len(imagenet_classes())
    if names is None and outputs not in (imagenet, imagenet + 1):
        names = [f"class {i}" for i in range(outputs)]
    return names


def find_images(sources):
    """Find images, and report each file, folder or pattern of `sources` without images.

    Returns:
        A tuple `(paths, missing_count)`: the paths of the images, and the number of `sources` without any image.

    Raises:
        ValueError: If there are no images, and none of `sources` is the name of a missing file.
        typer.Exit: If there are no images, and at least one of `sources` is the name of a missing file.
    """
    paths, reasons, has_missing_file = {}, [], False
    for source in sources:
        matches = reading.find_images([source])
        if matches == [source] and not os.path.exists(source):
            reasons.append(f"{source} does not exist.")
            has_missing_file = True
        elif not matches:
            reasons.append(f"{source} has no images." if os.path.isdir(source) else f"{source} matches no file.")
        else:
            paths.update(dict.fromkeys(matches))
    if not paths and not has_missing_file:
        raise ArgumentError(f"There are no images in {', '.join(sources)}: name files, folders or patterns.")
    for reason in reasons:
        messages.print(f"[yellow]skipped:[/yellow] {escape(reason)}", soft_wrap=True)
    if not paths:
        exit_if_failed(len(reasons))
    return list(paths), len(reasons)


def run(predict, transform, paths, batch_size, keep):
    """Call `keep(paths, outputs)` for each batch of images. Return the number of images that could not be read."""
    failed = 0
    with progress() as bar:
        task = bar.add_task("images", total=len(paths))
        for batch_paths, outputs, failures in reading.run(predict, transform, paths, batch_size):
            if batch_paths:
                keep(batch_paths, outputs)
            for error in failures:
                bar.console.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
            failed += len(failures)
            bar.advance(task, len(batch_paths) + len(failures))
    return failed


def progress():
    """Return a progress bar for the number of images."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal)


@contextlib.contextmanager
def _opened(output):
    if output is None:
        yield sys.stdout
        return
    with whole_file(output) as part, open(part, "w", encoding="utf-8", newline="") as stream:
        yield stream


def _write_table(rows, stream):
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for path, predictions in rows:
        for i, prediction in enumerate(predictions):
            table.add_row(
                "" if i else escape(printable(path)), escape(prediction.name), f"{prediction.probability:.1%}"
            )
    Console(file=stream).print(table)


def _write_csv(rows, stream):
    writer = csv.writer(stream)
    writer.writerow(("image", "rank", "id", "name", "probability"))
    for path, predictions in rows:
        for rank, prediction in enumerate(predictions, 1):
            writer.writerow((printable(path), rank, prediction.id, prediction.name, f"{prediction.probability:.6g}"))


def _write_jsonl(rows, stream):
    for path, predictions in rows:
        record = {"image": path, "predictions": [prediction._asdict() for prediction in predictions]}
        stream.write(as_json(record, stream) + "\n")


_WRITERS = {Format.TABLE: _write_table, Format.CSV: _write_csv, Format.JSONL: _write_jsonl}


def exit_if_failed(failed: int) -> None:
    """Exit with status 1 if some images could not be read, and print how many."""
    if failed:
        messages.print(f"{failed} of the images could not be read.")
        raise typer.Exit(1)
