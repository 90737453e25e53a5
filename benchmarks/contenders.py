"""The models that are compared, and the libraries that have them."""

import dataclasses
import importlib.util
import re
import sys

IMAGE_SIZE = 224

# Execution modes of each backend, named as in its framework.
MODES = {
    "jax": ("jit",),
    "torch": ("eager", "compiled"),
    "tensorflow": ("graph", "jit_compile"),
}

# Names of Keras's dtype policies. For timm's models, PyTorch's autocast is the equivalent.
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class Model:
    """One architecture, with its name in each library.

    Attributes:
        name: Name for `mobilenet_zoo.create_model` and timm.
        generation: Number of the generation, which selects the create function.
        variant: Variant for the generation's create function.
        keras_application: Name of the function in keras.applications, or None.
        zeromodels: Variant of zeromodels' MobileNetV4, or None.
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


OURS, FUSED, OURS_PADDED = "ours", "ours, fused", "ours, padded as timm"
KERAS, ZEROMODELS, TIMM = "keras.applications", "zeromodels", "timm"

# timm's time is divided by that of our model with timm's padding, because both compute the same function.
REFERENCES = {TIMM: OURS_PADDED}


def names(model, backend, mode, measure):
    """Return the contenders of a measure, `"inference"` or `"training"`, for an entry of `MODELS`."""
    contenders = [OURS, FUSED] if measure == "inference" else [OURS]
    if mode != "compiled":  # PyTorch can compile neither Keras's training step nor the Keras peers as one graph.
        contenders += [KERAS] if model.keras_application else []
        contenders += [ZEROMODELS] if model.zeromodels and is_installed("zeromodels") else []
    elif measure == "training":
        return []
    return contenders + ([OURS_PADDED, TIMM] if backend == "torch" and is_installed("timm") else [])


def build(name, model):
    """Build the model of one contender, with random weights."""
    import mobilenet_zoo

    builders = {
        OURS: lambda: create(model),
        FUSED: lambda: mobilenet_zoo.fuse(create(model)),
        OURS_PADDED: lambda: mobilenet_zoo.create_model(model.name),
        KERAS: lambda: create_keras_application(model),
        ZEROMODELS: lambda: create_zeromodels(model),
        TIMM: lambda: create_timm(model),
    }
    return builders[name]()


def find(name):
    """Return the entry of `MODELS` with the given name."""
    return next(entry for entry in MODELS if entry.name == name)


def create(model, **options):
    """Build our model with the defaults of its create function."""
    module = importlib.import_module(f"mobilenet_v{model.generation}")
    return getattr(module, f"create_mobilenetv{model.generation}")(model.variant, **options)


def create_keras_application(model):
    """Build the same network from keras.applications, with random weights."""
    import keras

    options = {} if model.generation != 3 else {"include_preprocessing": False}
    return getattr(keras.applications, model.keras_application)(weights=None, **options)


def create_zeromodels(model):
    """Build the same network from zeromodels, with random weights."""
    from zeromodels.models.mobilenetv4 import MobileNetV4ImageClassify

    return MobileNetV4ImageClassify(model.zeromodels, image_size=IMAGE_SIZE, classifier_activation="softmax")


def create_timm(model):
    """Build timm's model, a PyTorch module in channels-last memory format, on the GPU if there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return import_timm().create_model(model.name).to(device, memory_format=torch.channels_last)


def is_installed(library):
    """Return whether `library` can be imported, without importing it."""
    return importlib.util.find_spec(library) is not None


def import_timm():
    """Return timm, even with a CPU build of PyTorch.

    timm imports torchvision, whose wheel refers to operators that only load with PyTorch's CUDA build. Declaring each
    missing operator by name is enough, because no classification model calls one.
    """
    import torch

    while True:
        try:
            import timm

            return timm
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor x) -> Tensor")
            _DECLARED.append(library)
            for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
                del sys.modules[name]


_DECLARED = []  # keeps the libraries alive, because deleting one also removes its operators
