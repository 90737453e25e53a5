"""Fine-tune a model on a few images: first the classifier, then all layers, with lower rates toward the stem.

    KERAS_BACKEND=jax python examples/finetune.py --output finetune_output

The data are scikit-learn's 1,797 handwritten digits. The model is pretrained on the digits 0 to 4 and fine-tuned on the
digits 5 to 9, with ten images of each; the other 846 images are the validation set. To fine-tune published weights,
replace `pretrain`; the rest stays the same.
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
    """Return the digits of `classes`, of shape (n, 32, 32, 1) with values in -1..1, and their indices in `classes`."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 8 - 1
    images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (SIZE, SIZE)))
    chosen = np.isin(labels, classes)
    return images[chosen], np.searchsorted(classes, labels[chosen]).astype("int32")


def few_shot_split(images, labels):
    """Split the images into `FEW` random ones per class and the others. Return two tuples `(images, labels)`."""
    random = np.random.default_rng(0)
    few = np.concatenate([random.permutation(np.flatnonzero(labels == label))[:FEW] for label in np.unique(labels)])
    rest = np.setdiff1d(np.arange(len(labels)), few)
    return (images[few], labels[few]), (images[rest], labels[rest])


def build():
    """Build an untrained model for five classes."""
    return create_mobilenetv4("conv_small", 5, (SIZE, SIZE, 1), width_multiplier=0.5, norm_momentum=0.9)


def fit(model, optimizer, data, validation, epochs):
    """Train a model, and return the validation accuracy after each epoch."""
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*data, batch_size=BATCH, epochs=epochs, validation_data=validation, verbose=0)
    return [float(accuracy) for accuracy in history.history["val_accuracy"]]


def pretrain(epochs):
    """Return a model trained on the digits 0 to 4."""
    images, labels = digits(range(5))
    model = build()
    accuracy = fit(model, keras.optimizers.AdamW(2e-3), (images, labels), (images, labels), epochs)
    print(f"digits 0 to 4: training accuracy {accuracy[-1]:.1%} after {epochs} epochs")
    return model


def set_trainable(model, names):
    """Train the layers whose names start with one of `names`, and freeze the others."""
    for layer in model.layers:
        layer.trainable = layer.name.startswith(names)


def fine_tune(model, data, validation, epochs):
    """Train the head first, then everything; return the validation accuracies of both phases."""
    model = mobilenet_zoo.reset_classifier(model, 5)
    # Train the new head alone first, because its large initial gradients would damage the pretrained layers.
    set_trainable(model, ("classifier", "head"))
    head = fit(model, keras.optimizers.AdamW(1e-2), data, validation, epochs // 4)
    # Then train all layers, with lower rates toward the stem.
    model.trainable = True
    optimizer = mobilenet_zoo.discriminative_rates(keras.optimizers.AdamW(2e-3), model, decay=0.7)
    return head, fit(model, optimizer, data, validation, epochs - len(head))


def draw(curves, path):
    """Plot the validation accuracy by epoch."""
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
    """Pretrain, fine-tune, train from scratch, and compare. Return the accuracy curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("finetune_output"), help="folder for the results")
    parser.add_argument("--epochs", type=int, default=80, help="epochs of the fine-tuning (default: 80)")
    parser.add_argument("--first-epochs", type=int, default=20, help="epochs of the pretraining (default: 20)")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    data, validation = few_shot_split(*digits(range(5, 10)))
    head, rest = fine_tune(pretrain(options.first_epochs), data, validation, options.epochs)
    scratch = fit(build(), keras.optimizers.AdamW(2e-3), data, validation, options.epochs)
    curves = {"head": head, "all": rest, "scratch": scratch}
    (options.output / "curves.json").write_text(json.dumps(curves))
    draw(curves, options.output / "curves.png")
    print(f"head alone: {head[-1]:.1%}, all layers: {rest[-1]:.1%}, from scratch: {scratch[-1]:.1%}")
    print(f"written to {options.output}: curves.png, curves.json")
    return curves


if __name__ == "__main__":
    main()
