"""8-bit integers: equalization, bias correction, and the search for layers to leave in float32."""

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
from tests.zoo.exporting.shared import CLASSES, SIZE, images, predict, prepared_copy, relative_deviation, tiny

pytestmark = pytest.mark.across


def unequal_channels():
    """Return a prepared model with every fourth channel of a convolution scaled by 50, which the next one reverts."""
    model = prepared_copy(tiny(classifier_activation=None))
    first, second = scaled_pair(model)
    scale = np.ones(first.kernel.shape[2] if first.filters is None else first.filters)
    scale[1::4] = 50
    kernel, bias = (keras.ops.convert_to_numpy(array) for array in (first.kernel, first.bias))
    first.kernel.assign(kernel * (scale[:, None] if first.filters is None else scale))
    first.bias.assign(bias * scale)
    second.kernel.assign(keras.ops.convert_to_numpy(second.kernel) / scale[:, None])
    return model


def scaled_pair(model):
    """Return the two convolutions that `unequal_channels` changes."""
    return [step for step in model.get_layer("stage2_block2")._steps() if step.name in ("middle", "project")]


def small_v2():
    """Return a narrow, prepared MobileNetV2 whose ReLU6 clips some channels."""
    options = {"width_multiplier": 0.35, "classifier_activation": None}
    model = prepared_copy(randomized(create_mobilenetv2("1.0", CLASSES, (SIZE, SIZE, 3), **options)))
    for name in ("stem", "head_conv"):
        bias = model.get_layer(name).bias
        bias.assign(bias + np.resize([0.0, 6.0, 0.5], bias.shape))
    return model


@pytest.mark.parametrize("build", [unequal_channels, small_v2])
def test_equalization_keeps_the_outputs(build):
    model, x = build(), images(8)
    before, weights = predict(model, x), model.get_weights()
    equalization.equalize(model, x, 127)
    changed = [not np.allclose(old, new) for old, new in zip(weights, model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.5
    assert relative_deviation(predict(model, x), before) <= 1e-5


def test_blocks_with_shortcuts_are_scaled_together():
    """All convolutions that write or read the same feature map between blocks are scaled together."""
    model = small_v2()
    ties = list(equalization._streams(model))
    names = [({layer.path.split("/")[0] for layer in side}) for tie in ties for side in (tie.producers, tie.consumers)]
    assert ({f"stage3_block{i}" for i in (1, 2, 3)}) in names, "stage 3 adds two shortcuts to its first block's output"
    assert {"stem"} in names
    assert all(tie.is_capped == (tie.producers[0].path.startswith("stem")) for tie in ties)


def test_feature_maps_that_are_outputs_are_not_scaled():
    """The feature maps between the blocks of a pyramid can be outputs."""
    model = prepared_copy(tiny(include_top=False, pyramid_levels=(1, 2)))
    x = images(4)
    before = predict(model, x)
    equalization.equalize(model, x, 127)
    for name, value in predict(model, x).items():
        assert relative_deviation(value, before[name]) <= 1e-5


def first_convolution_outputs(model, x):
    """Return the outputs of the first of the two convolutions, `(values, channels)`."""
    first, _ = scaled_pair(model)
    outputs = []

    def convolution(layer, x, call):
        y = call(x)
        if layer is first:
            outputs.append(y)
        return y

    with simulation._hooked(convolution, lambda layer, y: y):
        predict(model, x)
    return keras.ops.convert_to_numpy(outputs[0]).reshape(-1, outputs[0].shape[-1])


def test_equalization_balances_the_ranges_of_channels():
    """All channels of an activation share one scale, so channels with small values lose most of their bits."""
    x, model = images(16), unequal_channels()
    ratios = []
    for _ in range(2):
        values = first_convolution_outputs(model, x)
        ratios.append(np.median(values.max(0)) / values.max())
        equalization.equalize(model, x, 127)
    before, after = ratios
    assert before < 0.05
    assert after > 5 * before


@pytest.mark.parametrize("levels", [127, 31])
def test_improve_reduces_the_rounding_error(levels):
    x = images(16)
    plain, improved = unequal_channels(), unequal_channels()
    integers.improve(improved, x, levels)
    before, after = (simulation.Simulation(model, x, levels).error() for model in (plain, improved))
    assert after < 0.3 * before
    assert relative_deviation(predict(improved, x), predict(plain, x)) < 0.1


@pytest.mark.parametrize(("filters", "kernel_size"), [(6, 1), (None, 3)])
def test_bias_correction_reduces_the_shift_from_rounding(filters, kernel_size):
    image = keras.Input((SIZE, SIZE, 4))
    layer = ConvNormActivation(filters, kernel_size, use_bias=True, normalization=None)
    model = randomized(keras.Model(image, layer(image)))
    x, levels = 2 + images(8, channels=4), 3
    exact = predict(model, x)

    def shift():
        with simulation.Simulation(model, x, levels)._rounding(()):
            return np.abs(np.median(predict(model, x) - exact, (0, 1, 2))).max()

    shift_before, kernel = shift(), simulation.kernel_of(layer)
    simulation.Simulation(model, x, levels).correct_biases()
    np.testing.assert_array_equal(simulation.kernel_of(layer), kernel)
    assert shift() < 0.2 * shift_before


def test_rounding_has_one_scale_per_channel():
    kernel = np.float32([[[[1.0, 100.0], [0.26, 26.0]]]])
    np.testing.assert_allclose(simulation.rounded(kernel, False, 4), [[[[1.0, 100.0], [0.25, 25.0]]]])
    np.testing.assert_allclose(simulation.rounded(kernel[..., :1], True, 4), kernel[..., :1])
    np.testing.assert_allclose(simulation.rounded(0 * kernel, False), 0 * kernel)


@pytest.mark.parametrize("is_custom", [False, True])
def test_every_block_has_a_range(is_custom):
    """Attention blocks and user-defined blocks have a range too."""
    model = prepared_copy(randomized(create_mobilenetv4("hybrid_medium", CLASSES, (SIZE, SIZE, 3), 0.25)))
    if is_custom:
        image = keras.Input((SIZE, SIZE, 3))
        model = randomized(keras.Model(image, Doubled(3, expanded_filters=4, kernel_size=3)(image)))
    x = images(4)
    blocks = [layer for layer in model.layers if isinstance(layer, Block)]
    assert {type(layer).__name__ for layer in blocks} >= ({"Doubled"} if is_custom else {"MobileAttention"})
    ranges = simulation.Simulation(model, x, 127).ranges
    statistics = simulation.channel_statistics(model, x)
    maps = infer(keras.Model(model.inputs[0], [layer.output for layer in blocks]), x)
    for layer, outputs in zip(blocks, keras.tree.flatten(maps), strict=True):
        extremes = (np.minimum(outputs.min((1, 2, 3)), 0).mean(), np.maximum(outputs.max((1, 2, 3)), 0).mean())
        np.testing.assert_allclose(ranges[id(layer)], extremes, rtol=1e-3, atol=1e-4)
        assert id(layer) in statistics


class Doubled(InvertedResidual):
    def call(self, x, training=None):
        return 2 * super().call(x, training)


def test_layer_that_gains_most_in_float32_ranks_first():
    """The block whose channels differ by a factor of 50 gains most accuracy if it stays in float32."""
    model, x = unequal_channels(), images(16)
    names = ["stem", "stage1_block1", "stage1_block2", "stage2_block1", "stage2_block2"]
    assert simulation.Simulation(model, x, 127).ranked(names)[0] == "stage2_block2"


def test_search_leaves_layers_in_float32(model, tmp_path, monkeypatch):
    """The search tries the first layers of the ranking, and keeps the best file."""
    agreements = {(): 0.4, ("pool",): 0.7, ("pool", "stem"): 0.9, ("pool", "stem", "head_conv"): 0.8}
    x, expected_outputs, job_counts = images(50), [], []

    def run(backend, model_file, modules, jobs, folder):
        job_counts.append(len(jobs))
        if jobs[0].rank:
            assert "stem" in jobs[0].rank and "pool" not in jobs[0].rank, "only layers with weights are ranked"
            return [Result(ranked=("pool", "stem", "head_conv", "classifier", "stage1_block1", "stage1_block2"))]
        for job in jobs:
            Path(job.path).write_text(",".join(job.float_blocks))
        return [Result("NCHW", 3) for _ in jobs]

    def measure(path, images):
        names = tuple(filter(None, Path(path).read_text().split(",")))
        if not expected_outputs:
            expected_outputs.extend(Reference(model, (SIZE, SIZE))(images))
        (expected,) = expected_outputs
        wrong_count = round((1 - agreements.get(names, 0.6)) * len(expected))
        outputs = np.concatenate([-expected[:wrong_count], expected[wrong_count:]])
        return {"runtime": "R", "latency_ms": 1, "operations": {}, "placement": {}}, {"predictions": outputs}

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(session, "measure", measure)
    path = tmp_path / "a.onnx"
    with pytest.warns(mobilenet_zoo.MobileNetWarning) as record:
        report = mobilenet_zoo.export(model, path, quantization="int8", calibration=x, verify=10)
    assert path.read_text() == "pool,stem"
    assert report.float_blocks == ("pool", "stem")
    assert report.agreement == 0.9
    assert job_counts == [1, 1, 3], "the second process ranks, the third writes the first three trials"
    (message,) = [str(warning.message) for warning in record if "float32" in str(warning.message)]
    assert "int8 changes 60.0% of the predictions: searching for layers to leave in float32" in message
    assert "6 trials, about 45 s; to skip the search, pass float_blocks=() (--no-search)" in message


def test_empty_float_blocks_skip_the_search(model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.write_dummy_files)
    monkeypatch.setattr(session, "loses", lambda comparison: True)
    monkeypatch.setattr(session, "search", None)
    options = {"quantization": "int8", "calibration": images(20), "verify": False}
    mobilenet_zoo.export(model, tmp_path / "a.onnx", float_blocks=(), **options)


def test_search_calibrates_once(tmp_path, monkeypatch):
    """All files of a search share the ranges of the first file, and every step is reported."""
    calibrations, steps = [], []
    compute_ranges = quantizing._onnx_ranges
    monkeypatch.setattr(quantizing, "_onnx_ranges", lambda *args: calibrations.append(args) or compute_ranges(*args))
    monkeypatch.setattr(session, "loses", lambda comparison: True)
    monkeypatch.setattr(search, "loses", lambda comparison: True)
    monkeypatch.setattr(process, "run", run_with_progress)
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


def run_with_progress(backend, model_file, modules, jobs, folder, progress=None):
    """Replace `process.run` like `shared.run_here`, and report the steps."""
    if backend != keras.backend.backend():
        return shared.ORIGINAL_RUN(backend, model_file, modules, jobs, folder, progress)
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
def test_processor_without_vnni_overflows(text, overflows, tmp_path):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert session.processor_overflows(file) == overflows


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_reduce_range_limits_kernels_to_7_bits(reduce_range, largest, tmp_path, monkeypatch):
    """With `reduce_range` kernels use 7 bits; without it, a note warns of processors that overflow."""
    import onnx

    monkeypatch.setattr(process, "run", run_with_progress)
    monkeypatch.setattr(session, "processor_overflows", lambda: True)
    options = {"quantization": "int8", "calibration": images(20), "verify": 10, "float_blocks": ()}
    report = mobilenet_zoo.export(tiny(), tmp_path / "a.onnx", reduce_range=reduce_range, **options)
    graph = onnx.load(tmp_path / "a.onnx").graph
    kernels = [
        onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8
    ]
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels if kernel.ndim == 4) == largest
    assert any("no VNNI" in note for note in report.notes) == (not reduce_range)
