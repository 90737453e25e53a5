"""Base class of layers that skip Keras's `__call__` when it would have no effect."""

from typing import Any

import keras

from mobilenet_common.internals.keras_internals import HAS_DIRECT_CALLS, is_direct_call, surrounding_training


class DirectCallLayer(keras.layers.Layer):
    """Layer with `call(x, training)` for a single tensor, with little overhead per call under PyTorch.

    Keras's `__call__` converts and checks arguments, opens scopes and looks for masks. This takes about 0.1 ms, as long
    as a small convolution. Under PyTorch, this class skips it if the layer is built, has one dtype for computation and
    variables, and is called on an eager tensor of that dtype.
    """

    def _propagate_trainable(self):
        """Freeze the sublayers that `build` created if the layer itself is frozen, as a layer from a file can be.

        Setting `trainable` on a layer sets it on the existing sublayers, but not on those that are created later.
        """
        if not self.trainable:
            self.trainable = False

    if keras.backend.backend() == "torch" and HAS_DIRECT_CALLS:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if not self._can_call_directly(args, kwargs):
                return super().__call__(*args, **kwargs)
            training = kwargs.get("training")
            if training is None:
                training = surrounding_training()
            return self.call(args[0], training)

        def _can_call_directly(self, args, kwargs):
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
