"""`train`: train a model on the user's own images."""

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
from mobilenet_cli.zoo import choose_backend, fix_operation_order
from mobilenet_common.errors import ArgumentError


class TrainCommand(typer.core.TyperCommand):
    """The command `train`, whose usage errors explain that recipe fields are not command-line options."""

    def parse_args(self, ctx, args):
        arguments = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Compare the name of Click's exception: some Typer versions bundle Click, so there are two such classes.
            option = getattr(error, "option_name", None) if type(error).__name__ == "NoSuchOption" else None
            field = option and _field(option.lstrip("-"))
            if field:
                message = f"No such option: {option}. It is a recipe field: use {_setting(option, field, arguments)}."
                vars(error).update(message=message, possibilities=None)
            raise


def _field(name):
    """Return the recipe field that an option is named after, or None."""
    fields = recipe_fields()
    name = name.replace("-", "_")
    return name if name in fields else next((field for field in fields if field.rpartition(".")[2] == name), None)


def _setting(option, field, arguments):
    """Return the `--set` argument that sets the field to the value of an option on the command line."""
    value = "VALUE"
    for text, following in zip(arguments, [*arguments[1:], None], strict=True):
        if text.startswith(f"{option}="):
            value = text.partition("=")[2]
        elif text == option and following is not None and not following.startswith("-"):
            value = following
    return f"--set {field}={value}"


TERMINATED = 75  # EX_TEMPFAIL in sysexits.h: a temporary failure, so try again


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="Training data: an image folder (one sub-folder per class), a .csv or .jsonl file of paths and "
            "labels, an .npz file, or a Hugging Face dataset (hf:user/name).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Name of a model or of published weights (see `list`), a .keras file, or a folder written by "
            "save_pretrained. Default: mobilenetv4_conv_small.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files of the run.")] = Path("run"),
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Name or YAML file of a recipe. Default: finetune.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Recipe field to change; may be repeated."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights that the model starts from: imagenet, a tag of published weights, or none."),
    ] = None,
    validation: Annotated[str | None, typer.Option(help="Validation set, in any format of DATA.")] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Fraction of each class to validate on if DATA has no validation split.")
    ] = 0.2,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Teacher for distillation, with the same classes: any value of --model, or an .npz file of "
            "predictions from `evaluate --predictions`."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in the folder of --output, if there is one.")
    ] = False,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 30.0,
    keep: Annotated[int, typer.Option(help="Number of latest checkpoints to keep, in addition to the best.")] = 3,
    workers: Annotated[int, typer.Option(help="Number of processes that read images; 0 uses threads.")] = 0,
    damaged_limit: Annotated[
        int | None, typer.Option(help="Maximum number of damaged images to skip. Default: 1%, at least 10.")
    ] = None,
    devices: Annotated[int, typer.Option(help="Number of devices of this host that share each batch.")] = 1,
    hosts: Annotated[
        str | None,
        typer.Option(
            help="All hosts of the run: host:port,host:port, in the same order on each host; slurm; or tpu under JAX."
        ),
    ] = None,
    host_index: Annotated[int | None, typer.Option(help="Index of this host in --hosts, from 0.")] = None,
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes and exit.")] = False,
) -> None:
    """Train a model on your own images.

    `mobilenet-zoo train photos/ --model mobilenetv4_conv_small -o runs/first --set epochs=10`

    The run's folder contains checkpoints, the log and, at the end, `model/`, which `predict`, `evaluate` and `export`
    take. To resume a killed run, use the same command with `--resume`. On SIGTERM, the run saves its state and exits
    with status 75. Standard output has one line per epoch; the progress goes to standard error.
    """
    if recipes:
        return _list_recipes()
    if data is None:
        raise ArgumentError(
            "DATA is missing: pass an image folder, a .csv or .jsonl file, an .npz file or hf:user/name."
        )
    _check(data, validation, model, teacher)
    choose_backend()
    fix_operation_order()
    training = importlib.import_module("mobilenet_zoo.training")
    placement = {"devices": devices, "hosts": hosts, "host_index": host_index}
    launcher = importlib.import_module("mobilenet_zoo.training.devices")
    if launcher.needs_launch(devices, hosts):
        quiet.release()  # Each launched process hides messages itself.
        program = ["-c", "from mobilenet_cli import main; main()", *sys.argv[1:]]
        raise typer.Exit(launcher.launch(program, **placement, stopped_status=TERMINATED))
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
            **placement,
        )
    except training.Terminated as error:
        messages.print(escape(str(error)), soft_wrap=True)
        raise typer.Exit(TERMINATED) from None
    print(
        f"The best epoch is {run.best['epoch']}, with a validation accuracy of {run.best['val_accuracy']:.1%}. "
        f"The model is in {run.folder / 'model'}."
    )


def _check(data, validation, model, teacher):
    """Raise a `ValueError` for data and models that don't exist, before a framework is loaded."""
    for argument, path in (("DATA", data), ("--validation", validation)):
        if path is not None and not path.startswith("hf:") and not Path(path).exists():
            raise ArgumentError(f"{argument}={path!r} does not exist.")
    if model is not None:
        check_name("--model", model)
    if teacher is not None and Path(teacher).suffix != ".npz":
        check_name("--teacher", teacher)


def _list_recipes():
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    table.add_column("purpose")
    for name, summary in recipe_summaries().items():
        table.add_row(name, escape(summary))
    Console().print(table)
