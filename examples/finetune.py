"""Fine-tune a model on few images: the classifier first, then everything at rates that fall toward the stem.

    KERAS_BACKEND=jax python examples/finetune.py --output finetune_output

What it starts from has learned the handwritten digits 0 to 4 of scikit-learn's 1,797; the fresh task is to tell 5 to 9
apart, from ten images of each, and the other 846 are held out. With published weights in place of `learn_first` the
rest is the same.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_digits

import mobilenet_zoo
from mobilenet_v4 import create_mobilenetv4

SIZE, FEW, BATCH = 32, 10, 50


def digits(classes):
    """Return the digits of `classes`, (n, 32, 32, 1) in -1..1, and their places in `classes`."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 8 - 1
    images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (SIZE, SIZE)))
    chosen = np.isin(labels, classes)
    return images[chosen], np.searchsorted(classes, labels[chosen]).astype("int32")


def few_and_rest(images, labels):
    """Return `FEW` images of each class, drawn at random, and all the others."""
    random = np.random.default_rng(0)
    few = np.concatenate([random.permutation(np.flatnonzero(labels == label))[:FEW] for label in np.unique(labels)])
    rest = np.setdiff1d(np.arange(len(labels)), few)
    return (images[few], labels[few]), (images[rest], labels[rest])


def build():
    """Return a fresh model for five classes."""
    return create_mobilenetv4("conv_small", 5, (SIZE, SIZE, 1), width_multiplier=0.5, norm_momentum=0.9)


def fit(model, optimizer, data, held_out, epochs):
    """Train, and return the validation accuracy after each epoch."""
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*data, batch_size=BATCH, epochs=epochs, validation_data=held_out, verbose=0)
    return [float(number) for number in history.history["val_accuracy"]]


def learn_first(epochs):
    """Return a model that tells 0 to 4 apart."""
    images, labels = digits(range(5))
    model = build()
    accuracy = fit(model, keras.optimizers.AdamW(2e-3), (images, labels), (images, labels), epochs)
    print(f"digits 0 to 4: {accuracy[-1]:.1%} of its own training images after {epochs} epochs")
    return model


def set_trainable(model, names):
    """Train the layers whose names start with one of `names`, and freeze the others."""
    for layer in model.layers:
        layer.trainable = layer.name.startswith(names)


def fine_tune(model, data, held_out, epochs):
    """Train the head first, then everything; return the validation accuracies of both phases."""
    model = mobilenet_zoo.reset_classifier(model, 5)
    # What is fresh learns alone first: its first, wild gradients would spoil what the body knows.
    set_trainable(model, ("classifier", "head"))
    head = fit(model, keras.optimizers.AdamW(1e-2), data, held_out, epochs // 4)
    # Then everything, ever more slowly toward the stem.
    model.trainable = True
    optimizer = mobilenet_zoo.discriminative_rates(keras.optimizers.AdamW(2e-3), model, decay=0.7)
    return head, fit(model, optimizer, data, held_out, epochs - len(head))


def draw(curves, path):
    """Draw the validation accuracy by epoch."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    head, rest, scratch = curves["head"], curves["all"], curves["scratch"]
    epochs = np.arange(1, len(scratch) + 1)
    axis.plot(epochs, scratch, color="#999999", linewidth=2, label="from scratch")
    axis.plot(epochs, head + rest, color="#cc3311", linewidth=2, label="fine-tuned")
    axis.axvline(len(head) + 0.5, color="#cc3311", linewidth=1, linestyle=":")
    axis.text(len(head) + 1, 0.02, "all layers train", color="#cc3311")
    axis.set(xlabel="epoch of 50 images", ylabel="accuracy on 846 validation digits", ylim=(0, 1))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=140)


def main(arguments=None):
    """Return learn, fine-tune, learn the same from scratch, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("finetune_output"))
    parser.add_argument("--epochs", type=int, default=80, help="of the fine-tuning (default: 80)")
    parser.add_argument("--first-epochs", type=int, default=20, help="of the model it starts from (default: 20)")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    data, held_out = few_and_rest(*digits(range(5, 10)))
    head, rest = fine_tune(learn_first(options.first_epochs), data, held_out, options.epochs)
    scratch = fit(build(), keras.optimizers.AdamW(2e-3), data, held_out, options.epochs)
    curves = {"head": head, "all": rest, "scratch": scratch}
    (options.output / "curves.json").write_text(json.dumps(curves))
    draw(curves, options.output / "curves.png")
    print(f"head alone: {head[-1]:.1%}, all layers: {rest[-1]:.1%}, from scratch: {scratch[-1]:.1%}")
    print(f"written to {options.output}: curves.png, curves.json")
    return curves


if __name__ == "__main__":
    main()
