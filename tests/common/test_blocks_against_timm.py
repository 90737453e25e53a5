"""Block options that no published model uses answer as timm's own blocks do."""

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Attention, Universal
from mobilenet_v4 import create_mobilenetv4
from tests import references, seeded

HEADS = {"heads": 3, "key_size": 8, "value_size": 12}
ROWS = {
    "uib_start_strides": Universal(3, 0, 32, 24, 2),
    "uib_end_strides": Universal(0, 0, 32, 24, 2, end=3),
    "uib_middle_strides": Universal(3, 5, 32, 24, 2, end=3),
    "uib_three_kernels": Universal(5, 3, 48, 16, end=5),
    "uib_without_shortcut": Universal(0, 3, 32, 16, shortcut=False, layer_scale=False),
    "mqa_sizes": Attention(16, **HEADS),
    "mqa_query_strides": Attention(16, query_stride=(2, 1), **HEADS),
    "mqa_both_strides": Attention(16, query_stride=(3, 2), kv_kernel=5, kv_stride=2, **HEADS),
    "mqa_plain": Attention(24, kv_kernel=3, kv_stride=2, shortcut=False, layer_scale=False, **HEADS),
    "mha": Attention(16, 4, 4, multi_query=False),
}


@pytest.fixture(scope="module")
def answers():
    with np.load(references.FOLDER / "blocks.npz") as file:
        return dict(file)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", ROWS)
def test_block_answers_as_timms(name, data_format, answers, deviation):
    expected = answers[name]
    shapes = {key.partition(":")[2]: shape for key, shape in answers.items() if key.startswith(f"{name}:")}
    state = seeded.state_dict(shapes)
    if name == "mha":  # timm keeps query, key and value in one tensor
        joint = state.pop("blocks.0.0.attn.qkv.weight")
        for part, rows in zip(("query", "key", "value"), np.split(joint, 3), strict=True):
            state[f"blocks.0.0.attn.{part}.proj.weight"] = rows
        state["blocks.0.0.attn.output.proj.weight"] = state.pop("blocks.0.0.attn.proj.weight")
    architecture = Architecture(stem=None, stages=[[ROWS[name]]], head=None, layer_scale=1e-5, norm_epsilon=1e-5)
    picture = seeded.image(12, 10, 16)
    if data_format == "channels_first":
        picture, expected = (array.transpose(0, 3, 1, 2) for array in (picture, expected))
    # Height and width are left free: the attention must work without knowing them.
    shape = (None, None, 16) if data_format == "channels_last" else (16, None, None)
    model = create_mobilenetv4(
        architecture, input_shape=shape, include_top=False, padding="symmetric", data_format=data_format
    )
    mobilenet_zoo.load_checkpoint(model, state, layout="timm")
    answer = keras.ops.convert_to_numpy(model(picture, training=False))
    assert answer.shape == expected.shape
    deviation(name, data_format, answer, expected, 1e-5)
