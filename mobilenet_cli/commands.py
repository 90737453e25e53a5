"""The command-line application with all of its commands."""

from typing import Annotated

import typer

from mobilenet_cli.bench import bench
from mobilenet_cli.convert import convert
from mobilenet_cli.evaluate import evaluate, explain
from mobilenet_cli.export import export
from mobilenet_cli.listing import info, list_weights, plot
from mobilenet_cli.output import report_errors
from mobilenet_cli.predict import features, predict
from mobilenet_cli.quiet import quiet
from mobilenet_cli.train import TrainCommand, train
from mobilenet_runtime.version import VERSION

app = typer.Typer(
    name="mobilenet-zoo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Every MobileNet, V1 to V4: find published weights, run them on images, train and export models.

    Find a model: `mobilenet-zoo list --max-macs 500 --sort accuracy`

    Show its details: `mobilenet-zoo info mobilenetv4_conv_small.e2400_r224_in1k`

    Run it: `mobilenet-zoo predict photos/ --model mobilenetv4_conv_small.e2400_r224_in1k`

    Evaluate a model: `mobilenet-zoo evaluate flowers.keras photos/ -o report.html`

    Train it on your own classes: `mobilenet-zoo train photos/ --model mobilenetv4_conv_small`

    Export it for a device: `mobilenet-zoo export mobilenetv4_conv_small.e2400_r224_in1k small.tflite`

    Weights are downloaded on first use and cached. KERAS_BACKEND selects the backend: tensorflow, jax or torch. Log
    messages of the frameworks are shown only if a framework fails; TF_CPP_MIN_LOG_LEVEL=0 always shows them.
    `bench`, and `predict` and `evaluate` with an exported file, need neither Keras nor a backend.
    """,
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Handle the options that apply without a command."""
    if version:
        print(VERSION)
        raise typer.Exit


for name, command in {
    "list": list_weights,
    "info": info,
    "plot": plot,
    "predict": quiet(predict),
    "features": quiet(features),
    "evaluate": quiet(evaluate),
    "explain": quiet(explain),
    "convert": quiet(convert),
    "train": quiet(train),
    "export": quiet(export),
    "bench": quiet(bench),
}.items():
    app.command(name, cls=TrainCommand if name == "train" else None)(report_errors(command))
