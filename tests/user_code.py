"""A typical user program. Pyright checks it against the packages' types, with its standard settings."""

from pathlib import Path

import keras
import numpy as np

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_common import Architecture, CheckpointError
from mobilenet_common.architecture import Conv, Universal
from mobilenet_common.errors import MobileNetError
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import VARIANTS, create_mobilenetv4
from mobilenet_zoo.training import load_recipe, read_data, train


def models() -> list[keras.Model]:
    """Create a model with each create function, with common arguments."""
    custom = Architecture(stem=Conv(16, stride=2), stages=((Universal(3, 3, 24, 48, 2),),))
    classifier = create_mobilenetv4("conv_small", num_classes=10, input_shape=(96, 96, 3), weights="imagenet")
    features: keras.Model = create_mobilenetv3("large", include_top=False, pooling="avg", dtype="mixed_bfloat16")
    pyramid = create_mobilenetv2(width_multiplier=1.4, include_top=False, pyramid_levels=(2, 3, 4, 5))
    preprocessed = create_mobilenetv1("0.5", include_preprocessing=(224, 224), input_shape=(None, None, 3))
    conv_medium = create_mobilenetv4(VARIANTS["conv_medium"])
    return [classifier, features, pyramid, preprocessed, create_mobilenetv4(custom), conv_medium]


def classify(paths: list[Path]) -> dict[str, float]:
    """Return the name and the probability of the most likely class of each image."""
    names: list[str] = mobilenet_zoo.list_models("*v4*", pretrained=True)
    model = mobilenet_zoo.create_model(names[0], weights="imagenet")
    prepare = mobilenet_zoo.preprocessing(model)
    batch: np.ndarray = prepare(paths)
    decoded = mobilenet_zoo.decode_predictions(model.predict(batch), top=1)
    return {predictions[0].name: predictions[0].probability for predictions in decoded}


def convert(path: Path) -> Path | None:
    """Load weights from another library, replace the classifier, and export the model."""
    model = create_mobilenetv2("1.0")
    try:
        mobilenet_zoo.load_checkpoint(model, path, layout="torchvision")
    except CheckpointError as error:
        print(error.missing, error.misshapen)
        return None
    except MobileNetError:
        return None
    model = mobilenet_zoo.fuse(mobilenet_zoo.reset_classifier(model, 5))
    profile = mobilenet_zoo.profile(model)
    print(profile.macs / 1e6, profile.parameters)
    report = mobilenet_zoo.export(model, path.with_suffix(".tflite"), quantization="int8", calibration="photos")
    print(report.path)
    return path.with_suffix(".tflite")


def run(path: Path, image: np.ndarray) -> np.ndarray:
    """Run an exported file without Keras."""
    exported = mobilenet_runtime.load(path)
    outputs = exported(image[None])
    return outputs if isinstance(outputs, np.ndarray) else outputs["probabilities"]


def finetune(folder: Path) -> float:
    """Train with a recipe and return the best validation accuracy."""
    recipe = load_recipe("finetune", {"epochs": 3})
    run = train(read_data(folder), "mobilenetv3_small_100", folder / "run", recipe=recipe, resume=True)
    return run.best["val_accuracy"]
