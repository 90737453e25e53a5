"""`train`: a model that learns from a user's own images."""

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mobilenet_cli import quiet
from mobilenet_cli.constants import recipe_fields
from mobilenet_cli.constants import recipes as recipe_summaries
from mobilenet_cli.output import messages
from mobilenet_cli.predict import check_name
from mobilenet_cli.zoo import choose_backend, prepare_to_repeat
from mobilenet_common.errors import ArgumentError


class TrainCommand(typer.core.TyperCommand):
    """`train`, which knows that a field of the recipe is no option of its own."""

    def parse_args(self, ctx, args):
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)  # of Click's `NoSuchOption`, wherever Typer has Click from
            field = option and _field(option.lstrip("-"))
            if field:
                message = f"No such option: {option}. It is a field of the recipe: {_setting(option, field, given)}."
                vars(error).update(message=message, possibilities=None)
            raise


def _field(name):
    """Return the field of a recipe that an option is called after, or None."""
    fields = recipe_fields()
    name = name.replace("-", "_")
    return name if name in fields else next((field for field in fields if field.rpartition(".")[2] == name), None)


def _setting(option, field, given):
    """Return how to set a field in place of what was given."""
    value = "VALUE"
    for text, following in zip(given, [*given[1:], None], strict=True):
        if text.startswith(f"{option}="):
            value = text.partition("=")[2]
        elif text == option and following is not None and not following.startswith("-"):
            value = following
    return f"--set {field}={value}"


TERMINATED = 75  # as sysexits.h has it: a temporary failure, try again


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder with a folder of images for each class, a .csv or .jsonl file of paths and labels, an "
            ".npz, or a Hugging Face dataset, hf:user/name.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model's or published weights' name as `list` shows them, a .keras file, or a folder of "
            "save_pretrained. mobilenetv4_conv_small if left out.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")] = Path("run"),
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="A recipe's name or YAML file. finetune if left out.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field that differs from the recipe's, repeated for more."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="That the model starts from: imagenet, a tag of published weights, or none."),
    ] = None,
    validation: Annotated[str | None, typer.Option(help="Images to hold out, as DATA.")] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Fraction of each class to hold out where DATA has no validation part.")
    ] = 0.2,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A model as --model, of the same classes, whose predictions are learned too; or the .npz of them that "
            "`evaluate --predictions` wrote."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")
    ] = False,
    checkpoint_seconds: Annotated[float, typer.Option(help="From one checkpoint to the next.")] = 30.0,
    keep: Annotated[int, typer.Option(help="How many checkpoints stay, beside the best.")] = 3,
    workers: Annotated[int, typer.Option(help="Processes that read images; 0 for threads.")] = 0,
    damaged_limit: Annotated[
        int | None, typer.Option(help="How many damaged images are skipped; 1%, at least 10, if left out.")
    ] = None,
    devices: Annotated[int, typer.Option(help="Devices of this host, which share each batch.")] = 1,
    hosts: Annotated[
        str | None,
        typer.Option(help="All hosts of the run, host:port,host:port, the same on each; slurm; or tpu under JAX."),
    ] = None,
    host_index: Annotated[int | None, typer.Option(help="Which of --hosts this is, from 0.")] = None,
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes and end.")] = False,
) -> None:
    """Train a model on images of your own.

    `mobilenet-zoo train photos/ --model mobilenetv4_conv_small -o runs/first --set epochs=10`

    The run's folder holds checkpoints, the log, and in the end `model/`, which `predict`, `evaluate` and `export` take.
    A run that was killed resumes with the same command and `--resume`; after SIGTERM it is saved, and the exit status
    is 75. Standard output has a line for each epoch, standard error the progress.
    """
    if recipes:
        return _list_recipes()
    if data is None:
        raise ArgumentError("DATA is missing: name a folder of class folders, a manifest, an .npz or hf:user/name.")
    _check(data, validation, model, teacher)
    choose_backend()
    prepare_to_repeat()
    training = importlib.import_module("mobilenet_zoo.training")
    several = {"devices": devices, "hosts": hosts, "host_index": host_index}
    started = importlib.import_module("mobilenet_zoo.training.devices")
    if started.needs_launch(devices, hosts):
        quiet.release()  # what the processes print is theirs
        program = ["-c", "from mobilenet_cli import main; main()", *sys.argv[1:]]
        raise typer.Exit(started.launch(program, **several, stopped_status=TERMINATED))
    try:
        run = training.train(
            data,
            model,
            output,
            recipe=recipe,
            overrides=set_,
            weights=False if weights == "none" else weights,
            validation=validation,
            validation_fraction=validation_fraction,
            teacher=teacher,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            keep=keep,
            workers=workers,
            damaged_limit=damaged_limit,
            **several,
        )
    except training.Terminated as error:
        messages.print(escape(str(error)), soft_wrap=True)
        raise typer.Exit(TERMINATED) from None
    print(
        f"The best epoch is {run.best['epoch']}: {run.best['val_accuracy']:.1%} of the validation images right. "
        f"The model is in {run.folder / 'model'}."
    )


def _check(data, validation, model, teacher):
    """Raise the `ValueError` for names of what is not there, before a framework is loaded."""
    for argument, place in (("DATA", data), ("--validation", validation)):
        if place is not None and not place.startswith("hf:") and not Path(place).exists():
            raise ArgumentError(f"{argument}={place!r} does not exist.")
    if model is not None:
        check_name("--model", model)
    if teacher is not None and Path(teacher).suffix != ".npz":
        check_name("--teacher", teacher)


def _list_recipes():
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    table.add_column("what for")
    for name, summary in recipe_summaries().items():
        table.add_row(name, escape(summary))
    Console().print(table)
