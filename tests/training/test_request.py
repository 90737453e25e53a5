"""Run requests: arguments override the record of a resumed run, which overrides the defaults."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from mobilenet_zoo.training import Data, load_recipe
from mobilenet_zoo.training.folder import RunFolder
from mobilenet_zoo.training.request import (
    RunOptions,
    RunRequest,
    check_names,
    fingerprint,
    read_record,
    resolve_request,
)
from tests.training import tiny

pytestmark = pytest.mark.across

MODEL, TEACHER = "mobilenetv4_conv_medium", "mobilenetv4_conv_large"


def options(**changes):
    values = {"output": Path("run"), "checkpoint_seconds": 30.0, "keep": 3, "workers": 0, "damaged_limit": None}
    return RunOptions(**values | {"progress": True, "report": True} | changes)


def resolve(recorded=None, data=None, **arguments):
    return resolve_request(data or tiny.data(), options(), recorded, **arguments)


@pytest.fixture
def recorded():
    """Record of a run with every argument passed, as a resumed run reads it."""
    request = resolve(model=MODEL, weights=False, teacher=TEACHER, recipe=tiny.recipe(epochs=7))
    return json.loads(json.dumps(request.record()))


def test_missing_arguments_have_defaults():
    data = tiny.data()
    assert resolve(data=data) == RunRequest(
        data=data,
        model="mobilenetv4_conv_small",
        weights=None,
        teacher=None,
        recipe=load_recipe("finetune"),
        is_resumed=False,
        options=options(),
    )


def test_overrides_take_precedence_over_the_recipe():
    recipe = tiny.recipe(epochs=7)
    assert resolve(recipe=recipe).recipe == recipe
    assert resolve(recipe=recipe, overrides=["epochs=9"]).recipe == dataclasses.replace(recipe, epochs=9)
    assert resolve(overrides={"epochs": 9}).recipe == load_recipe("finetune", {"epochs": 9})


def test_resumed_run_keeps_the_recorded_arguments(recorded):
    request = resolve(recorded)
    assert (request.model, request.weights, request.teacher) == (MODEL, False, TEACHER)
    assert request.recipe.epochs == 7 and request.recipe.distillation is not None
    assert request.is_resumed and request.record() == recorded


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": TEACHER}, f"model was '{MODEL}' and is '{TEACHER}'"),
        ({"weights": "imagenet"}, "weights was False and is 'imagenet'"),
        ({"teacher": MODEL}, f"teacher was '{TEACHER}' and is '{MODEL}'"),
        ({"overrides": ["epochs=9"]}, "recipe.epochs was 7 and is 9"),
        ({"recipe": tiny.recipe(distillation={})}, "recipe.epochs was 7 and is 2"),
        ({"data": Data(tiny.examples(25), tiny.examples(7))}, "data was '26 + 7 images, "),
    ],
)
def test_resuming_with_other_arguments_raises(recorded, arguments, message):
    with pytest.raises(ValueError, match=r"^The run in run can't be resumed with other arguments: .*Pass") as error:
        resolve(recorded, **arguments)
    assert message in str(error.value)


def test_resuming_with_the_same_arguments_is_allowed(recorded):
    assert resolve(recorded, model=Path(MODEL), weights=False, teacher=TEACHER).record() == recorded


def test_resuming_ignores_changed_texts_of_the_recipe(recorded):
    recipe = tiny.recipe(epochs=7)
    changed = dataclasses.replace(recipe, summary="Another summary.", source="Another source.")
    assert resolve(recorded, recipe=changed).recipe.summary == "Another summary."


def test_resuming_with_an_added_teacher_raises():
    record = resolve(recipe=tiny.recipe()).record()
    with pytest.raises(ValueError, match=f"teacher was None and is '{TEACHER}'; recipe.distillation"):
        resolve(record, teacher=TEACHER)


def test_distillation_is_enabled_by_a_teacher_and_requires_one():
    assert resolve(recipe=tiny.recipe()).recipe.distillation is None
    assert resolve(recipe=tiny.recipe(), teacher=TEACHER).recipe.distillation.weight == 0.5
    recipe = tiny.recipe(distillation__weight=0.25)
    assert resolve(recipe=recipe, teacher=TEACHER).recipe.distillation.weight == 0.25
    with pytest.raises(ValueError, match=re.escape("needs a teacher: pass one (teacher=..., --teacher).")):
        resolve(recipe=recipe)


def test_model_is_recorded_by_its_name():
    model = tiny.model()
    request = resolve(model=model, teacher=Path("predictions.npz"))
    assert request.model is model
    assert (request.record()["model"], request.record()["teacher"]) == (model.name, "predictions.npz")


def test_fingerprint_depends_on_names_and_classes():
    data = tiny.data()
    assert fingerprint(data) == fingerprint(tiny.data()) != fingerprint(Data(data.validation, data.train))
    moved = dataclasses.replace(data.train, names=[f"elsewhere/{name}" for name in data.train.names])
    assert fingerprint(Data(moved, data.validation)) == fingerprint(data)


@pytest.mark.parametrize("changes", [{"keep": 0}, {"keep": 1.5}, {"checkpoint_seconds": -1}])
def test_options_out_of_range_raise(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}")):
        options(**changes)


def test_request_is_immutable():
    request = resolve()
    for instance, name in ((request, "model"), (request.options, "keep")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, name, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": "mobilenetv4_conv_smal"}, "mobilenetv4_conv_small"),
        ({"model": MODEL, "weights": "nosuch"}, "weights='nosuch' is not known"),
        ({"recipe": "finetun"}, "Did you mean 'finetune'"),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_check_names_rejects_unknown_names(arguments, message, is_resumed):
    names = dict.fromkeys(("model", "weights", "recipe", "overrides")) | arguments
    with pytest.raises(ValueError, match=message):
        check_names(**names, is_resumed=is_resumed)


def test_arguments_that_depend_on_the_record_are_checked_later():
    """Overrides may name fields that exist only in the recorded recipe."""
    arguments = {"model": None, "weights": "nosuch", "recipe": None, "overrides": ["epochs=0"]}
    check_names(**arguments, is_resumed=True)
    with pytest.raises(ValueError, match="epochs=0 is not allowed"):
        check_names(**arguments, is_resumed=False)


def test_record_is_read_only_when_resuming(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        assert read_record(folder, resume=True) is read_record(folder, resume=False) is None
        request = resolve(recipe=tiny.recipe())
        folder.begin(request.record(), request.recipe)
        assert resolve(read_record(folder, resume=True)).record() == request.record()
        with pytest.raises(ValueError, match=r"run already contains a run: resume it \(resume=True, --resume\)"):
            read_record(folder, resume=False)
