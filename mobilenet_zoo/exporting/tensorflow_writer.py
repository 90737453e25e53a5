"""Write SavedModel folders and LiteRT files with TensorFlow."""

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from mobilenet_common.internals.tensorflow_internals import freeze_variables
from mobilenet_common.ops.formulations import traced_for
from mobilenet_zoo.exporting.prepared import output_names


def write_saved_model(model, path, target="saved_model"):
    """Write the prepared `model` as a SavedModel with one signature, `serving_default`, and constant weights."""
    specification = tf.TensorSpec(model.inputs[0].shape, tf.float32, name="image")
    names = output_names(model)

    def trace(image):
        with traced_for(target):
            outputs = model(image, training=False)
        return outputs if isinstance(outputs, dict) else dict(zip(names, tf.nest.flatten(outputs), strict=True))

    traced = tf.function(trace, input_signature=[specification]).get_concrete_function()
    frozen = freeze_variables(traced)
    module: Any = tf.Module()
    module.frozen = frozen  # Keep a reference: the constants are freed with the function.

    @tf.function(input_signature=[specification])
    def serve(image):
        # TensorFlow flattens a dict in the order of its sorted keys.
        return dict(zip(sorted(names), tf.nest.flatten(frozen(image)), strict=True))

    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # The file is for inference only.
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve}, options=options)


def write_litert(model, path, target="litert"):
    """Write the prepared `model` as a LiteRT file."""
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        write_saved_model(model, folder, target)
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    Path(path).write_bytes(content)
