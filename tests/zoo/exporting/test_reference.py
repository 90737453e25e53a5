"""`Reference`: the outputs that an exported file is compared with."""

import keras
import numpy as np

from mobilenet_v2 import create_mobilenetv2
from mobilenet_zoo.exporting.reference import Reference


def test_mixed_precision_model_predicts_in_float32():
    """Exported files compute in float32."""
    options = {"num_classes": 4, "input_shape": (32, 32, 3), "classifier_activation": None}
    plain = create_mobilenetv2("0.35", **options)
    mixed = create_mobilenetv2("0.35", **options, dtype="mixed_bfloat16")
    plain.get_layer("classifier").kernel.assign(keras.random.normal((1280, 4), seed=0))
    mixed.set_weights(plain.get_weights())
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    expected = plain.predict(images, verbose=0)
    reference = Reference(mixed, (32, 32))
    (outputs,) = reference(images)
    assert np.abs(outputs - expected).max() <= 2e-4 * np.abs(expected).max()
    blocks = reference.block_outputs(images)
    assert blocks["stem"].dtype == "float32" and len(blocks) > 17
