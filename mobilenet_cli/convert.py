"""`convert`: convert weights between the file formats of different libraries."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mobilenet_cli.constants import registry, weights
from mobilenet_cli.zoo import zoo
from mobilenet_common.errors import ArgumentError, unknown_name
from mobilenet_common.foreign import without_hub

# A copy of TORCH_LAYOUTS, because importing the original imports Keras.
LAYOUTS = ("huggingface", "timm", "compact", "torchvision")


class Target(StrEnum):
    """Values of `--to`."""

    NATIVE = "native"
    HUGGINGFACE = "huggingface"
    TIMM = "timm"
    COMPACT = "compact"
    TORCHVISION = "torchvision"


class Source(StrEnum):
    """Values of `--from`."""

    AUTO = "auto"
    HUGGINGFACE = "huggingface"
    TIMM = "timm"
    COMPACT = "compact"
    TORCHVISION = "torchvision"
    KERAS = "keras"
    NATIVE = "native"


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="File to read: Keras, safetensors or PyTorch.")],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="File to write: .keras or .weights.h5 for this library, .safetensors or .pth for other libraries.",
        ),
    ],
    from_: Annotated[
        Source, typer.Option("--from", help="Library whose tensor names IN uses. Default: detected from the file.")
    ] = Source.AUTO,
    to: Annotated[
        Target, typer.Option("--to", help="Library whose tensor names OUT uses; native for this library.")
    ] = Target.NATIVE,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Name of the model; required unless IN is a .keras file.")
    ] = None,
) -> None:
    """Convert a file of weights from one library's format to another's.

    `mobilenet-zoo convert flowers.keras flowers.safetensors --to timm`

    `mobilenet-zoo convert mobilenet_v2.pth mine.keras --from torchvision --model mobilenetv2_100`
    """
    _check_ending(target, to)
    loaded = _load(source, from_, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    if to == Target.NATIVE:
        if target.suffix == ".keras":
            loaded.save(target)
        else:
            loaded.save_weights(target)
    else:
        arguments = zoo().export_checkpoint(loaded, target, layout=to.value)
        if arguments:
            text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            print(f"timm.create_model({text}) builds the matching model.")
    print(f"Written: {target}")


def _load(source, layout, name):
    if name is None and source.suffix != ".keras":
        raise ArgumentError(
            f"{source} doesn't record which model its weights are for: pass the model's name, such as --model "
            "mobilenetv2_100."
        )
    if not source.is_file():
        raise ArgumentError(f"{source} is not a file: name an existing file of weights.")
    if name is not None and without_hub(name).partition("@")[0] not in {**registry(), **weights()}:
        raise unknown_name("--model", name, registry(), "mobilenet-zoo list --architectures")
    if name is None:
        zoo()  # registers the layers
        import keras

        return keras.saving.load_model(source, compile=False)
    create_model = zoo().create_model
    from mobilenet_common.checkpoints import StateDict

    state = StateDict.open(source, None if layout == Source.AUTO else layout.value)
    return create_model(name, weights=state)


def _check_ending(target, to):
    native = (".keras", ".weights.h5")
    if to == Target.NATIVE and not target.name.endswith(native):
        raise ArgumentError(f"{target} is not allowed with --to native: the file must end with {' or '.join(native)}.")
    if to != Target.NATIVE and target.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise ArgumentError(
            f"{target} is not allowed with --to {to.value}: the file must end with .safetensors or .pth."
        )
