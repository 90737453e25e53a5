"""Models as functions to time: one call is one finished inference or one training step."""

import keras
import numpy as np

from benchmarks import contenders


def program(contender, model, mode, measure, batch_size):
    """Return the function of a contender for one measure and one entry of `contenders.MODELS`."""
    images, labels = batch(batch_size)
    built = contenders.build(contender, model)
    is_timm = contender == contenders.TIMM
    if measure == "training":
        return (timm_training if is_timm else training)(built, mode, images, labels)
    return (timm_inference if is_timm else inference)(built, mode, images)


def inference(model, mode, images):
    """Return a function that predicts `images` (a channels-last NumPy array) and waits for the result."""
    backend = keras.backend.backend()
    if backend == "jax":
        return _jax_inference(model, images)
    if backend == "torch":
        return _torch_inference(lambda x: model(x, training=False), mode, images, lambda x: x)
    return _tensorflow_inference(model, mode, images)


def training(model, mode, images, labels):
    """Return a function without arguments that trains one step with Keras's own loop and plain SGD."""
    compiled = mode in ("jit", "compiled", "jit_compile")
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="sparse_categorical_crossentropy", jit_compile=compiled)
    return lambda: model.train_on_batch(images, labels)


def timm_inference(module, mode, images):
    """Return the same as `inference` for a PyTorch module, with autocast if Keras's dtype policy is mixed."""
    module = module.eval()

    def predict(x):
        with _autocast(x.device.type):
            return module(x)

    return _torch_inference(predict if _mixed() else module, mode, images, lambda x: x.permute(0, 3, 1, 2))


def timm_training(module, mode, images, labels):
    """Return the same as `training` for a PyTorch module, with the usual PyTorch training loop."""
    import torch

    module = module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    device = next(module.parameters()).device
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels).to(device)

    def step():
        optimizer.zero_grad()
        with _autocast(device.type):
            loss = loss_of(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _mixed():
    return keras.config.dtype_policy().name == "mixed_bfloat16"


def _autocast(device):
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=_mixed())


def _jax_inference(model, images):
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    rest = [variable.value for variable in model.non_trainable_variables]
    predict = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=False)[0])
    x = jax.numpy.asarray(images)
    return lambda: jax.block_until_ready(predict(trainable, rest, x))


def _torch_inference(predict, mode, images, arrange):
    import torch

    if mode == "compiled":
        predict = torch.compile(predict, dynamic=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = arrange(torch.from_numpy(images).to(device))

    def run():
        with torch.inference_mode():
            y = predict(x)
            if device == "cuda":
                torch.cuda.synchronize()
            return y

    return run


def _tensorflow_inference(model, mode, images):
    import tensorflow as tf

    predict = tf.function(lambda x: model(x, training=False), jit_compile=mode == "jit_compile")
    x = tf.constant(images)
    return lambda: predict(x).numpy()


def batch(size, image_size=contenders.IMAGE_SIZE):
    """Return random images and random labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((size, image_size, image_size, 3), dtype="float32")
    return images, rng.integers(0, 1000, size)
