"""The models that are compared, and who else has them."""

import dataclasses
import importlib.util
import re
import sys

IMAGE_SIZE = 224

# How a call is run under each backend, in the words of that framework.
MODES = {
    "jax": ("jit",),
    "torch": ("eager", "compiled"),
    "tensorflow": ("graph", "jit_compile"),
}

# By Keras's names of the policies; timm's equivalent is PyTorch's autocast.
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class Model:
    """One architecture under the names that each library gives it.

    Attributes:
        name: As `mobilenet_zoo.create_model` and timm call it.
        generation, variant: What the generation's create function takes.
        keras_application: The function of keras.applications, or None.
        zeromodels: The variant of zeromodels' MobileNetV4, or None.
    """

    name: str
    generation: int
    variant: str
    keras_application: str | None = None
    zeromodels: str | None = None


MODELS = (
    Model("mobilenetv1_100", 1, "1.0", keras_application="MobileNet"),
    Model("mobilenetv2_100", 2, "1.0", keras_application="MobileNetV2"),
    Model("mobilenetv3_large_100", 3, "large", keras_application="MobileNetV3Large"),
    Model("mobilenetv3_small_100", 3, "small", keras_application="MobileNetV3Small"),
    Model("mobilenetv4_conv_small", 4, "conv_small", zeromodels="conv_small"),
    Model("mobilenetv4_conv_medium", 4, "conv_medium", zeromodels="conv_medium"),
    Model("mobilenetv4_hybrid_medium", 4, "hybrid_medium", zeromodels="hybrid_medium"),
)


OURS, FUSED, ALIKE = "ours", "ours, fused", "ours, padded as timm"
KERAS, ZEROMODELS, TIMM = "keras.applications", "zeromodels", "timm"

# timm computes what our model with its padding computes, so that is what its time is held against.
REFERENCES = {TIMM: ALIKE}


def names(model, backend, mode, measure):
    """Return who takes part in a measure, `"inference"` or `"training"`, of an entry of `MODELS`."""
    found = [OURS, FUSED] if measure == "inference" else [OURS]
    if mode != "compiled":  # as one graph, PyTorch compiles neither Keras's training step nor the peers in Keras
        found += [KERAS] if model.keras_application else []
        found += [ZEROMODELS] if model.zeromodels and is_installed("zeromodels") else []
    elif measure == "training":
        return []
    return found + ([ALIKE, TIMM] if backend == "torch" and is_installed("timm") else [])


def build(name, model):
    """Return the model of one contender, with random weights."""
    import mobilenet_zoo

    makers = {
        OURS: lambda: create(model),
        FUSED: lambda: mobilenet_zoo.fuse(create(model)),
        ALIKE: lambda: mobilenet_zoo.create_model(model.name),
        KERAS: lambda: create_keras_application(model),
        ZEROMODELS: lambda: create_zeromodels(model),
        TIMM: lambda: create_timm(model),
    }
    return makers[name]()


def find(name):
    """Return the entry of `MODELS` called `name`."""
    return next(entry for entry in MODELS if entry.name == name)


def create(model, **options):
    """Return our model, with the defaults of its create function."""
    module = importlib.import_module(f"mobilenet_v{model.generation}")
    return getattr(module, f"create_mobilenetv{model.generation}")(model.variant, **options)


def create_keras_application(model):
    """Return the same network of keras.applications, with random weights."""
    import keras

    options = {} if model.generation != 3 else {"include_preprocessing": False}
    return getattr(keras.applications, model.keras_application)(weights=None, **options)


def create_zeromodels(model):
    """Return the same network of zeromodels, with random weights."""
    from zeromodels.models.mobilenetv4 import MobileNetV4ImageClassify

    return MobileNetV4ImageClassify(model.zeromodels, image_size=IMAGE_SIZE, classifier_activation="softmax")


def create_timm(model):
    """Return Timm's model, a PyTorch module in channels-last memory, on the GPU if there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return import_timm().create_model(model.name).to(device, memory_format=torch.channels_last)


def is_installed(library):
    """Return whether `library` can be imported, without importing it."""
    return importlib.util.find_spec(library) is not None


def import_timm():
    """Return timm, also beside a CPU build of PyTorch.

    timm imports torchvision, whose wheel describes operators that only PyTorch's CUDA build lets it load. Declaring
    each that is missed, by name, is enough: no classification model calls one.
    """
    import torch

    while True:
        try:
            import timm

            return timm
        except RuntimeError as error:
            missed = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missed is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missed[1]}(Tensor x) -> Tensor")
            _DECLARED.append(library)
            for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
                del sys.modules[name]


_DECLARED = []  # a library that is dropped takes its operators with it
