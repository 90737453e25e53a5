"""`convert`: weights from one library's files to another's."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mobilenet_cli.constants import registry, weights
from mobilenet_cli.zoo import zoo
from mobilenet_common.errors import ArgumentError, unknown_name
from mobilenet_common.foreign import without_hub

LAYOUTS = ("huggingface", "timm", "compact", "torchvision")  # TORCH_LAYOUTS, which must be had without Keras here


class Target(StrEnum):
    """What `--to` takes."""

    NATIVE = "native"
    HUGGINGFACE = "huggingface"
    TIMM = "timm"
    COMPACT = "compact"
    TORCHVISION = "torchvision"


class Source(StrEnum):
    """What `--from` takes."""

    AUTO = "auto"
    HUGGINGFACE = "huggingface"
    TIMM = "timm"
    COMPACT = "compact"
    TORCHVISION = "torchvision"
    KERAS = "keras"
    NATIVE = "native"


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A Keras, safetensors or PyTorch file.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .keras or .weights.h5 file, or .safetensors or .pth for others.")
    ],
    from_: Annotated[
        Source, typer.Option("--from", help="The library whose names the tensors of IN have.")
    ] = Source.AUTO,
    to: Annotated[
        Target, typer.Option("--to", help="The library whose names to write to OUT; native: this one's.")
    ] = Target.NATIVE,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model's name; needed unless IN is a .keras file.")
    ] = None,
) -> None:
    """Convert weights from one library's files to another's.

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
            said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            print(f"timm.create_model({said}) builds the model of these weights.")
    print(f"Written: {target}")


def _load(source, layout, name):
    if name is None and source.suffix != ".keras":
        raise ArgumentError(f"{source} doesn't say which model it is for: name it by --model, as in mobilenetv2_100.")
    if not source.is_file():
        raise ArgumentError(f"{source} is not a file.")
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
