"""Runs: what is interrupted goes on as if nothing had been; what can't go on says why, and loses nothing."""

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

TIMES = ("images_per_second", "waiting")


def run(folder, **options):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)  # of the model's weights; a named model is built by the run itself
    options = {"recipe": tiny.recipe(), "checkpoint_seconds": 0, "progress": False, "report": False} | options
    return train(tiny.data(), tiny.model(), folder, **options)


def weights(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def same(found, expected):
    """To the last bit, and the epochs too but for how long they took."""
    for name, value in weights(expected.model).items():
        np.testing.assert_array_equal(weights(found.model)[name], value, err_msg=name)
    untimed = [[{k: v for k, v in row.items() if k not in TIMES} for row in run.history] for run in (found, expected)]
    assert untimed[0] == untimed[1]


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """A run that nothing interrupted."""
    return run(tmp_path_factory.mktemp("through") / "run")


@pytest.fixture
def interrupt(monkeypatch):
    """A function after which the next run is interrupted when `step` steps are trained: by `act(saving)`."""

    def at(step, act):
        plain = Saving.on_train_batch_end

        def stop(self, batch, logs=None):
            if self.position.step == step:
                monkeypatch.setattr(Saving, "on_train_batch_end", plain)
                act(self)
            plain(self, batch, logs)

        monkeypatch.setattr(Saving, "on_train_batch_end", stop)

    return at


@pytest.mark.across
@pytest.mark.parametrize("prefix", ["", "timm/"])
@pytest.mark.parametrize("as_teacher", [True, False])
def test_a_published_name_brings_its_own_weights(prefix, as_teacher, monkeypatch):
    """They need not be the best of the model's, which "imagenet" stands for."""
    asked = []

    def create_model(name, num_classes=2, **options):
        asked.append((name, options["weights"]))
        return create_mobilenetv1("0.25", num_classes, (32, 32, 3))

    monkeypatch.setattr(models, "create_model", create_model)
    name = "mobilenetv4_conv_small.e1200_r224_in1k"
    for revision in ("", "@main"):
        models.build(f"{prefix}{name}{revision}", ["a", "b"], None if as_teacher else tiny.recipe(), None)
    assert asked == [(name, name), (f"{name}@main", f"{name}@main")]


class Dead(BaseException):
    """The process is gone."""


def die(saving):
    saving.checkpoints.wait()
    raise Dead


def test_a_run_and_its_folder(through):
    assert [row["epoch"] for row in through.history] == [1, 2, 3]
    assert [row["step"] for row in through.history] == [4, 8, 12]
    assert through.best == max(through.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    names = {path.name for path in through.folder.iterdir()}
    assert {"run.json", "recipe.yaml", "log.csv", "checkpoints", "best", "tensorboard", "model"} <= names
    saved = from_pretrained(str(through.folder / "model"))
    for old, new in zip(through.model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (new, old)))
    assert tuple(class_names_of(saved)) == tiny.CLASSES
    rows = (through.folder / "log.csv").read_text().splitlines()
    assert len(rows) == 4
    assert rows[0].startswith("epoch,step,")


def test_the_best_weights_are_the_averages_that_were_evaluated(through):
    held_out = tiny.data().validation
    x = preprocessing(through.model)([held_out.images[i] for i in range(len(held_out))])
    found = keras.ops.convert_to_numpy(through.model(x))
    right = (found.argmax(1) == held_out.labels).mean()
    assert right == pytest.approx(through.best["val_accuracy"])
    loss = -np.log(found[np.arange(len(x)), held_out.labels]).mean()
    assert loss == pytest.approx(through.best["val_loss"], rel=1e-4)


# In the middle of the head's epoch, at its end, in the first and at the end of an epoch of all layers.
@pytest.mark.parametrize(
    "step",
    [
        2,
        pytest.param(5, marks=pytest.mark.slow),
        pytest.param(8, marks=pytest.mark.neutral),
        pytest.param(11, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_died_goes_on(step, through, interrupt, tmp_path):
    interrupt(step, die)
    with pytest.raises(Dead):
        run(tmp_path / "run")
    same(run(tmp_path / "run", resume=True), through)


@pytest.mark.neutral
def test_a_run_that_died_before_its_first_checkpoint_begins_again(through, interrupt, tmp_path):
    interrupt(3, die)
    with pytest.raises(Dead):
        run(tmp_path / "run", checkpoint_seconds=1000)
    assert not any((tmp_path / "run" / "checkpoints").iterdir())
    same(run(tmp_path / "run", resume=True), through)


@pytest.mark.neutral
def test_sigterm_saves_and_ends(through, interrupt, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    interrupt(6, lambda saving: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated, match="saved at step 6; resume it with --resume") as caught:
        run(tmp_path / "run", checkpoint_seconds=1000)
    assert caught.value.step == 6
    assert signal.getsignal(signal.SIGTERM) is before
    same(run(tmp_path / "run", resume=True, checkpoint_seconds=1000), through)


@pytest.mark.neutral
def test_the_last_checkpoints_are_kept(tmp_path):
    run(tmp_path / "run", keep=2)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [11, 12]


@pytest.mark.neutral
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, interrupt):
    def spoil(saving):
        kernel = next(variable for variable in saving.model.trainable_variables if variable.path.endswith("kernel"))
        if hasattr(saving.model, "jax_state_sync"):
            saving.model.jax_state_sync()
        kernel.assign(kernel * np.nan)

    interrupt(6, spoil)
    with pytest.raises(NotFinite, match=r"not finite, and the run was stopped. The last good checkpoint is that") as e:
        run(tmp_path / "run")
    assert e.value.checkpoint == 5
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == 5


def test_a_step_is_not_waited_for():
    """What a step gave comes to the callbacks as the backend's own, and is looked at after few steps."""
    given = []

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            given.append(logs["loss"])

    loss = keras.ops.ones(())
    Callbacks([Recorder()]).on_train_batch_end(0, {"loss": loss})
    assert given[0] is loss
    position, looked_at = Position(24, 8), []
    for position.step in range(1, 25):
        looked_at += [position.step] * position.is_looked_at()
    assert looked_at == [10, 20, 24]


@pytest.mark.neutral
def test_answers_that_were_saved_are_learned(tmp_path):
    """A teacher that is sure of the wrong class, and has all the weight, is believed."""
    examples = tiny.data().train
    wrong = np.eye(len(tiny.CLASSES), dtype="float32")[(examples.labels + 1) % len(tiny.CLASSES)]
    names = [examples.name_of(i) for i in range(len(examples))]
    turned = [2, 0, 1]
    save_predictions(tmp_path / "teacher.npz", wrong[:, turned], names, [tiny.CLASSES[i] for i in turned])
    recipe = tiny.recipe(epochs=25, mixing=None, ema=None, distillation__weight=1.0)
    found = run(tmp_path / "run", recipe=recipe, teacher=tmp_path / "teacher.npz")
    assert found.history[-1]["accuracy"] > 0.7
    assert found.history[-1]["val_accuracy"] < 0.2


@pytest.fixture
def full_disk():
    """A function after which no file can grow beyond 3 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.neutral
def test_a_full_disk_costs_no_earlier_checkpoint(through, interrupt, full_disk, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    interrupt(6, full_disk)
    with pytest.raises(OSError, match=r"can't be written to .*: File too large. The checkpoint of step \d+ is whole"):
        run(tmp_path / "run")
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] in (4, 5, 6)
    same(run(tmp_path / "run", resume=True), through)


@pytest.mark.neutral
def test_damaged_images_are_counted_in_log_report_and_warning(tmp_path):
    data = tiny.data()
    for examples, damaged in ((data.train, (3, 8)), (data.validation, (4,))):
        for i in damaged:
            examples.images[i] = str(tmp_path / f"damaged{i}.png")
            (tmp_path / f"damaged{i}.png").write_bytes(b"damaged")
    options = {"recipe": tiny.recipe(epochs=1, head_epochs=0), "progress": False}
    with pytest.warns(MobileNetWarning) as given:
        found = train(data, tiny.model(), tmp_path / "run", **options)
    said = [str(warning.message) for warning in given if "damaged" in str(warning.message)]
    assert len(said) == 2
    assert said[0].startswith("2 of 26 training images are damaged and were skipped: 3.png")
    assert said[1].startswith("1 of 7 validation images is damaged and was skipped: 4.png")
    assert found.history[-1]["damaged"] == 3
    header, row = (found.folder / "log.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["damaged"] == "3"
    report = (found.folder / "report.html").read_text("utf-8")
    assert "2 of training, 1 of validation" in report
    assert report.count("can't be read as an image") == 3 or report.count("be read as an image") == 3


@pytest.mark.neutral
class TestTheFolder:
    def test_a_second_run_does_not_overwrite_the_first(self, through):
        before = (through.folder / "run.json").read_bytes()
        with pytest.raises(ValueError, match="has a run already: resume it"):
            run(through.folder)
        assert (through.folder / "run.json").read_bytes() == before

    def test_a_teacher_that_does_not_fit_begins_no_run(self, tmp_path):
        logits = create_mobilenetv4(tiny.TINY, len(tiny.CLASSES), (32, 32, 3), classifier_activation=None)
        with pytest.raises(ValueError, match="must end in softmax"):
            train(tiny.data(), logits, tmp_path / "run", teacher=tiny.model(), recipe=tiny.recipe(), progress=False)
        assert not (tmp_path / "run").exists()

    def test_another_recipe_can_not_go_on(self, through):
        with pytest.raises(ValueError, match=r"recipe.optimizer.learning_rate was 0.003 and is 0.1") as caught:
            run(through.folder, resume=True, recipe=tiny.recipe(optimizer__learning_rate=0.1))
        assert "batch_size" not in str(caught.value)

    def test_where_there_is_nothing_to_resume_a_run_begins(self, through, tmp_path):
        same(run(tmp_path / "run", resume=True), through)

    def test_a_run_that_is_over_gives_what_it_came_to(self, through):
        same(run(through.folder, resume=True), through)

    def test_a_short_run_that_is_over_does_not_train_again(self, tmp_path, monkeypatch):
        first = run(tmp_path / "run", checkpoint_seconds=1000)
        monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("it trains again"))
        same(run(tmp_path / "run", resume=True, checkpoint_seconds=1000), first)

    def test_a_resumed_run_says_nothing_of_a_fresh_classifier(self, tmp_path):
        published = create_mobilenetv1("0.25", 5, (32, 32, 3))
        published.save(tmp_path / "five.keras")
        options = {"model": "mobilenetv1_025", "weights": str(tmp_path / "five.keras"), "report": False}
        options |= {"recipe": tiny.recipe(epochs=1, head_epochs=0, image_size=32), "progress": False}
        with pytest.warns(MobileNetWarning, match="classes is new and must be trained"):
            train(tiny.data(), output=tmp_path / "run", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error", MobileNetWarning)
            train(tiny.data(), output=tmp_path / "run", resume=True, **options)

    def test_a_folder_in_use(self, tmp_path, interrupt):
        def again(saving):
            with pytest.raises(ValueError, match="is in use by another process"):
                train(tiny.data(), tiny.model(), tmp_path / "run", resume=True, progress=False)
            raise Dead

        interrupt(2, again)
        with pytest.raises(Dead):
            run(tmp_path / "run")


@pytest.mark.neutral
def test_a_recipe_freezes_batch_norm_for_the_time_of_the_run(tmp_path):
    recipe = tiny.recipe(model__freeze_batch_norm=True, ema=None)
    before = weights(model := tiny.model())
    found = train(tiny.data(), model, tmp_path / "run", recipe=recipe, progress=False, report=False)
    same = {name for name, value in weights(found.model).items() if np.array_equal(value, before[name])}
    norms = {name for name in before if name.rpartition("/")[2] in ("gamma", "beta", "moving_mean", "moving_variance")}
    assert same == norms and norms
    assert len(found.model.trainable_weights) == len(tiny.model().trainable_weights)
