"""`predict` and `features`: a model on images from disk."""

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

Images = Annotated[list[str], typer.Argument(help="Files, folders (with all below them) and patterns.")]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Weights as `list` names them, a model's name for its best ones, a .keras file, a folder of "
        "save_pretrained, or a repository on the Hugging Face Hub, user/name. `predict` also takes an exported file: "
        f"{', '.join(ENDINGS)} or the folder of a SavedModel.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", help="Images that the model takes at once.")]
DEFAULT_MODEL = "mobilenetv4_conv_small.e2400_r224_in1k"


class Format(StrEnum):
    """How `predict` prints."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"


def predict(
    images: Images,
    model: ModelName = DEFAULT_MODEL,
    top: Annotated[int, typer.Option(help="How many classes to give for each image.")] = 5,
    batch_size: BatchSize = 32,
    format: Annotated[Format, typer.Option("--format", "-f", help="table, csv or jsonl (JSON lines).")] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file in place of the terminal.")] = None,
) -> None:
    """Say what images show.

    `mobilenet-zoo predict photos/ 'more/*.jpg' --model mobilenetv4_conv_medium --format csv -o answers.csv`

    An image that can't be read is reported and skipped; the exit status is then 1.
    """
    integer("--top", top, 1)
    integer("--batch-size", batch_size, 1)
    check_name("--model", model)
    paths, absent = find(images)
    classifier = exported_classifier(model) if is_exported_name(model) else keras_classifier(model)
    answers = []

    def keep(batch_paths, values):
        answers.extend(zip(batch_paths, classifier.probabilities(values), strict=True))

    failed = absent + run(classifier.predict, classifier.transform, paths, batch_size, keep)
    found = [(path, decode_predictions(values, top, _names(classifier, len(values)))) for path, values in answers]
    if found:
        with _opened(output) as stream:
            _WRITERS[Format.JSONL if json else format](found, stream)
    end(failed)


def features(
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    model: ModelName = DEFAULT_MODEL,
    batch_size: BatchSize = 32,
) -> None:
    """Write what the model sees in images: the vector after the pool, before the classifier.

    The file holds `paths` and `features`, a row an image, for nearest neighbors, clustering or a classifier of your
    own:

    `mobilenet-zoo features photos/ -o photos.npz`

    An image that can't be read is reported and skipped; the exit status is then 1.
    """
    if output.suffix != ".npz":
        raise ArgumentError(f"--output={output} is not allowed: the file must end with .npz.")
    if is_exported_name(model):
        raise ArgumentError(f"{model} is an exported file, which gives what it was exported with: name a Keras model.")
    integer("--batch-size", batch_size, 1)
    check_name("--model", model)
    found, absent = find(images)
    extractor = feature_model(load(model))
    paths, rows = [], []

    def keep(batch_paths, values):
        paths.extend(batch_paths)
        rows.append(values)

    failed = absent + run(extractor.predict_on_batch, zoo().preprocessing(extractor), found, batch_size, keep)
    if rows:
        with whole_file(output) as part:
            np.savez(part, paths=np.array(paths), features=np.concatenate(rows), model=np.array(model))
        print(f"{len(paths)} × {rows[0].shape[-1]} features written to {output}.")
    end(failed)


def check_name(argument: str, name: str) -> None:
    """Raise the `ValueError` for a name that no model has, before a framework is loaded."""
    if not is_exported_name(name):
        check_model(argument, name)


def load(name):
    """Return the model that `--model` names."""
    check_name("model", name)
    mobilenet_zoo = zoo()
    if Path(name).suffix == ".keras":
        import keras

        return keras.saving.load_model(name, compile=False)
    if without_hub(name) in registry():
        return mobilenet_zoo.create_model(name, weights="imagenet")
    return mobilenet_zoo.from_pretrained(name)


def feature_model(model):
    """Return the part of `model` up to its pool, which gives a vector for each image."""
    import keras

    from mobilenet_common.facts import facts_of, remember

    x = _features(model)
    if len(x.shape) == 4:  # a pool that keeps its axes
        x = keras.layers.Flatten()(x)
    return remember(keras.Model(model.inputs[0], x, name=model.name), facts_of(model))


def _features(model):
    """Return the tensor of a model's features: what its last global pool gives, or what its MobileNet gives, pooled."""
    import keras

    from mobilenet_common.nesting import as_functional, calls, stem_of
    from mobilenet_zoo.exporting.prepared import data_format_of

    pools = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    model = as_functional(model, "features")
    x = model.outputs[0]
    for layer, inputs, outputs in reversed(calls(model)):
        if isinstance(layer, pools):
            return outputs[0]
        if isinstance(layer, keras.Model) and stem_of(layer) is not None:
            features = keras.Model(layer.inputs, _features(layer))
            return features(inputs[0])
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(data_format=data_format_of(model))(x)
    return x


def keras_classifier(name):
    """Return the Keras model that `--model` names, as a classifier."""
    model = load(name)
    return importlib.import_module("mobilenet_zoo.evaluation").KerasClassifier(model)


def _names(classifier, outputs):
    """Return the names of the classes, or None for those of ImageNet."""
    names, imagenet = classifier.class_names, len(imagenet_classes())
    if names is None and outputs not in (imagenet, imagenet + 1):
        names = [f"class {i}" for i in range(outputs)]
    return names


def find(places):
    """Find images; report each of `places` that has none.

    Returns:
        `(paths, absent)`: the paths of the images, and how many of `places` do not exist or have no images.

    Raises:
        ValueError: No place has an image, and none is the name of a file.
        typer.Exit: No file that is named exists.
    """
    paths, reasons, named = {}, [], False
    for place in places:
        found = reading.find_images([place])
        if found == [place] and not os.path.exists(place):
            reasons.append(f"{place} does not exist.")
            named = True
        elif not found:
            reasons.append(f"{place} has no images." if os.path.isdir(place) else f"{place} matches no file.")
        else:
            paths.update(dict.fromkeys(found))
    if not paths and not named:
        raise ArgumentError(f"There are no images in {', '.join(places)}: name files, folders or patterns.")
    for reason in reasons:
        messages.print(f"[yellow]skipped:[/yellow] {escape(reason)}", soft_wrap=True)
    if not paths:
        end(len(reasons))
    return list(paths), len(reasons)


def run(predict, transform, paths, batch_size, keep):
    """Call `keep(paths, outputs)` for each batch of images; return how many could not be read."""
    failed = 0
    with progress() as bar:
        task = bar.add_task("images", total=len(paths))
        for good, outputs, failures in reading.run(predict, transform, paths, batch_size):
            if good:
                keep(good, outputs)
            for error in failures:
                bar.console.print(f"[yellow]skipped:[/yellow] {escape(str(error))}", soft_wrap=True)
            failed += len(failures)
            bar.advance(task, len(good) + len(failures))
    return failed


def progress():
    """Return a bar for how many images are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal)


@contextlib.contextmanager
def _opened(output):
    if output is None:
        yield sys.stdout
        return
    with whole_file(output) as part, open(part, "w", encoding="utf-8", newline="") as stream:
        yield stream


def _write_table(found, stream):
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for path, predictions in found:
        for i, prediction in enumerate(predictions):
            table.add_row(
                "" if i else escape(printable(path)), escape(prediction.name), f"{prediction.probability:.1%}"
            )
    Console(file=stream).print(table)


def _write_csv(found, stream):
    writer = csv.writer(stream)
    writer.writerow(("image", "rank", "id", "name", "probability"))
    for path, predictions in found:
        for rank, prediction in enumerate(predictions, 1):
            writer.writerow((printable(path), rank, prediction.id, prediction.name, f"{prediction.probability:.6g}"))


def _write_jsonl(found, stream):
    for path, predictions in found:
        record = {"image": path, "predictions": [prediction._asdict() for prediction in predictions]}
        stream.write(as_json(record, stream) + "\n")


_WRITERS = {Format.TABLE: _write_table, Format.CSV: _write_csv, Format.JSONL: _write_jsonl}


def end(failed: int) -> None:
    """End with status 1 if images could not be read, and say how many."""
    if failed:
        messages.print(f"{failed} of the images could not be read.")
        raise typer.Exit(1)
