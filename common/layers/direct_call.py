"""Calling a layer without Keras's checks around it, where they have nothing to do."""

from typing import Any

import keras

from mobilenet_common.internals.keras_internals import HAS_DIRECT_CALLS, is_direct_call, surrounding_training


class DirectCallLayer(keras.layers.Layer):
    """A layer with `call(x, training)` on one tensor, which PyTorch calls thousands of times a second.

    Keras's `__call__` converts and checks arguments, opens scopes and looks for masks: about 0.1 ms, as long as a
    small convolution takes. An eager tensor of the layer's own type, in a layer that is built and computes in the type
    of its variables, needs none of that.
    """

    def _pass_on_trainable(self):
        """Freeze what `build` made inside a layer that was frozen before, such as one that is loaded from a file.

        Keras sets `trainable` on the parts of a layer when it is set on the layer, and not when they are made later.
        """
        if not self.trainable:
            self.trainable = False

    if keras.backend.backend() == "torch" and HAS_DIRECT_CALLS:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if not self._is_plain(args, kwargs):
                return super().__call__(*args, **kwargs)
            training = kwargs.get("training")
            if training is None:
                training = surrounding_training()
            return self.call(args[0], training)

        def _is_plain(self, args, kwargs):
            if not self.built or len(args) != 1 or (kwargs and kwargs.keys() != {"training"}):
                return False
            x = args[0]
            return (
                type(x) is _Tensor
                and x.dtype is _TYPES.get(self.compute_dtype)
                and self.compute_dtype == self.variable_dtype
                and is_direct_call(self, x)
            )


if keras.backend.backend() == "torch":
    import torch

    _Tensor = torch.Tensor
    _TYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
