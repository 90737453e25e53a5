"""Recipes: fields, files, overrides and error messages."""

import dataclasses

import pytest
import yaml

from mobilenet_zoo.training.recipes import Recipe, difference, list_recipes, load_recipe
from mobilenet_zoo.training.recipes.recipe import Mixing, Optimizer, parts

pytestmark = pytest.mark.across

PUBLISHED = {
    "mobilenetv1": {"optimizer.name": "rmsprop", "optimizer.decay_depthwise": False},
    # Sandler et al. (2018), section 6.1
    "mobilenetv2": {
        "optimizer.name": "rmsprop",
        "optimizer.rho": 0.9,
        "optimizer.momentum": 0.9,
        "optimizer.l2": 0.00004,
        "optimizer.weight_decay": 0.0,
        "optimizer.learning_rate": 0.045,
        "schedule.decay_rate": 0.98,
        "schedule.decay_epochs": 1,
        "batch_size": 96,
    },
    # Howard et al. (2019), section 6.1.1
    "mobilenetv3": {
        "optimizer.momentum": 0.9,
        "optimizer.learning_rate": 0.1,
        "optimizer.l2": 1e-5,
        "batch_size": 4096,
        "schedule.decay_epochs": 3,
        "model.dropout_rate": 0.2,
        "ema.momentum": 0.9999,
    },
    "mobilenetv4": {"optimizer.name": "adamw", "schedule.name": "cosine", "mixing.cutmix": 1.0, "ema.momentum": 0.9999},
    # tensorflow/models, official/vision, imagenet_mobilenetv4_conv_{small,medium,large}_tpu.yaml
    "mobilenetv4_conv_small": {"optimizer.beta_1": 0.6, "optimizer.weight_decay": 0.01, "model.norm_momentum": 0.95},
    "mobilenetv4_conv_medium": {"optimizer.learning_rate": 0.004, "model.drop_path_rate": 0.075, "mixing": None},
    "mobilenetv4_conv_large": {"optimizer.weight_decay": 0.2, "schedule.warmup_epochs": 20, "mixing.probability": 0.2},
    "mobilenetv4_distilled": {"distillation.weight": 1.0, "optimizer.learning_rate": 0.004},
    "finetune": {"head_epochs": 5, "optimizer.layer_decay": 0.7},
    "scratch_small": {"optimizer.layer_decay": 1.0},
}


def field_value(recipe, path):
    value = recipe.as_dict()
    for name in path.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize("name", PUBLISHED)
def test_built_in_recipe_has_the_published_values(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.summary and recipe.source
    assert {path: field_value(recipe, path) for path in PUBLISHED[name]} == PUBLISHED[name]


def test_every_built_in_recipe_is_listed():
    assert set(list_recipes()) == set(PUBLISHED)
    assert all(len(summary) <= 120 and summary.endswith(".") for summary in list_recipes().values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_yaml_and_dictionaries_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe == load_recipe(recipe.as_dict()) == load_recipe(recipe)
    assert difference(recipe, load_recipe(path)) == {}


def test_every_field_has_a_description_and_allowed_values():
    fields = dict(parts())
    assert len(fields) > 60
    for path, field in fields.items():
        assert field.metadata["sentence"].endswith((".", ").")), path
        assert str(field.metadata["allowed"])


def test_overrides_may_be_text_or_mappings():
    texts = [
        "optimizer.learning_rate=1e-3",
        "ema=null",
        "augmentation.randaugment.magnitude=7",
        "augmentation.crop_scale=[0.5, 1]",
        "distillation={temperature: 4}",
        "rematerialization=true",
        "name=mine",
    ]
    recipe = load_recipe("mobilenetv3", texts)
    assert recipe.optimizer.learning_rate == 1e-3 and recipe.ema is None and recipe.name == "mine"
    assert recipe.augmentation.randaugment.magnitude == 7 and recipe.augmentation.randaugment.operations == 2
    assert recipe.augmentation.crop_scale == (0.5, 1.0) and recipe.rematerialization is True
    assert dataclasses.asdict(recipe.distillation) == {"temperature": 4.0, "weight": 0.5}
    same = {"optimizer.learning_rate": 1e-3, "mixing": Mixing(mixup=0.3)}
    assert load_recipe("finetune", same).mixing.mixup == 0.3
    assert load_recipe("finetune").optimizer.momentum is None


def test_later_overrides_win():
    assert load_recipe(overrides=["epochs=3", "epochs=4"]).epochs == 4
    assert load_recipe(overrides=["mixing=null", "mixing.mixup=0.2"]).mixing.mixup == 0.2


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "1.0e-03", "0.001", ".001", "10e-4"])
def test_every_number_format_is_parsed(text):
    assert load_recipe(overrides=[f"optimizer.learning_rate={text}"]).optimizer.learning_rate == pytest.approx(1e-3)


def test_file_extends_a_built_in_recipe_and_another_file(tmp_path):
    (tmp_path / "first.yaml").write_text("extends: finetune\nepochs: 3\nema: {}\n")
    (tmp_path / "second.yaml").write_text("extends: first.yaml\noptimizer:\n  clip_norm: null\n")
    second = load_recipe(tmp_path / "second.yaml")
    expected = load_recipe("finetune", {"epochs": 3, "ema": {}, "optimizer.clip_norm": None, "name": "second"})
    assert second == expected
    assert difference(second, load_recipe("finetune")) == {
        "name": ("second", "finetune"),
        "epochs": (3, 20),
        "ema": ({"momentum": 0.9999, "warmup": True}, None),
        "optimizer.clip_norm": (None, 1.0),
    }


@pytest.mark.parametrize(
    ("text", "parts_of_message"),
    [
        ("epochs: 3\noptimizer:\n  learning_rat: 1\n", ("line 3", "learning_rat", "Did you mean 'learning_rate'")),
        ("epochs: 3\n\nbatchsize: 4\n", ("line 3", "batchsize", "'batch_size'")),
        ("epochs: many\n", ("line 1", "epochs='many'", "integer of at least 1")),
        ("epochs: true\n", ("line 1", "epochs=True")),
        ("epochs: 2.5\n", ("line 1", "epochs=2.5")),
        ("optimizer:\n  learning_rate: -1\n", ("line 2", "optimizer.learning_rate=-1", "(0, inf)")),
        ("optimizer:\n  learning_rate: .nan\n", ("line 2", "nan")),
        ("optimizer:\n  learning_rate: .inf\n", ("line 2", "inf")),
        ("optimizer:\n  beta_1: 1\n", ("line 2", "[0, 1)", "or null")),
        ("optimizer: adamw\n", ("line 1", "optimizer='adamw'", "mapping of name, learning_rate")),
        ("optimizer: null\n", ("line 1", "optimizer=None")),
        ("optimizer:\n  name: adam_w\n", ("line 2", "'adamw'", "'lion'")),
        ("schedule:\n  name: [cosine]\n", ("line 2", "schedule.name")),
        ("epochs: 3\nseed: 1\nepochs: 4\n", ("line 3", "epochs is set twice", "line 1")),
        ("ema:\n  momentum: 0.9\n  momentum: 0.99\n", ("line 3", "ema.momentum is set twice")),
        ("augmentation:\n  crop_scale: [1, 0.5]\n", ("line 2", "smaller number comes first")),
        ("augmentation:\n  crop_scale: 0.5\n", ("line 2", "two numbers")),
        ("mixing: {mixup: 0, cutmix: 0}\n", ("mixing.mixup=0", "null")),
        ("optimizer: {name: sgd, beta_1: 0.9}\n", ("optimizer.beta_1=0.9", "sgd takes momentum, nesterov")),
        ("epochs: 3\nschedule: {warmup_epochs: 3}\n", ("schedule.warmup_epochs=3", "epochs=3")),
        ("rematerialization: 1\n", ("line 1", "true or false")),
        ("name: 3\n", ("line 1", "name=3", "text")),
        ("epochs: [3\n", ("line 2", "not YAML")),
        ("epochs: 3\n\tseed: 1\n", ("line 2", "not YAML")),
        ("- epochs\n", ("not a recipe",)),
        ("", ("not a recipe",)),
        ("epochs: !!python/object/apply:os.getcwd []\n", ("line 1", "not YAML")),
        ("optimizer: &a\n  learning_rate: 1\nschedule: *a\n", ("line 3", "alias")),
        ("extends: nothing\n", ("line 1", "nothing", "finetune")),
        ("extends: 3\n", ("line 1", "extends=3")),
        ("extends: wrong.yaml\n", ("line 1", "extends itself")),
    ],
)
def test_wrong_file_raises_with_the_line_number(text, parts_of_message, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_recipe(path)
    for part in ("wrong.yaml", *parts_of_message):
        assert part in str(caught.value)


def test_binary_file_raises(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        load_recipe(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("finetun", None, "Did you mean 'finetune'"),
        ("nowhere/recipe.yaml", None, "does not exist"),
        (3, None, "type int"),
        ({"epoch": 3}, None, "Did you mean 'epochs'"),
        ("finetune", {"optimizer.lr": 1}, "override optimizer.lr.*'lr'"),
        ("finetune", {"optimizer.learning_rate": "fast"}, "optimizer.learning_rate='fast'"),
        ("finetune", {"epochs.all": 3}, "epochs={'all': 3}"),
        ("finetune", ["epochs"], "write field=value"),
        ("finetune", ["=3"], "write field=value"),
        ("finetune", ["epochs=[3"], "not YAML"),
        ("finetune", ["optimizer.momentum=0.9"], "with optimizer.momentum: optimizer.momentum=0.9.*adamw takes"),
    ],
)
def test_wrong_recipe_or_override_raises(recipe, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe, overrides)


def test_recipe_objects_are_validated():
    with pytest.raises(ValueError, match="learning_rate=0 "):
        Optimizer(learning_rate=0)
    with pytest.raises(ValueError, match="epochs"):
        dataclasses.replace(Recipe(), epochs=0)


def test_to_yaml_returns_plain_yaml():
    assert yaml.safe_load(load_recipe("mobilenetv4").to_yaml()) == load_recipe("mobilenetv4").as_dict()
