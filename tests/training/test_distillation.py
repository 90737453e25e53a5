"""Loss and gradient of distillation compared with NumPy, and training of a student."""

import keras
import numpy as np
import pytest

from mobilenet_common.facts import Facts, remember
from mobilenet_runtime.evaluation import read_predictions, save_predictions
from mobilenet_v2 import create_mobilenetv2
from mobilenet_zoo.training.compiling import compile_model
from mobilenet_zoo.training.distillation import Distiller, blend_targets, distillation_loss
from mobilenet_zoo.training.recipes import load_recipe
from tests.training.small import TINY, images, tiny, values


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def predict(model, x, training=False):
    return keras.ops.convert_to_numpy(model(x, training=training)).astype("float64")


def confident_teacher(**options):
    """Return a model with confident predictions; those of a new model are almost uniform."""
    model = tiny(**options)
    kernel, bias = model.get_layer("classifier").trainable_variables
    random = np.random.default_rng(3)
    kernel.assign(random.normal(scale=3, size=tuple(kernel.shape)).astype("float32"))
    bias.assign(random.normal(size=tuple(bias.shape)).astype("float32"))
    return model


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_matches_numpy(temperature):
    random = np.random.default_rng(0)
    teacher, student = random.normal(scale=3, size=(2, 5, 4))
    q, p = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (q * np.log(q / p)).sum(axis=-1)
    actual = keras.ops.convert_to_numpy(distillation_loss(teacher, student, temperature))
    np.testing.assert_allclose(actual, expected, rtol=2e-4)
    shifted = keras.ops.convert_to_numpy(distillation_loss(np.log(softmax(teacher)), student + 7, temperature))
    np.testing.assert_allclose(shifted, expected, rtol=2e-4)  # log-probabilities are valid logits


@pytest.mark.parametrize(
    ("temperature", "weight"),
    [(1.0, 0.5), *(pytest.param(*numbers, marks=pytest.mark.neutral) for numbers in ((3.0, 0.7), (2.0, 1.0)))],
)
def test_loss_and_gradient_match_numpy(temperature, weight):
    """The gradient of the classifier's bias is T · (p_T - q_T) for the teacher and p - y for the labels."""
    x, y = images()
    student, teacher = tiny(), confident_teacher()
    p, q = predict(student, x, training=True), predict(teacher, x)
    softened_p, softened_q = softmax(np.log(p) / temperature), softmax(np.log(q) / temperature)
    divergence = temperature**2 * (softened_q * np.log(softened_q / softened_p)).sum(axis=1)
    loss = weight * divergence.mean() - (1 - weight) * (y * np.log(p)).sum(axis=1).mean()
    gradient = weight * temperature * (softened_p - softened_q) + (1 - weight) * (p - y)
    recipe = load_recipe({}, {"optimizer.name": "sgd", "optimizer.learning_rate": 1, "schedule.name": "constant"})
    model = compile_model(Distiller(student, teacher, temperature, weight), recipe, 1, metrics=())
    before = values([student.get_layer("classifier").bias])[0]
    actual = model.train_on_batch(x, y)
    assert float(np.ravel(actual)[0]) == pytest.approx(loss, rel=1e-3)
    change = values([student.get_layer("classifier").bias])[0] - before
    np.testing.assert_allclose(change, -gradient.mean(axis=0), rtol=2e-3, atol=1e-5)


@pytest.mark.neutral
def test_teacher_is_neither_trained_nor_tracked():
    x, y = images()
    student, teacher = tiny(), confident_teacher()
    before = values(teacher.variables)
    model = compile_model(Distiller(student, teacher), load_recipe({}, {"ema": {}}), 1)
    model.fit(x, y, epochs=1, verbose=0)
    assert [v.path for v in model.variables if "seed" not in v.path and "metric" not in v.path][
        : len(student.variables)
    ] == [v.path for v in student.variables if "seed" not in v.path]
    assert not {id(v) for v in teacher.variables} & {id(v) for v in [*model.variables, *model.optimizer.variables]}
    assert len(model.trainable_variables) == len(student.trainable_variables)
    for old, new in zip(before, values(teacher.variables), strict=True):
        np.testing.assert_array_equal(old, new)
    loss = model.evaluate(x, y, verbose=0)[0]  # `evaluate` uses only the labels
    assert loss == pytest.approx(-(y * np.log(predict(student, x))).sum(axis=1).mean(), rel=1e-4)


@pytest.mark.neutral
def test_student_learns_from_its_teacher():
    x, y = images(32)
    student, teacher = tiny(norm_momentum=0.5), confident_teacher()
    overrides = {"optimizer.learning_rate": 0.02, "epochs": 25, "schedule.warmup_epochs": 1}
    model = compile_model(Distiller(student, teacher, 1.0, 1.0), load_recipe({}, overrides), 1)
    history = model.fit(x, y, batch_size=32, epochs=25, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_teacher_input_is_rescaled_and_resized():
    """The student takes 16×16 images in -1..1; one teacher takes pixels in 0..255, the other one 32×32 images."""
    x = np.repeat(np.repeat(images(size=8)[0], 2, axis=1), 2, axis=2).clip(-1, 1)
    teacher = confident_teacher(include_preprocessing=True)
    actual = Distiller(tiny(), teacher)._teacher_logits(x)
    expected = np.log(predict(teacher, (x + 1) * 127.5))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(actual), expected, rtol=1e-3, atol=1e-4)
    large = confident_teacher(size=32)
    uniform = np.broadcast_to(x[:, :1, :1], x.shape)  # one color per image, so that resizing changes nothing
    actual = keras.ops.convert_to_numpy(Distiller(tiny(), large)._teacher_logits(uniform))
    expected = np.log(predict(large, np.broadcast_to(uniform[:, :1, :1], (len(x), 32, 32, 3))))
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.across
def test_saved_predictions_are_equivalent_to_the_teacher(tmp_path):
    x, y = images()
    teacher = confident_teacher()
    names = [f"folder/{i}.png" for i in range(len(x))]
    save_predictions(tmp_path / "teacher.npz", predict(teacher, x)[::-1], names[::-1])
    saved = read_predictions(tmp_path / "teacher.npz", names)
    np.testing.assert_allclose(saved, predict(teacher, x), rtol=1e-5)
    recipe = load_recipe({}, {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "schedule.name": "constant"})
    changes = []
    for with_teacher in (True, False):
        student = tiny()
        model = compile_model(Distiller(student, teacher, 1.0, 0.6) if with_teacher else student, recipe, 1)
        model.train_on_batch(x, y if with_teacher else blend_targets(y, saved, 0.6))
        changes.append(values(student.trainable_variables))
    for change, expected_change in zip(*changes, strict=True):
        np.testing.assert_allclose(change, expected_change, rtol=1e-4, atol=1e-6)


@pytest.mark.across
def test_saved_predictions_are_matched_by_class_name(tmp_path):
    save_predictions(tmp_path / "a.npz", [[0.7, 0.2, 0.1]], ["x"], ["ant", "bee", "cat"])
    actual = read_predictions(tmp_path / "a.npz", ["x"], ("cat", "ant", "bee"))
    np.testing.assert_allclose(actual, [[0.1, 0.7, 0.2]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"other classes than the data: ant, bee, cat instead of ant, bee, dog"):
        read_predictions(tmp_path / "a.npz", ["x"], ("ant", "bee", "dog"))
    save_predictions(tmp_path / "b.npz", [[0.7, 0.3]], ["x"])
    with pytest.raises(ValueError, match="2 classes instead of ant, bee, dog"):
        read_predictions(tmp_path / "b.npz", ["x"], ("ant", "bee", "dog"))
    with pytest.raises(ValueError, match="class_names of length 1"):
        save_predictions(tmp_path / "c.npz", [[0.7, 0.3]], ["x"], ["ant"])


@pytest.mark.across
def test_blended_targets_match_numpy():
    actual = blend_targets([[1, 0]], [[0.2, 0.8]], 0.5, temperature=2)
    softened = np.sqrt([0.2, 0.8]) / np.sqrt([0.2, 0.8]).sum()
    np.testing.assert_allclose(actual, 0.5 * np.array([[1, 0]]) + 0.5 * softened, rtol=1e-6)


@pytest.mark.across
def test_incompatible_arguments_raise(tmp_path):
    with pytest.raises(ValueError, match="4 classes, the student 3"):
        Distiller(tiny(), tiny(4))
    with pytest.raises(ValueError, match="end in softmax"):
        Distiller(tiny(classifier_activation=None), tiny())
    with pytest.raises(ValueError, match="temperature=0"):
        Distiller(tiny(), tiny(), temperature=0)
    with pytest.raises(ValueError, match="weight=0"):
        Distiller(tiny(), tiny(), weight=0)
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        blend_targets([[1, 0]], [[0.2, 0.3, 0.5]], 0.5)
    with pytest.raises(ValueError, match="can't be read"):
        read_predictions(tmp_path / "none.npz", ["a"])
    save_predictions(tmp_path / "some.npz", [[0.5, 0.5]], ["a"])
    with pytest.raises(ValueError, match="lacks 1 of 2 examples, the first of them 'b'"):
        read_predictions(tmp_path / "some.npz", ["a", "b"])
    np.savez(tmp_path / "logits.npz", probabilities=[[3.0, -1.0]], names=["a"])
    with pytest.raises(ValueError, match="invalid probabilities"):
        read_predictions(tmp_path / "logits.npz", ["a"])
    with pytest.raises(ValueError, match="names must be unique"):
        save_predictions(tmp_path / "twice.npz", [[0.5, 0.5]] * 2, ["a", "a"])


@pytest.mark.neutral
@pytest.mark.parametrize("include_preprocessing", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_integer_inputs_are_pixels_for_student_and_teacher(include_preprocessing, data_format):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    normalized = ((pixels / 255 - np.array((0.4, 0.5, 0.6))) / np.array((0.2, 0.25, 0.3))).astype("float32")
    floats = pixels.astype("float32") if include_preprocessing else normalized
    if data_format == "channels_first":
        pixels, floats = pixels.transpose(0, 3, 1, 2), floats.transpose(0, 3, 1, 2)
    options = {"data_format": data_format, "input_shape": pixels.shape[1:]}
    student = create_mobilenetv2(TINY, 3, include_preprocessing=include_preprocessing, dropout_rate=0, **options)
    teacher = create_mobilenetv2(TINY, 3, dropout_rate=0, **options)
    remember(student, Facts((16, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))
    distiller = Distiller(student, teacher, weight=0.5)
    np.testing.assert_allclose(predict(distiller, pixels), predict(student, floats), atol=1e-6)
    losses = []
    for x in (pixels, floats):
        distiller.compile(optimizer=keras.optimizers.SGD(0.0), loss="categorical_crossentropy")
        labels = np.eye(3, dtype="float32")[[0, 1, 2, 0]]
        student.trainable = False  # keeps the statistics of batch norm fixed
        losses.append(distiller.train_on_batch(x, labels))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
