"""Public integer, number and flag arguments accept NumPy's types and are stored as Python's types."""

import dataclasses
import inspect
import json
import math

import keras
import numpy as np
import pytest

import mobilenet_common.layers
import mobilenet_runtime
import mobilenet_runtime.evaluation
import mobilenet_zoo
import mobilenet_zoo.evaluation
import mobilenet_zoo.training
from mobilenet_common import rows
from mobilenet_common.architecture import Architecture, Conv, Inverted
from mobilenet_common.errors import flag, integer, number, odd_kernel, one_of, pair
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import compact_architecture, create_mobilenetv4
from mobilenet_zoo.exporting.formats import FORMATS
from mobilenet_zoo.exporting.plan import make_plan
from mobilenet_zoo.training import schedules
from mobilenet_zoo.training.data import augmentation, mixing, randaugment
from mobilenet_zoo.training.recipes import recipe as recipes
from tests.created import TINY
from tests.training import tiny

pytestmark = pytest.mark.across

KINDS = {
    "scalars": {int: np.int64, float: np.float32, bool: np.bool_},
    "small scalars": {int: np.int32, float: np.float16, bool: np.bool_},
    "0-d arrays": {int: np.array, float: np.array, bool: np.array},
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def as_numpy(value, kind):
    """Convert a value to NumPy's types. float16 represents all floats of this file exactly."""
    if isinstance(value, dict):
        return {name: as_numpy(item, kind) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(as_numpy(item, kind) for item in value)
    return kind[type(value)](value) if type(value) in kind else value


def assert_plain(value, path=""):
    """Assert that a value contains no NumPy types."""
    assert not isinstance(value, (np.generic, np.ndarray)), f"{path} is {value!r}, a {type(value).__name__}"
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        for name, item in value.items():
            assert_plain(item, f"{path}.{name}")
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            assert_plain(item, f"{path}[{i}]")


def is_numeric(value):
    return type(value) in (int, float, bool)


def numeric_parameters(function):
    """Return the names of the arguments whose default is an integer, a number or a flag."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if is_numeric(parameter.default)}


# --- argument checks -------------------------------------------------------------------------------------------------


@each_kind
def test_checks_return_python_types(kind):
    for actual, expected in (
        (integer("n", kind[int](3), 1), 3),
        (number("x", kind[float](0.5), 0, 1), 0.5),
        (number("x", kind[int](1), 0, 1), 1.0),
        (flag("f", kind[bool](True)), True),
        (odd_kernel("k", kind[int](3)), 3),
        (odd_kernel("k", kind[int](0), zero_is_none=True), None),
        (one_of("o", kind[int](2), (1, 2)), 2),
        (pair("p", kind[int](2), 1), (2, 2)),
        (pair("p", (kind[int](2), 3), 1), (2, 3)),
        (pair("p", np.array([2, 3]), 1), (2, 3)),
    ):
        assert (actual, type(actual)) == (expected, type(expected))
        assert_plain(actual)


@each_kind
def test_checks_distinguish_flags_from_numbers(kind):
    for call in (
        lambda: integer("n", kind[bool](True), 0),
        lambda: integer("n", kind[float](1.0), 0),
        lambda: number("x", kind[bool](True), 0, 1),
        lambda: number("x", kind[float](math.nan), 0, 1),
        lambda: number("x", np.array([0.5]), 0, 1),
        lambda: flag("f", kind[int](1)),
        lambda: odd_kernel("k", kind[bool](True)),
        lambda: one_of("o", kind[bool](True), (1, 2)),
        lambda: one_of("o", np.array([1]), (1, 2)),
        lambda: pair("p", "22", 1),
        lambda: pair("p", kind[float](2.0), 1),
        lambda: pair("p", (1, 2, 3), 1),
    ):
        with pytest.raises(ValueError, match="is not (allowed|supported)"):
            call()


# --- layers ----------------------------------------------------------------------------------------------------------

NORMALIZED = {"norm_epsilon": 0.25, "norm_momentum": 0.5, "norm_trainable": False}
BLOCK = {
    **NORMALIZED,
    "strides": 1,
    "dilation_rate": 2,
    "use_bias": True,
    "shortcut": False,
    "layer_scale": 0.5,
    "drop_path_rate": 0.25,
}
LAYERS = {
    "ChannelAttention": {"heads": 2, "strides": 2, "downsample": True, "dilation_rate": 1},
    "ConvNormActivation": {
        **NORMALIZED,
        "filters": 8,
        "kernel_size": 3,
        "strides": 2,
        "dilation_rate": 1,
        "use_bias": True,
    },
    "DepthwiseSeparable": {**BLOCK, "filters": 8, "kernel_size": 5},
    "DropPath": {"rate": 0.5, "seed": 3},
    "FusedInvertedBottleneck": {**BLOCK, "filters": 8, "expanded_filters": 16, "kernel_size": 5, "linear": False},
    "InvertedResidual": {**BLOCK, "filters": 8, "expanded_filters": 16, "kernel_size": 5, "squeeze_filters": 4},
    "LayerScale": {"init_value": 0.5},
    "MobileAttention": {
        **BLOCK,
        "filters": 8,
        "heads": 2,
        "key_size": 4,
        "value_size": 4,
        "multi_query": False,
        "kv_kernel_size": 3,
        "kv_strides": 2,
        "query_strides": (2, 1),
        "attention_dropout": 0.5,
        "projection_dropout": 0.25,
    },
    "NormActivation": NORMALIZED,
    "Resize": {"height": 8, "width": 9},
    "SqueezeExcite": {"squeeze_filters": 4},
    "UniversalInvertedBottleneck": {
        **BLOCK,
        "filters": 8,
        "expanded_filters": 16,
        "start_kernel_size": 3,
        "middle_kernel_size": 5,
        "end_kernel_size": 7,
        "linear": False,
    },
}


def layer_arguments(layer):
    """Return the names of a layer's numeric arguments, including those of its base classes but not Keras's."""
    classes = [base for base in layer.__mro__ if base.__module__.startswith("mobilenet_common")]
    return set().union(*(numeric_parameters(base.__init__) for base in classes if "__init__" in vars(base)))


@each_kind
@pytest.mark.parametrize("name", mobilenet_common.layers.__all__)
def test_layers_accept_numpy_types(name, kind):
    layer, arguments = getattr(mobilenet_common.layers, name), LAYERS[name]
    assert layer_arguments(layer) <= arguments.keys()
    config = layer(**as_numpy(arguments, kind), name="x").get_config()
    assert config == layer(**arguments, name="x").get_config()
    assert_plain(config)
    json.dumps(config)


# --- data classes ----------------------------------------------------------------------------------------------------

ROWS = {
    "Conv": {"filters": 8, "kernel": 3, "stride": 2},
    "Separable": {"filters": 8, "stride": 2, "kernel": 5},
    "Inverted": {"kernel": 3, "expanded": 16, "filters": 8, "squeeze": 0.25, "stride": 2, "shortcut": False},
    "Fused": {"kernel": 3, "expanded": 16, "filters": 8, "stride": 2, "shortcut": False, "linear": False},
    "Universal": {
        "start": 3,
        "middle": 5,
        "expanded": 16,
        "filters": 8,
        "stride": 2,
        "end": 0,
        "shortcut": False,
        "linear": False,
        "layer_scale": False,
    },
    "Attention": {
        "filters": 8,
        "heads": 2,
        "key_size": 4,
        "value_size": 4,
        "kv_kernel": 3,
        "kv_stride": 2,
        "query_stride": (2, 1),
        "multi_query": False,
        "attention_dropout": 0.5,
        "projection_dropout": 0.25,
        "shortcut": False,
        "layer_scale": 0.5,
    },
    "Excite": {"squeeze": 4},
    "ChannelAttend": {"heads": 2, "stride": 2},
    "Dense": {"filters": 8, "use_bias": True},
}
DATA = {
    **{getattr(rows, name): fields for name, fields in ROWS.items()},
    Architecture: {
        "stages": ((Conv(8),),),
        "width": 0.5,
        "divisor": 4,
        "squeeze_divisor": 1,
        "norm_epsilon": 0.5,
        "dropout_rate": 0.25,
        "layer_scale": 0.5,
        "minimum_size": 8,
    },
    augmentation.Augmentation: {
        "crop_scale": (0.5, 1.0),
        "crop_ratio": (0.5, 2.0),
        "flip": 0.5,
        "color_jitter": 0.5,
        "erasing": 0.25,
    },
    mixing.Mixing: {"mixup": 0.5, "cutmix": 0.5, "probability": 0.5, "switch_probability": 0.25},
    randaugment.RandAugment: {"operations": 2, "magnitude": 9.0, "magnitude_std": 0.5},
    mobilenet_runtime.Preprocessing: {
        "size": (32, 48),
        "crop": 0.5,
        "interpolation": "bilinear",
        "mean": (0.5, 0.25, 0.5),
        "std": (0.5, 0.25, 0.5),
        "channels": 3,
    },
    mobilenet_runtime.Metadata: {
        "name": "x",
        "class_names": None,
        "size": (32, 48),
        "channels": 3,
        "layout": "NHWC",
        "crop": 0.5,
        "interpolation": "bilinear",
        "mean": (0.5, 0.25, 0.5),
        "std": (0.5, 0.25, 0.5),
        "gives": "features",
    },
}


@each_kind
@pytest.mark.parametrize("record", DATA, ids=lambda record: record.__name__)
def test_data_classes_accept_numpy_types(record, kind):
    fields = DATA[record]
    assert {field.name for field in dataclasses.fields(record) if is_numeric(field.default)} <= fields.keys()
    instance = record(**as_numpy(fields, kind))
    assert instance == record(**fields)
    assert_plain(instance, record.__name__)


PARTS = [value for value in vars(recipes).values() if isinstance(value, type) and issubclass(value, recipes.Part)]


@each_kind
@pytest.mark.parametrize("part", [part for part in PARTS if part is not recipes.Part], ids=lambda part: part.__name__)
def test_recipe_fields_accept_numpy_types(part, kind):
    for field in dataclasses.fields(part):
        allowed = field.metadata["allowed"]
        value = {"integer": 9, "number": 0.5, "boolean": True, "pair": (0.5, 0.75)}.get(allowed.kind)
        if value is not None:
            checked = allowed.check(field.name, as_numpy(value, kind))
            assert checked == value
            assert_plain(checked, field.name)
    assert recipes.Recipe(batch_size=as_numpy(8, kind)).to_yaml() == recipes.Recipe(batch_size=8).to_yaml()


# --- models ----------------------------------------------------------------------------------------------------------

OPTIONS = {
    "num_classes": 3,
    "input_shape": (32, 40, 3),
    "width_multiplier": 0.25,
    "include_top": True,
    "output_stride": 16,
    "dropout_rate": 0.25,
    "drop_path_rate": 0.5,
    "include_preprocessing": True,
    "norm_epsilon": 0.25,
    "norm_momentum": 0.5,
}
BODY = {"input_shape": (32, 32, 3), "width_multiplier": 0.25, "include_top": False}


@each_kind
@pytest.mark.parametrize(
    "create", [create_mobilenetv1, create_mobilenetv2, create_mobilenetv3, create_mobilenetv4], ids=lambda f: f.__name__
)
def test_create_functions_accept_numpy_types(create, kind):
    assert numeric_parameters(create) <= OPTIONS.keys() | {"variant"}
    small = Architecture(name="small", stages=((Inverted(3, 16, 8, 0.5, stride=2),),))
    for options in (OPTIONS, {**OPTIONS, "include_preprocessing": 48}, {**BODY, "pyramid_levels": (1, 2)}):
        if options.get("include_preprocessing") == 48:
            options = {**options, "input_shape": (None, None, 3)}
        model, expected = create(small, **as_numpy(options, kind)), create(small, **options)
        keras.utils.clear_session()
        assert (model.name, model.input_shape, model.output_shape) == (
            expected.name,
            expected.input_shape,
            expected.output_shape,
        )
        for layer, expected_layer in zip(model.layers, expected.layers, strict=True):
            assert_plain(layer.get_config(), layer.name)
            assert {**layer.get_config(), "name": ""} == {**expected_layer.get_config(), "name": ""}


@each_kind
def test_model_created_with_numpy_types_saves_and_loads(kind, tmp_path):
    model = create_mobilenetv4(TINY, **as_numpy(OPTIONS, kind))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.get_config() for layer in loaded.layers] == [layer.get_config() for layer in model.layers]


def test_width_variant_may_be_a_numpy_number():
    for width in (np.float32(0.5), np.float64(0.5), np.array(0.5)):
        assert create_mobilenetv1(width, 3, (32, 32, 3)).name == "mobilenetv1_050"


# --- functions -------------------------------------------------------------------------------------------------------


def classifier(input_shape=(32, 32, 3), width_multiplier=0.5):
    small = Architecture(name="small", stages=((Conv(8, stride=2),),))
    return create_mobilenetv2(small, 3, input_shape, width_multiplier)


def transform_fields(transform):
    return dataclasses.asdict(transform)


def saved_files(n, path):
    """Return the texts of the files that `save_pretrained` writes besides the weights."""
    transform = mobilenet_runtime.Preprocessing(n((32, 32)), n(0.5), "bilinear", n((0.5,) * 3), n((0.5,) * 3))
    folder = mobilenet_zoo.save_pretrained(classifier(), path, transform=transform, metrics={"top-1": n(0.5)})
    return json.loads((folder / "mobilenet.json").read_text()), (folder / "README.md").read_text()


def export_job(n):
    """Return the JSON of an export job."""
    arguments = {"batch_size": 2, "image_size": (32, 32), "verify": 0.5, "include_preprocessing": True}
    arguments |= {"include_softmax": True, "metadata": True, "quantization": "int8", "reduce_range": True}
    arguments |= {"calibration": np.zeros((1, 32, 32, 3), "uint8")}
    plan = make_plan(classifier(), **n(arguments))
    return json.loads(json.dumps(plan.job("x", FORMATS["onnx"], None).as_json()))


def batch(n, path):
    """Return the targets of a pipeline's first batch."""
    pipeline = mobilenet_zoo.training.Pipeline(
        tiny.examples(9),
        mobilenet_zoo.preprocessing(classifier()),
        batch_size=n(4),
        training=n(True),
        seed=n(3),
        process_index=n(1),
        process_count=n(2),
        workers=n(0),
        damaged_limit=n(1),
    )
    return np.asarray(next(iter(pipeline.batches(n(0))))[1]).tolist()


ELSEWHERE = object()  # tested by another call
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
RECIPE = {"image_size": 32, "batch_size": 6}

# {function: {argument: call}}. The result must be the same whether `n` converts values to NumPy's types or not.
# One call can test several arguments.
FUNCTIONS = {
    "mobilenet_zoo.create_model": {
        "num_classes": lambda n, path: (
            mobilenet_zoo.create_model(
                "mobilenetv1_025", num_classes=n(3), input_shape=n((32, 32, 3)), width_multiplier=n(0.5)
            ).output_shape
        )
    },
    "mobilenet_zoo.reset_classifier": {
        "num_classes": lambda n, path: mobilenet_zoo.reset_classifier(classifier(), n(5)).output_shape
    },
    "mobilenet_zoo.list_models": {"pretrained": lambda n, path: mobilenet_zoo.list_models("*v1*", n(True))},
    "mobilenet_zoo.profile": {
        "input_shape": lambda n, path: mobilenet_zoo.profile(
            classifier(input_shape=(None, None, 3)), n((32, 48, 3))
        ).as_dict()
    },
    "mobilenet_zoo.preprocessing": {
        "input_size": lambda n, path: transform_fields(mobilenet_zoo.preprocessing(classifier(), input_size=n(32))),
        "crop": lambda n, path: transform_fields(
            mobilenet_zoo.preprocessing("mobilenetv1_100", input_size=n((32, 40)), crop=n(0.5))
        ),
    },
    "mobilenet_zoo.fuse": {"allow_training": lambda n, path: mobilenet_zoo.fuse(classifier(), n(True)).get_config()},
    "mobilenet_zoo.freeze_batch_norm": {
        "frozen": lambda n, path: mobilenet_zoo.freeze_batch_norm(classifier(), n(True))
    },
    "mobilenet_zoo.discriminative_rates": {
        "decay": lambda n, path: mobilenet_zoo.discriminative_rates("sgd", classifier(), n(0.5)).rates
    },
    "mobilenet_zoo.decode_predictions": {
        "top": lambda n, path: mobilenet_zoo.decode_predictions(PROBABILITIES, n(2), class_names="abc")
    },
    "mobilenet_zoo.save_pretrained": {"transform": saved_files},
    "mobilenet_zoo.export": {
        "batch_size": lambda n, path: export_job(n),
        **dict.fromkeys(("include_preprocessing", "metadata", "reduce_range", "verify"), ELSEWHERE),
    },
    "mobilenet_runtime.evaluation.evaluate": {
        "batch_size": lambda n, path: mobilenet_zoo.evaluation.evaluate(
            classifier(), tiny.examples(6), batch_size=n(4), speed=n(False), class_names=tiny.CLASSES
        ).indices.tolist(),
        "speed": ELSEWHERE,  # tested by the call above
    },
    "mobilenet_zoo.evaluation.heat_on_mistakes": {
        "count": lambda n, path: (
            sorted(
                mobilenet_zoo.evaluation.heat_on_mistakes(
                    classifier(),
                    mobilenet_zoo.evaluation.evaluate(
                        classifier(), tiny.examples(6), speed=False, class_names=tiny.CLASSES
                    ),
                    n(2),
                    n(2),
                )
            )
            != []
        ),
        "batch_size": ELSEWHERE,  # tested by the call above
    },
    "mobilenet_zoo.evaluation.explain": {
        "class_index": lambda n, path: (
            mobilenet_zoo.evaluation.explain(classifier(), np.zeros((32, 32, 3), "uint8"), n(1)).class_index
        )
    },
    "mobilenet_runtime.evaluation.photograph_overlay": {
        "longest": lambda n, path: (
            mobilenet_runtime.evaluation.photograph_overlay(
                np.zeros((48, 64, 3), "uint8"), np.zeros((2, 2)), mobilenet_zoo.preprocessing(classifier()), n(32)
            ).size
        )
    },
    "mobilenet_runtime.evaluation.write_report": {"mistakes": lambda n, path: integer("mistakes", n(3), 0)},
    "mobilenet_runtime.evaluation.calibration": {
        "bins": lambda n, path: mobilenet_runtime.evaluation.calibration(
            np.array([0.5, 0.75]), np.array([1, 0]), n(2)
        ).counts.tolist()
    },
    "mobilenet_v4.compact_architecture": {
        "columns": lambda n, path: compact_architecture(
            *n((24, 64, 6, 4, 2, 2, 3, 1, 512)), dropout_rate=n(0.5), downsampling=n(True)
        ),
        "classifier": ELSEWHERE,
        "dropout_rate": ELSEWHERE,
        "downsampling": ELSEWHERE,  # tested by the first call
    },
    "mobilenet_zoo.training.blend_targets": {
        "temperature": lambda n, path: mobilenet_zoo.training.blend_targets(
            np.eye(3)[:2], PROBABILITIES, n(0.5), n(2.0)
        ).tolist()
    },
    "mobilenet_zoo.training.Distiller": {
        "temperature": lambda n, path: vars(
            mobilenet_zoo.training.Distiller(classifier(), classifier(), n(2.0), n(0.5))
        )["temperature"],
        "weight": lambda n, path: mobilenet_zoo.training.Distiller(classifier(), classifier(), n(2.0), n(0.5)).weight,
    },
    "mobilenet_zoo.training.split": {
        "fraction": lambda n, path: [
            part.labels.tolist() for part in mobilenet_zoo.training.split(tiny.examples(9), n(0.5), n(3))
        ],
        "seed": ELSEWHERE,  # tested by the call above
    },
    "mobilenet_zoo.training.Pipeline": {
        "batch_size": batch,
        **dict.fromkeys(("training", "seed", "process_index", "process_count", "workers"), ELSEWHERE),
    },
    "mobilenet_zoo.training.compile_model": {
        "steps_per_epoch": lambda n, path: mobilenet_zoo.training.compile_model(
            classifier(), mobilenet_zoo.training.load_recipe(RECIPE), n(4), epochs=n(2), learning_rate=n(0.5)
        ).optimizer.get_config()
    },
    "mobilenet_zoo.training.train": {
        name: ELSEWHERE  # tested by `test_train_accepts_numpy_types`
        for name in (
            "validation_fraction",
            "resume",
            "checkpoint_seconds",
            "keep",
            "workers",
            "devices",
            "progress",
            "report",
        )
    },
    "mobilenet_zoo.training.read_data": {
        name: ELSEWHERE
        for name in ("validation_fraction", "seed")  # passed to `split`
    },
    "mobilenet_zoo.training.Checkpoints": {name: ELSEWHERE for name in ("keep", "writes")},  # passed by `train`
}
MODULES = (
    mobilenet_zoo,
    mobilenet_runtime,
    mobilenet_runtime.evaluation,
    mobilenet_zoo.evaluation,
    mobilenet_zoo.training,
)


def test_every_numeric_argument_is_tested():
    """A new public argument whose default is a number has to be added to `FUNCTIONS`."""
    tested = {(name.rpartition(".")[2], argument) for name, arguments in FUNCTIONS.items() for argument in arguments}
    missing = []
    for module in MODULES:
        for name in module.__all__:
            function = getattr(module, name)
            if dataclasses.is_dataclass(function) or not callable(function) or _is_error(function):
                continue
            missing += [
                (name, argument) for argument in numeric_parameters(function) - {a for n, a in tested if n == name}
            ]
    assert not missing


def _is_error(function):
    return isinstance(function, type) and issubclass(function, Exception)


CALLS = [
    pytest.param(call, id=f"{name.rpartition('.')[2]}-{argument}")
    for name, arguments in FUNCTIONS.items()
    for argument, call in arguments.items()
    if call is not ELSEWHERE
]


@pytest.mark.parametrize("call", CALLS)
def test_functions_accept_numpy_types(call, tmp_path):
    keras.utils.set_random_seed(0)
    expected = call(lambda value: value, tmp_path / "python")
    for i, kind in enumerate(KINDS.values()):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        result = call(lambda value, kind=kind: as_numpy(value, kind), tmp_path / f"{i}")
        assert result == expected
        assert_plain(result)


def test_schedule_accepts_numpy_types():
    fields = {"learning_rate": 0.5, "total_steps": 10, "warmup_steps": 2, "warmup_learning_rate": 0.25}
    fields |= {"final_learning_rate": 0.25, "decay_rate": 0.5, "decay_steps": 2.0, "accumulation_steps": 2}
    for kind in KINDS.values():
        config = schedules.Schedule("cosine", **as_numpy(fields, kind)).get_config()
        assert config == schedules.Schedule("cosine", **fields).get_config()
        assert_plain(config)


@pytest.mark.slow
def test_train_accepts_numpy_types(tmp_path):
    kind = KINDS["scalars"]
    options = {"checkpoint_seconds": 0.5, "keep": 2, "workers": 0, "devices": 1, "damaged_limit": 1}
    options |= {"validation_fraction": 0.25, "progress": False, "report": False, "resume": True}
    recipe = {"epochs": 1, "head_epochs": 0, "batch_size": 6, "image_size": 32}
    run = mobilenet_zoo.training.train(
        tiny.examples(26), classifier(), tmp_path / "run", recipe=as_numpy(recipe, kind), **as_numpy(options, kind)
    )
    assert run.best["epoch"] == 1
