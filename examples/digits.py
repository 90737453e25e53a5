"""Train a MobileNetV4 on handwritten digits, save it, load it under another backend, and plot the results.

    KERAS_BACKEND=jax python examples/digits.py --output demo_output

The data are scikit-learn's 1,797 digits of 8×8 pixels. A fifth of them is the validation set.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mobilenet_zoo  # registers the layers, so that saved models load
from mobilenet_v4 import create_mobilenetv4

SIZE, BATCH, GOAL = 32, 64, 0.97


def load_data():
    """Return images and classes for training and validation.

    Returns:
        A list `[images, validation_images, classes, validation_classes]`. The images have the shape (n, 32, 32, 1) and
        values in -1..1.
    """
    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 8 - 1
    images = keras.ops.image.resize(images, (SIZE, SIZE), interpolation="bilinear")
    images = keras.ops.convert_to_numpy(images)
    return train_test_split(images, classes.astype("int32"), test_size=0.2, stratify=classes, random_state=0)


class ShiftedDigits(keras.utils.PyDataset):
    """Shuffled batches in which every digit is shifted by up to half a pixel of the 8×8 original."""

    def __init__(self, images, classes, seed=0):
        super().__init__()
        self.images, self.classes = images, classes
        self.random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return len(self.images) // BATCH  # full batches only, so that the model compiles for one shape

    def __getitem__(self, index):
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        shifts = self.random.integers(-2, 3, (BATCH, 2))
        images = [np.roll(self.images[i], shift, axis=(0, 1)) for i, shift in zip(chosen, shifts, strict=True)]
        return np.stack(images), self.classes[chosen]

    def on_epoch_end(self):
        """Shuffle the digits."""
        self.order = self.random.permutation(len(self.images))


class ProgressBar(keras.callbacks.Callback):
    """A single progress bar for all epochs."""

    def on_train_begin(self, logs=None):
        """Start the bar."""
        columns = TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
        self.bar = Progress(*columns)
        self.task = self.bar.add_task("compiling ...", total=self.params["epochs"] * self.params["steps"])
        self.bar.start()

    def on_train_batch_end(self, batch, logs=None):
        """Advance the bar by one step."""
        self.bar.advance(self.task)

    def on_epoch_end(self, epoch, logs=None):
        """Show the loss and the validation accuracy."""
        text = f"epoch {epoch + 1}: loss {logs['loss']:.3f}, validation accuracy {logs['val_accuracy']:.1%}"
        self.bar.update(self.task, description=text)
        if not self.bar.console.is_terminal:
            print(text, flush=True)

    def on_train_end(self, logs=None):
        """Stop the bar."""
        self.bar.stop()


def train(epochs):
    """Train a model. Return it, its history, and the images and classes of the validation set."""
    images, validation_images, classes, validation_classes = load_data()
    keras.utils.set_random_seed(0)
    # With this momentum, the moving statistics converge within the few hundred steps of this run.
    model = create_mobilenetv4(
        "conv_small", num_classes=10, input_shape=(SIZE, SIZE, 1), width_multiplier=0.5, norm_momentum=0.9
    )
    data = ShiftedDigits(images, classes)
    steps = epochs * len(data)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - steps // 5, warmup_target=4e-3, warmup_steps=max(1, steps // 5)
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        data,
        epochs=epochs,
        validation_data=(validation_images, validation_classes),
        verbose=0,
        callbacks=[ProgressBar()],
    )
    return model, history.history, validation_images, validation_classes


def predict_under(model_file, backend):
    """Return the saved model's predictions for the validation set, computed in a new process under `backend`."""
    result = Path(model_file).with_suffix(f".{backend}.npy")
    command = [sys.executable, __file__, "--predict", str(model_file), str(result)]
    subprocess.run(command, check=True, env=os.environ | {"KERAS_BACKEND": backend})
    probabilities = np.load(result)
    result.unlink()
    return probabilities


def draw_curves(history, path):
    """Plot loss and accuracy by epoch, for training and validation."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, history[name], label="training", color="#4477aa", linewidth=2)
        axis.plot(epochs, history[f"val_{name}"], label="validation", color="#ee6677", linewidth=2)
        axis.set(xlabel="epoch", ylabel=name)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylim(0, 3)  # Until the moving statistics converge, the validation loss can be huge.
    axes[1].set_ylim(0, 1.02)
    axes[1].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=140)


def draw_predictions(images, classes, probabilities, path):
    """Plot a grid of validation digits: first the misclassified ones, then those with the lowest confidence."""
    from matplotlib import pyplot as plt

    predictions, confidence = probabilities.argmax(1), probabilities.max(1)
    order = np.lexsort((confidence, predictions == classes))
    figure, axes = plt.subplots(4, 10, figsize=(11, 5.4), layout="constrained")
    for axis, i in zip(axes.flat, order, strict=False):
        is_correct = predictions[i] == classes[i]
        axis.imshow(images[i, :, :, 0], cmap="gray_r")
        title = f"{predictions[i]}  {confidence[i]:.0%}" if is_correct else f"{predictions[i]}, true: {classes[i]}"
        axis.set_title(
            title, fontsize=10, color="#228833" if is_correct else "#cc3311", fontweight=None if is_correct else "bold"
        )
        axis.set(xticks=[], yticks=[])
    wrong_count = int((predictions != classes).sum())
    figure.suptitle(
        f"{wrong_count} of {len(classes)} validation digits are misclassified (red); the rest is sorted by confidence"
    )
    figure.savefig(path, dpi=140)


def main():
    """Train, save, reload and plot. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the model and the plots")
    parser.add_argument("--epochs", type=int, default=20, help="number of epochs")
    parser.add_argument("--goal", type=float, default=GOAL, help="minimum validation accuracy for exit status 0")
    parser.add_argument("--predict", nargs=2, metavar=("MODEL", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        model = keras.saving.load_model(options.predict[0], compile=False)
        np.save(options.predict[1], model.predict(load_data()[1], verbose=0))
        return 0

    start = time.monotonic()
    backend = keras.backend.backend()
    print(f"MobileNetV4 on 1,797 handwritten digits, {backend} backend")
    model, history, validation_images, classes = train(options.epochs)
    probabilities = model.predict(validation_images, verbose=0)
    accuracy = float((probabilities.argmax(1) == classes).mean())
    options.output.mkdir(parents=True, exist_ok=True)
    model_file = options.output / "digits.keras"
    model.save(model_file)

    installed = [name for name in ("torch", "tensorflow", "jax") if importlib.util.find_spec(name)]
    other_backend = next((name for name in installed if name != backend), backend)
    reloaded_probabilities = predict_under(model_file, other_backend)
    difference = float(np.abs(reloaded_probabilities - probabilities).max())
    is_same = difference < 1e-4 and (reloaded_probabilities.argmax(1) == probabilities.argmax(1)).all()

    import matplotlib

    matplotlib.use("Agg")
    draw_curves(history, options.output / "learning_curves.png")
    draw_predictions(validation_images, classes, probabilities, options.output / "predictions.png")

    print(f"model         {mobilenet_zoo.profile(model).parameters:,} parameters, {model_file}")
    print(f"accuracy      {accuracy:.2%} of the validation digits")
    print(f"reloaded      {other_backend} backend, largest difference of a probability {difference:.1e}")
    print(f"plots         {options.output / 'learning_curves.png'}, {options.output / 'predictions.png'}")
    print(f"time          {time.monotonic() - start:.0f} s")
    if not is_same:
        print(f"The predictions under {other_backend} differ from those under {backend}.", file=sys.stderr)
    if accuracy < options.goal:
        print(f"The accuracy is below the goal of {options.goal:.0%}.", file=sys.stderr)
    return 0 if is_same and accuracy >= options.goal else 1


if __name__ == "__main__":
    sys.exit(main())
