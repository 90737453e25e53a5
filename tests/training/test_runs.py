"""Training runs: interrupted runs resume with the same result, and failed runs keep their earlier checkpoints."""

import os
import resource
import signal
import warnings

import keras
import numpy as np
import pytest

from mobilenet_common.errors import MobileNetWarning
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo import class_names_of, from_pretrained, preprocessing
from mobilenet_zoo.training import Checkpoints, NotFinite, Terminated, models, save_predictions, train
from mobilenet_zoo.training.callbacks import Callbacks, Position, Saving
from tests.training import tiny

TIMING_COLUMNS = ("images_per_second", "waiting")


def run(folder, **options):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)  # for the initial weights of `tiny.model()`
    options = {"recipe": tiny.recipe(), "checkpoint_seconds": 0, "progress": False, "report": False} | options
    return train(tiny.data(), tiny.model(), folder, **options)


def weights(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def assert_same_run(actual, expected):
    """Check that weights are bitwise equal, and that the histories are equal except for times."""
    for name, value in weights(expected.model).items():
        np.testing.assert_array_equal(weights(actual.model)[name], value, err_msg=name)
    untimed, expected_untimed = (
        [{name: value for name, value in row.items() if name not in TIMING_COLUMNS} for row in result.history]
        for result in (actual, expected)
    )
    assert untimed == expected_untimed


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A finished run that was never interrupted."""
    return run(tmp_path_factory.mktemp("uninterrupted") / "run")


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function that makes the next run call `act(saving)` after `step` training steps."""

    def interrupt_at(step, act):
        original = Saving.on_train_batch_end

        def patched(self, batch, logs=None):
            if self.position.step == step:
                monkeypatch.setattr(Saving, "on_train_batch_end", original)
                act(self)
            original(self, batch, logs)

        monkeypatch.setattr(Saving, "on_train_batch_end", patched)

    return interrupt_at


@pytest.mark.across
@pytest.mark.parametrize("prefix", ["", "timm/"])
@pytest.mark.parametrize("as_teacher", [True, False])
def test_pretrained_name_selects_its_own_weights(prefix, as_teacher, monkeypatch):
    """The named weights may differ from "imagenet", which selects the best weights of the model."""
    calls = []

    def create_model(name, num_classes=2, **options):
        calls.append((name, options["weights"]))
        return create_mobilenetv1("0.25", num_classes, (32, 32, 3))

    monkeypatch.setattr(models, "create_model", create_model)
    name = "mobilenetv4_conv_small.e1200_r224_in1k"
    for revision in ("", "@main"):
        models.build(f"{prefix}{name}{revision}", ["a", "b"], None if as_teacher else tiny.recipe(), None)
    assert calls == [(name, name), (f"{name}@main", f"{name}@main")]


class ProcessDied(BaseException):
    """Simulates a process that is killed without any cleanup."""


def end_process(saving):
    saving.checkpoints.wait()
    raise ProcessDied


def test_run_writes_its_log_checkpoints_and_model(uninterrupted):
    assert [row["epoch"] for row in uninterrupted.history] == [1, 2, 3]
    assert [row["step"] for row in uninterrupted.history] == [4, 8, 12]
    assert uninterrupted.best == max(uninterrupted.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    names = {path.name for path in uninterrupted.folder.iterdir()}
    assert {"run.json", "recipe.yaml", "log.csv", "checkpoints", "best", "tensorboard", "model"} <= names
    saved = from_pretrained(str(uninterrupted.folder / "model"))
    for weight, saved_weight in zip(uninterrupted.model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (saved_weight, weight)))
    assert tuple(class_names_of(saved)) == tiny.CLASSES
    rows = (uninterrupted.folder / "log.csv").read_text().splitlines()
    assert len(rows) == 4
    assert rows[0].startswith("epoch,step,")


def test_best_weights_reproduce_the_recorded_metrics(uninterrupted):
    validation = tiny.data().validation
    x = preprocessing(uninterrupted.model)([validation.images[i] for i in range(len(validation))])
    probabilities = keras.ops.convert_to_numpy(uninterrupted.model(x))
    accuracy = (probabilities.argmax(1) == validation.labels).mean()
    assert accuracy == pytest.approx(uninterrupted.best["val_accuracy"])
    loss = -np.log(probabilities[np.arange(len(x)), validation.labels]).mean()
    assert loss == pytest.approx(uninterrupted.best["val_loss"], rel=1e-4)


# Step 2 is in the epoch that trains only the head. Step 5 begins the next epoch, 8 ends it, and 11 is in the last one.
@pytest.mark.parametrize(
    "step",
    [
        2,
        pytest.param(5, marks=pytest.mark.slow),
        pytest.param(8, marks=pytest.mark.neutral),
        pytest.param(11, marks=pytest.mark.slow),
    ],
)
def test_killed_run_resumes(step, uninterrupted, interrupt, tmp_path):
    interrupt(step, end_process)
    with pytest.raises(ProcessDied):
        run(tmp_path / "run")
    assert_same_run(run(tmp_path / "run", resume=True), uninterrupted)


@pytest.mark.neutral
def test_run_killed_before_its_first_checkpoint_starts_again(uninterrupted, interrupt, tmp_path):
    interrupt(3, end_process)
    with pytest.raises(ProcessDied):
        run(tmp_path / "run", checkpoint_seconds=1000)
    assert not any((tmp_path / "run" / "checkpoints").iterdir())
    assert_same_run(run(tmp_path / "run", resume=True), uninterrupted)


@pytest.mark.neutral
def test_sigterm_saves_and_ends_the_run(uninterrupted, interrupt, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    interrupt(6, lambda saving: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated, match="saved at step 6; resume it with --resume") as caught:
        run(tmp_path / "run", checkpoint_seconds=1000)
    assert caught.value.step == 6
    assert signal.getsignal(signal.SIGTERM) is before
    assert_same_run(run(tmp_path / "run", resume=True, checkpoint_seconds=1000), uninterrupted)


@pytest.mark.neutral
def test_last_checkpoints_are_kept(tmp_path):
    run(tmp_path / "run", keep=2)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [11, 12]


@pytest.mark.neutral
def test_non_finite_loss_stops_the_run(tmp_path, interrupt):
    def set_nan(saving):
        kernel = next(variable for variable in saving.model.trainable_variables if variable.path.endswith("kernel"))
        if hasattr(saving.model, "jax_state_sync"):
            saving.model.jax_state_sync()
        kernel.assign(kernel * np.nan)

    interrupt(6, set_nan)
    with pytest.raises(NotFinite, match=r"not finite, and the run was stopped. The last good checkpoint is from") as e:
        run(tmp_path / "run")
    assert e.value.checkpoint == 5
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == 5


def test_run_does_not_wait_for_every_step():
    """Reading the loss waits for the device, so callbacks receive a tensor, and only a few steps read its value."""
    losses = []

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    loss = keras.ops.ones(())
    Callbacks([Recorder()]).on_train_batch_end(0, {"loss": loss})
    assert losses[0] is loss
    position, sync_steps = Position(24, 8), []
    for position.step in range(1, 25):
        sync_steps += [position.step] * position.is_sync_step()
    assert sync_steps == [10, 20, 24]


@pytest.mark.neutral
def test_student_learns_from_saved_predictions(tmp_path):
    """With a distillation weight of 1, a student learns a confident teacher's classes, even if they are wrong."""
    examples = tiny.data().train
    wrong = np.eye(len(tiny.CLASSES), dtype="float32")[(examples.labels + 1) % len(tiny.CLASSES)]
    names = [examples.name_of(i) for i in range(len(examples))]
    order = [2, 0, 1]
    save_predictions(tmp_path / "teacher.npz", wrong[:, order], names, [tiny.CLASSES[i] for i in order])
    recipe = tiny.recipe(epochs=25, mixing=None, ema=None, distillation__weight=1.0)
    result = run(tmp_path / "run", recipe=recipe, teacher=tmp_path / "teacher.npz")
    assert result.history[-1]["accuracy"] > 0.7
    assert result.history[-1]["val_accuracy"] < 0.2


@pytest.fixture
def full_disk():
    """Return a function that simulates a full disk: after the call, no file can grow beyond 3 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.neutral
def test_full_disk_keeps_earlier_checkpoints(uninterrupted, interrupt, full_disk, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    interrupt(6, full_disk)
    with pytest.raises(OSError, match=r"can't be written to .*: File too large. The checkpoint of step \d+ is intact"):
        run(tmp_path / "run")
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] in (4, 5, 6)
    assert_same_run(run(tmp_path / "run", resume=True), uninterrupted)


@pytest.mark.neutral
def test_damaged_images_are_in_log_report_and_warnings(tmp_path):
    data = tiny.data()
    for examples, damaged in ((data.train, (3, 8)), (data.validation, (4,))):
        for i in damaged:
            examples.images[i] = str(tmp_path / f"damaged{i}.png")
            (tmp_path / f"damaged{i}.png").write_bytes(b"damaged")
    options = {"recipe": tiny.recipe(epochs=1, head_epochs=0), "progress": False}
    with pytest.warns(MobileNetWarning) as caught:
        result = train(data, tiny.model(), tmp_path / "run", **options)
    messages = [str(warning.message) for warning in caught if "damaged" in str(warning.message)]
    assert len(messages) == 2
    assert messages[0].startswith("2 of 26 training images are damaged and were skipped: 3.png")
    assert messages[1].startswith("1 of 7 validation images is damaged and was skipped: 4.png")
    assert result.history[-1]["damaged"] == 3
    header, row = (result.folder / "log.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["damaged"] == "3"
    report = (result.folder / "report.html").read_text("utf-8")
    assert "2 in the training set, 1 in the validation set" in report
    # The report may escape the apostrophe.
    assert report.count("can't be read as an image") == 3 or report.count("be read as an image") == 3


@pytest.mark.neutral
class TestRunFolder:
    def test_second_run_does_not_overwrite_the_first(self, uninterrupted):
        before = (uninterrupted.folder / "run.json").read_bytes()
        with pytest.raises(ValueError, match="already contains a run: resume it"):
            run(uninterrupted.folder)
        assert (uninterrupted.folder / "run.json").read_bytes() == before

    def test_unsuitable_student_creates_no_run(self, tmp_path):
        logits = create_mobilenetv4(tiny.TINY, len(tiny.CLASSES), (32, 32, 3), classifier_activation=None)
        with pytest.raises(ValueError, match="must end in softmax"):
            train(tiny.data(), logits, tmp_path / "run", teacher=tiny.model(), recipe=tiny.recipe(), progress=False)
        assert not (tmp_path / "run").exists()

    def test_resuming_with_another_recipe_raises(self, uninterrupted):
        with pytest.raises(ValueError, match=r"recipe.optimizer.learning_rate was 0.003 and is 0.1") as caught:
            run(uninterrupted.folder, resume=True, recipe=tiny.recipe(optimizer__learning_rate=0.1))
        assert "batch_size" not in str(caught.value)

    def test_resume_without_a_run_starts_one(self, uninterrupted, tmp_path):
        assert_same_run(run(tmp_path / "run", resume=True), uninterrupted)

    def test_resuming_a_finished_run_returns_its_result(self, uninterrupted):
        assert_same_run(run(uninterrupted.folder, resume=True), uninterrupted)

    def test_resuming_a_short_finished_run_does_not_train(self, tmp_path, monkeypatch):
        first = run(tmp_path / "run", checkpoint_seconds=1000)
        monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("a finished run was trained again"))
        assert_same_run(run(tmp_path / "run", resume=True, checkpoint_seconds=1000), first)

    def test_resumed_run_does_not_warn_about_a_new_classifier(self, tmp_path):
        published = create_mobilenetv1("0.25", 5, (32, 32, 3))
        published.save(tmp_path / "five.keras")
        options = {"model": "mobilenetv1_025", "weights": str(tmp_path / "five.keras"), "report": False}
        options |= {"recipe": tiny.recipe(epochs=1, head_epochs=0, image_size=32), "progress": False}
        with pytest.warns(MobileNetWarning, match="classes is new and must be trained"):
            train(tiny.data(), output=tmp_path / "run", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error", MobileNetWarning)
            train(tiny.data(), output=tmp_path / "run", resume=True, **options)

    def test_folder_in_use_raises(self, tmp_path, interrupt):
        def resume_in_use(saving):
            with pytest.raises(ValueError, match="is in use by another process"):
                train(tiny.data(), tiny.model(), tmp_path / "run", resume=True, progress=False)
            raise ProcessDied

        interrupt(2, resume_in_use)
        with pytest.raises(ProcessDied):
            run(tmp_path / "run")


@pytest.mark.neutral
def test_recipe_freezes_batch_norm_during_the_run(tmp_path):
    recipe = tiny.recipe(model__freeze_batch_norm=True, ema=None)
    before = weights(model := tiny.model())
    result = train(tiny.data(), model, tmp_path / "run", recipe=recipe, progress=False, report=False)
    unchanged = {name for name, value in weights(result.model).items() if np.array_equal(value, before[name])}
    norms = {name for name in before if name.rpartition("/")[2] in ("gamma", "beta", "moving_mean", "moving_variance")}
    assert unchanged == norms and norms
    assert len(result.model.trainable_weights) == len(tiny.model().trainable_weights)
