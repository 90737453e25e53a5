"""8-bit integers: what is done to a model so that they cost it little."""

from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.layers import ConvNormActivation
from mobilenet_zoo.exporting import integers, process, session
from mobilenet_zoo.exporting.reference import Reference
from tests.seeded import randomized
from tests.zoo.exporting.shared import SIZE, answers, pictures, prepared, relative, tiny

pytestmark = pytest.mark.across


def unequal():
    """A prepared model with one channel of a convolution 50 times larger, which the next takes back."""
    model = prepared(tiny(classifier_activation=None))
    first, second = scaled_pair(model)
    scale = np.ones(first.kernel.shape[2] if first.filters is None else first.filters)
    scale[1::4] = 50
    kernel, bias = (keras.ops.convert_to_numpy(each) for each in (first.kernel, first.bias))
    first.kernel.assign(kernel * (scale[:, None] if first.filters is None else scale))
    first.bias.assign(bias * scale)
    second.kernel.assign(keras.ops.convert_to_numpy(second.kernel) / scale[:, None])
    return model


def scaled_pair(model):
    """The two convolutions that `unequal` changes."""
    return [step for step in model.get_layer("stage2_block2")._steps() if step.name in ("middle", "project")]


def test_equal_ranges_leave_the_function_as_it_was(monkeypatch):
    monkeypatch.setattr(integers, "_correct_bias", lambda *args: None)
    model, x = unequal(), pictures(8)
    before, weights = answers(model, x), model.get_weights()
    integers.improve(model, x)
    assert any(not np.allclose(old, new) for old, new in zip(weights, model.get_weights(), strict=True))
    assert relative(answers(model, x), before) <= 1e-5


def inner_values(model, x):
    """What the first of the two convolutions gives, for each channel."""
    first, _ = scaled_pair(model)
    kept = []
    with integers._noting(lambda layer, x, y: kept.append(y) if layer is first else None):
        answers(model, x)
    return keras.ops.convert_to_numpy(kept[0]).reshape(-1, kept[0].shape[-1])


def test_channels_use_more_of_the_bits_they_share(monkeypatch):
    """All channels of an activation have one scale, and those that are small beside others lose most of their bits."""
    monkeypatch.setattr(integers, "_correct_bias", lambda *args: None)
    x, model = pictures(16), unequal()
    shares = []
    for _ in range(2):
        inner = inner_values(model, x)
        shares.append(np.median(inner.max(0)) / inner.max())
        integers.improve(model, x)
    before, after = shares
    assert before < 0.05
    assert after > 5 * before


def with_rounded_kernels(model, levels):
    """What is left of a model if its kernels are rounded."""
    for layer in integers._convolutions(model):
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        layer.kernel.assign(integers.rounded(kernel, layer.filters is None, levels))
    return model


def test_rounding_costs_less_after_improving():
    x, levels = pictures(16), 31
    expected = answers(unequal(), x)
    plain = with_rounded_kernels(unequal(), levels)
    improved = unequal()
    integers.improve(improved, x, levels)
    with_rounded_kernels(improved, levels)
    errors = [np.abs(answers(each, x) - expected).mean() for each in (plain, improved)]
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize(("filters", "kernel_size", "share"), [(6, 1, 1e-3), (None, 3, 0.2)])
def test_biases_keep_the_means(filters, kernel_size, share):
    """A larger kernel sees zeros around the picture too, so that its means are kept roughly."""
    image = keras.Input((SIZE, SIZE, 4))
    layer = ConvNormActivation(filters, kernel_size, use_bias=True, normalization=None)
    model = randomized(keras.Model(image, layer(image)))
    x, levels = 2 + pictures(8, channels=4), 3
    means = lambda: answers(model, x).mean((0, 1, 2))  # noqa: E731
    kernel, exact = layer.kernel.numpy(), means()
    layer.kernel.assign(integers.rounded(kernel, filters is None, levels))
    plain = np.abs(means() - exact).max()
    layer.kernel.assign(kernel)
    integers.improve(model, x, levels)
    layer.kernel.assign(integers.rounded(kernel, filters is None, levels))
    assert np.abs(means() - exact).max() < share * plain


def test_rounding_has_a_scale_for_each_channel():
    kernel = np.float32([[[[1.0, 100.0], [0.26, 26.0]]]])
    np.testing.assert_allclose(integers.rounded(kernel, False, 4), [[[[1.0, 100.0], [0.25, 25.0]]]])
    np.testing.assert_allclose(integers.rounded(kernel[..., :1], True, 4), kernel[..., :1])
    np.testing.assert_allclose(integers.rounded(0 * kernel, False), 0 * kernel)


def test_layers_go_back_to_float_where_integers_lose(model, tmp_path, monkeypatch):
    """Those that gain most, as few as do; the file that stays is the best that was tried."""
    goods = {(): 0.4, ("stem",): 0.9, ("stage1_block1",): 0.8, ("stem", "stage1_block1"): 0.7}
    x, known = pictures(50), []

    def run(backend, model_file, modules, jobs, folder):
        for job in jobs:
            Path(job["path"]).write_text(",".join(job["float_blocks"]))
        return [{"layout": "NCHW", "float_bytes": 3} for _ in jobs]

    def measure(path, pictures):
        names = tuple(filter(None, Path(path).read_text().split(",")))
        if not known:
            known.extend(Reference(model, (SIZE, SIZE))(pictures))
        (expected,) = known
        wrong = round((1 - goods.get(names, 0.6)) * len(expected))
        found = np.concatenate([-expected[:wrong], expected[wrong:]])
        return {"runtime": "R", "latency_ms": 1, "operations": {}, "placement": {}}, {"predictions": found}

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(session, "measure", measure)
    path = tmp_path / "a.onnx"
    report = mobilenet_zoo.export(model, path, quantization="int8", calibration=x, verify=10)
    assert path.read_text() == "stem"
    assert report.float_blocks == ("stem",)
    assert report.agreement == 0.9
