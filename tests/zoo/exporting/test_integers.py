"""8-bit integers: what is done to a model so that they cost it little."""

from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.layers import ConvNormActivation, InvertedResidual
from mobilenet_common.layers.block import Block
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.exporting import equalization, integers, process, quantizing, search, session, simulation
from mobilenet_zoo.exporting.job import Result
from mobilenet_zoo.exporting.reference import Reference
from tests.references import infer
from tests.seeded import randomized
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import CLASSES, SIZE, answers, images, prepared, relative, tiny

pytestmark = pytest.mark.across


def unequal():
    """A prepared model with one channel of a convolution 50 times larger, which the next takes back."""
    model = prepared(tiny(classifier_activation=None))
    first, second = scaled_pair(model)
    scale = np.ones(first.kernel.shape[2] if first.filters is None else first.filters)
    scale[1::4] = 50
    kernel, bias = (keras.ops.convert_to_numpy(array) for array in (first.kernel, first.bias))
    first.kernel.assign(kernel * (scale[:, None] if first.filters is None else scale))
    first.bias.assign(bias * scale)
    second.kernel.assign(keras.ops.convert_to_numpy(second.kernel) / scale[:, None])
    return model


def scaled_pair(model):
    """The two convolutions that `unequal` changes."""
    return [step for step in model.get_layer("stage2_block2")._steps() if step.name in ("middle", "project")]


def small_v2():
    """A narrow MobileNetV2, prepared, whose ReLU6 clips some channels."""
    options = {"width_multiplier": 0.35, "classifier_activation": None}
    model = prepared(randomized(create_mobilenetv2("1.0", CLASSES, (SIZE, SIZE, 3), **options)))
    for name in ("stem", "head_conv"):
        bias = model.get_layer(name).bias
        bias.assign(bias + np.resize([0.0, 6.0, 0.5], bias.shape))
    return model


@pytest.mark.parametrize("build", [unequal, small_v2])
def test_equalization_leaves_the_function_as_it_was(build):
    model, x = build(), images(8)
    before, weights = answers(model, x), model.get_weights()
    equalization.equalize(model, x, 127)
    changed = [not np.allclose(old, new) for old, new in zip(weights, model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.5
    assert relative(answers(model, x), before) <= 1e-5


def test_blocks_with_a_shortcut_are_one_tie():
    """Whatever writes to or reads from the same map between blocks is scaled together."""
    model = small_v2()
    ties = list(equalization._streams(model))
    names = [({layer.path.split("/")[0] for layer in side}) for tie in ties for side in (tie.producers, tie.consumers)]
    assert ({f"stage3_block{i}" for i in (1, 2, 3)}) in names, "stage 3 adds two shortcuts to its first block's output"
    assert {"stem"} in names
    assert all(tie.is_capped == (tie.producers[0].path.startswith("stem")) for tie in ties)


def test_maps_that_are_outputs_are_not_scaled():
    """A pyramid gives them away."""
    model = prepared(tiny(include_top=False, pyramid_levels=(1, 2)))
    x = images(4)
    before = answers(model, x)
    equalization.equalize(model, x, 127)
    for name, value in answers(model, x).items():
        assert relative(value, before[name]) <= 1e-5


def inner_values(model, x):
    """What the first of the two convolutions gives, for each channel."""
    first, _ = scaled_pair(model)
    kept = []

    def convolution(layer, x, call):
        y = call(x)
        if layer is first:
            kept.append(y)
        return y

    with simulation._hooked(convolution, lambda layer, y: y):
        answers(model, x)
    return keras.ops.convert_to_numpy(kept[0]).reshape(-1, kept[0].shape[-1])


def test_channels_use_more_of_the_bits_they_share():
    """All channels of an activation have one scale, and those that are small beside others lose most of their bits."""
    x, model = images(16), unequal()
    shares = []
    for _ in range(2):
        inner = inner_values(model, x)
        shares.append(np.median(inner.max(0)) / inner.max())
        equalization.equalize(model, x, 127)
    before, after = shares
    assert before < 0.05
    assert after > 5 * before


@pytest.mark.parametrize("levels", [127, 31])
def test_rounding_costs_less_after_improving(levels):
    x = images(16)
    plain, improved = unequal(), unequal()
    integers.improve(improved, x, levels)
    before, after = (simulation.Simulation(one, x, levels).error() for one in (plain, improved))
    assert after < 0.3 * before
    assert relative(answers(improved, x), answers(plain, x)) < 0.1


@pytest.mark.parametrize(("filters", "kernel_size"), [(6, 1), (None, 3)])
def test_biases_make_up_for_rounding(filters, kernel_size):
    image = keras.Input((SIZE, SIZE, 4))
    layer = ConvNormActivation(filters, kernel_size, use_bias=True, normalization=None)
    model = randomized(keras.Model(image, layer(image)))
    x, levels = 2 + images(8, channels=4), 3
    exact = answers(model, x)

    def shift():
        with simulation.Simulation(model, x, levels)._rounding(()):
            return np.abs(np.median(answers(model, x) - exact, (0, 1, 2))).max()

    plain, kernel = shift(), simulation.kernel_of(layer)
    simulation.Simulation(model, x, levels).correct_biases()
    np.testing.assert_array_equal(simulation.kernel_of(layer), kernel)
    assert shift() < 0.2 * plain


def test_rounding_has_a_scale_for_each_channel():
    kernel = np.float32([[[[1.0, 100.0], [0.26, 26.0]]]])
    np.testing.assert_allclose(simulation.rounded(kernel, False, 4), [[[[1.0, 100.0], [0.25, 25.0]]]])
    np.testing.assert_allclose(simulation.rounded(kernel[..., :1], True, 4), kernel[..., :1])
    np.testing.assert_allclose(simulation.rounded(0 * kernel, False), 0 * kernel)


@pytest.mark.parametrize("extra", [False, True])
def test_every_block_has_a_range(extra):
    """Attention blocks too, which compute in a way of their own, and blocks of a user's."""
    model = prepared(randomized(create_mobilenetv4("hybrid_medium", CLASSES, (SIZE, SIZE, 3), 0.25)))
    if extra:
        image = keras.Input((SIZE, SIZE, 3))
        model = randomized(keras.Model(image, Doubled(3, expanded_filters=4, kernel_size=3)(image)))
    x = images(4)
    blocks = [layer for layer in model.layers if isinstance(layer, Block)]
    assert {type(layer).__name__ for layer in blocks} >= ({"Doubled"} if extra else {"MobileAttention"})
    ranges = simulation.Simulation(model, x, 127).ranges
    statistics = simulation.channel_statistics(model, x)
    maps = infer(keras.Model(model.inputs[0], [layer.output for layer in blocks]), x)
    for layer, found in zip(blocks, keras.tree.flatten(maps), strict=True):
        extremes = (np.minimum(found.min((1, 2, 3)), 0).mean(), np.maximum(found.max((1, 2, 3)), 0).mean())
        np.testing.assert_allclose(ranges[id(layer)], extremes, rtol=1e-3, atol=1e-4)
        assert id(layer) in statistics


class Doubled(InvertedResidual):
    def call(self, x, training=None):
        return 2 * super().call(x, training)


def test_the_layer_that_loses_most_ranks_first():
    """One whose channels differ by a factor of 50 loses most."""
    model, x = unequal(), images(16)
    names = ["stem", "stage1_block1", "stage1_block2", "stage2_block1", "stage2_block2"]
    assert simulation.Simulation(model, x, 127).ranked(names)[0] == "stage2_block2"


def test_layers_fall_back_to_float_where_integers_lose(model, tmp_path, monkeypatch):
    """The first layers of the ranking, as few as are needed; the file that stays is the best that was tried."""
    goods = {(): 0.4, ("pool",): 0.7, ("pool", "stem"): 0.9, ("pool", "stem", "head_conv"): 0.8}
    x, known, runs = images(50), [], []

    def run(backend, model_file, modules, jobs, folder):
        runs.append(len(jobs))
        if jobs[0].rank:
            assert "stem" in jobs[0].rank and "pool" not in jobs[0].rank, "what has no weights gains nothing"
            return [Result(ranked=("pool", "stem", "head_conv", "classifier", "stage1_block1", "stage1_block2"))]
        for job in jobs:
            Path(job.path).write_text(",".join(job.float_blocks))
        return [Result("NCHW", 3) for _ in jobs]

    def measure(path, images):
        names = tuple(filter(None, Path(path).read_text().split(",")))
        if not known:
            known.extend(Reference(model, (SIZE, SIZE))(images))
        (expected,) = known
        wrong = round((1 - goods.get(names, 0.6)) * len(expected))
        found = np.concatenate([-expected[:wrong], expected[wrong:]])
        return {"runtime": "R", "latency_ms": 1, "operations": {}, "placement": {}}, {"predictions": found}

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(session, "measure", measure)
    path = tmp_path / "a.onnx"
    with pytest.warns(mobilenet_zoo.MobileNetWarning) as given:
        report = mobilenet_zoo.export(model, path, quantization="int8", calibration=x, verify=10)
    assert path.read_text() == "pool,stem"
    assert report.float_blocks == ("pool", "stem")
    assert report.agreement == 0.9
    assert runs == [1, 1, 3], "one process ranks, one writes the first three trials"
    (said,) = [str(warning.message) for warning in given if "float32" in str(warning.message)]
    assert "int8 alone changes 60.0% of the predictions: searching for layers to keep in float32" in said
    assert "6 trials, about 45 s; --no-search (float_blocks=()) skips this" in said


def test_no_search_where_none_is_wanted(model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.nothing)
    monkeypatch.setattr(session, "loses", lambda comparison: True)
    monkeypatch.setattr(session, "search", None)
    options = {"quantization": "int8", "calibration": images(20), "verify": False}
    mobilenet_zoo.export(model, tmp_path / "a.onnx", float_blocks=(), **options)


def test_a_search_calibrates_once(tmp_path, monkeypatch):
    """All its files share the ranges of the first, and every step is reported."""
    calibrations, steps = [], []
    plain = quantizing._onnx_ranges
    monkeypatch.setattr(quantizing, "_onnx_ranges", lambda *args: calibrations.append(args) or plain(*args))
    monkeypatch.setattr(session, "loses", lambda comparison: True)
    monkeypatch.setattr(search, "loses", lambda comparison: True)
    monkeypatch.setattr(process, "run", in_this_process)
    model = tiny()
    options = {"quantization": "int8", "calibration": images(20), "verify": 10, "progress": steps.append}
    mobilenet_zoo.export(model, tmp_path / "a.onnx", **options)
    assert len(calibrations) == 1
    texts = [step.text for step in steps]
    assert texts == [
        "fold batch norm and prepare",
        "equalize channels and correct biases",
        "write ONNX in float32",
        "calibrate and quantize",
        "compare with the model",
        "rank layers to leave in float32",
        *(f"try {count} of the layers in float32" for count in range(1, 7)),
    ]
    assert [step.number for step in steps] == list(range(1, 13))
    assert [step.total for step in steps] == [5] * 5 + [12] * 7
    assert [step.notice is not None for step in steps] == [False] * 5 + [True] + [False] * 6
    assert all(step.remaining is None for step in steps[:5]) and all(step.remaining > 0 for step in steps[5:])
    assert str(steps[3]).startswith(f"[4/5] {tmp_path / 'a.onnx'}: calibrate and quantize (")


def in_this_process(backend, model_file, modules, jobs, folder, progress=None):
    """As `shared.here`, for a backend that writes, with steps reported."""
    if backend != keras.backend.backend():
        return shared.CHILD(backend, model_file, modules, jobs, folder, progress)
    model = keras.saving.load_model(model_file, compile=False)
    report = progress or (lambda number, text: None)
    return [
        shared.worker.write(model, job, lambda text, number=number: report(number, text))
        for number, job in enumerate(jobs)
    ]


@pytest.mark.parametrize(
    ("text", "overflows"),
    [
        ("processor : 0\nflags\t: fpu avx2 avx512f\n", True),
        ("flags\t: fpu avx2 avx_vnni\n", False),
        ("flags\t: avx512f avx512_vnni\n", False),
        ("Features\t: fp asimd\n", False),
        (None, False),
    ],
)
def test_processors_that_overflow(text, overflows, tmp_path):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert session.processor_overflows(file) == overflows


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_reduced_range(reduce_range, largest, tmp_path, monkeypatch):
    """Kernels keep to 7 bits where that is asked for, and an overflowing processor is noted where not."""
    import onnx

    monkeypatch.setattr(process, "run", in_this_process)
    monkeypatch.setattr(session, "processor_overflows", lambda: True)
    options = {"quantization": "int8", "calibration": images(20), "verify": 10, "float_blocks": ()}
    report = mobilenet_zoo.export(tiny(), tmp_path / "a.onnx", reduce_range=reduce_range, **options)
    graph = onnx.load(tmp_path / "a.onnx").graph
    kernels = [
        onnx.numpy_helper.to_array(each) for each in graph.initializer if each.data_type == onnx.TensorProto.INT8
    ]
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels if kernel.ndim == 4) == largest
    assert any("no VNNI" in note for note in report.notes) == (not reduce_range)
