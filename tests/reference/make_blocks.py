"""Write blocks.npz: outputs of timm's blocks with options that no published model uses.

Usage, from the root of the repository and with timm installed: `python -m tests.reference.make_blocks`
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests import peers, seeded

timm_blocks = peers.timm().models._efficientnet_blocks
layers = peers.timm().layers

CHANNELS, HEIGHT, WIDTH = 16, 12, 10
UIB, MQA, MHA = timm_blocks.UniversalInvertedResidual, timm_blocks.MobileAttention, timm_blocks.MobileAttention
DS, IR, ER = timm_blocks.DepthwiseSeparableConv, timm_blocks.InvertedResidual, timm_blocks.EdgeResidual
HEADS = {"num_heads": 3, "key_dim": 8, "value_dim": 12, "use_multi_query": True}

BLOCKS = {
    "uib_start_strides": (UIB, dict(out_chs=24, dw_kernel_size_start=3, dw_kernel_size_mid=0, stride=2, exp_ratio=2)),
    "uib_end_strides": (
        UIB,
        dict(out_chs=24, dw_kernel_size_start=0, dw_kernel_size_mid=0, dw_kernel_size_end=3, stride=2, exp_ratio=2),
    ),
    "uib_middle_strides": (
        UIB,
        dict(out_chs=24, dw_kernel_size_start=3, dw_kernel_size_mid=5, dw_kernel_size_end=3, stride=2, exp_ratio=2),
    ),
    "uib_three_kernels": (
        UIB,
        dict(out_chs=16, dw_kernel_size_start=5, dw_kernel_size_mid=3, dw_kernel_size_end=5, exp_ratio=3),
    ),
    "uib_without_shortcut": (UIB, dict(out_chs=16, exp_ratio=2, noskip=True, layer_scale_init_value=None)),
    "mqa_sizes": (MQA, dict(out_chs=16, **HEADS)),
    "mqa_query_strides": (MQA, dict(out_chs=16, query_strides=(2, 1), **HEADS)),
    "mqa_both_strides": (MQA, dict(out_chs=16, query_strides=(3, 2), kv_stride=2, dw_kernel_size=5, **HEADS)),
    "mqa_plain": (MQA, dict(out_chs=24, noskip=True, layer_scale_init_value=None, kv_stride=2, **HEADS)),
    "mha": (MHA, dict(out_chs=16, num_heads=4, use_multi_query=False)),
}

SE = partial(timm_blocks.SqueezeExcite, rd_channels=6, force_act_layer=nn.ReLU, gate_layer=nn.Hardsigmoid)
GROUP = partial(layers.GroupNormAct, group_size=8, eps=1e-5)
LAYER = partial(layers.LayerNormAct2d, eps=1e-5)
# Attention blocks take a normalization layer without an activation, and timm adds the activation.
GROUP_ALONE = partial(layers.GroupNorm, num_groups=2, eps=1e-5)
LAYER_ALONE = partial(layers.LayerNorm2d, eps=1e-5)
SAME, BARE, BLUR = {"pad_type": "same"}, {"layer_scale_init_value": None}, "blurpc"
# Height and width are odd, so that TensorFlow and PyTorch pad strided convolutions differently.
ODD = (9, 7)
ODD_BLOCKS = {
    "separable_same": (DS, dict(out_chs=24, dw_kernel_size=5, stride=2, pw_act=True, **SAME)),
    "separable_shortcut": (DS, dict(out_chs=16, pw_act=True, act_layer=nn.SiLU)),
    "separable_average": (DS, dict(out_chs=24, stride=2, pw_act=True, aa_layer="avg")),
    "separable_dilated": (DS, dict(out_chs=24, dw_kernel_size=5, dilation=2, pw_act=True)),
    "separable_group": (DS, dict(out_chs=24, stride=2, pw_act=True, norm_layer=GROUP)),
    "inverted_same": (IR, dict(out_chs=24, dw_kernel_size=5, stride=2, exp_ratio=2, se_layer=SE, **SAME)),
    "inverted_average": (IR, dict(out_chs=24, stride=2, exp_ratio=2, se_layer=SE, aa_layer="avg")),
    "inverted_blur": (IR, dict(out_chs=24, stride=2, exp_ratio=2, se_layer=SE, aa_layer=BLUR, act_layer=nn.SiLU)),
    "inverted_dilated": (IR, dict(out_chs=16, dw_kernel_size=5, dilation=2, exp_ratio=2, se_layer=SE)),
    "inverted_without_shortcut": (IR, dict(out_chs=16, exp_ratio=2, noskip=True, act_layer=nn.Hardswish)),
    "inverted_layer": (IR, dict(out_chs=16, exp_ratio=2, se_layer=SE, norm_layer=LAYER)),
    "unexpanded_same": (DS, dict(out_chs=24, stride=2, se_layer=SE, **SAME)),
    "unexpanded_shortcut": (DS, dict(out_chs=16, se_layer=SE)),
    "unexpanded_average": (DS, dict(out_chs=16, stride=2, se_layer=SE, aa_layer="avg")),
    "fused_shortcut": (ER, dict(out_chs=16, exp_ratio=2, act_layer=nn.GELU)),
    "fused_same": (ER, dict(out_chs=24, exp_kernel_size=5, stride=2, exp_ratio=2, **SAME)),
    "fused_average": (ER, dict(out_chs=24, stride=2, exp_ratio=2, aa_layer="avg")),
    "fused_blur": (ER, dict(out_chs=24, exp_kernel_size=5, stride=2, exp_ratio=2, aa_layer=BLUR)),
    "fused_dilated": (ER, dict(out_chs=16, dilation=2, exp_ratio=2, noskip=True)),
    "fused_group": (ER, dict(out_chs=16, exp_ratio=2, norm_layer=GROUP)),
    "universal_same_start": (
        UIB,
        dict(out_chs=24, dw_kernel_size_start=5, dw_kernel_size_mid=0, stride=2, exp_ratio=2, **SAME),
    ),
    "universal_same_middle": (UIB, dict(out_chs=24, dw_kernel_size_start=3, stride=2, exp_ratio=2, **SAME, **BARE)),
    "universal_same_end": (
        UIB,
        dict(out_chs=24, dw_kernel_size_mid=0, dw_kernel_size_end=5, stride=2, exp_ratio=2, **SAME),
    ),
    "universal_average": (UIB, dict(out_chs=24, dw_kernel_size_start=3, stride=2, exp_ratio=2, aa_layer="avg")),
    "universal_blur": (
        UIB,
        dict(out_chs=24, dw_kernel_size_start=5, dw_kernel_size_mid=0, stride=2, exp_ratio=2, aa_layer=BLUR),
    ),
    "universal_dilated": (
        UIB,
        dict(out_chs=16, dw_kernel_size_start=5, dw_kernel_size_end=3, dilation=2, exp_ratio=2, act_layer=nn.GELU),
    ),
    "universal_feed_forward": (UIB, dict(out_chs=16, dw_kernel_size_mid=0, exp_ratio=2)),
    "universal_group": (UIB, dict(out_chs=16, dw_kernel_size_start=3, exp_ratio=2, norm_layer=GROUP)),
    "universal_layer": (UIB, dict(out_chs=24, dw_kernel_size_start=3, stride=2, exp_ratio=2, norm_layer=LAYER)),
    "attention_same": (MQA, dict(out_chs=16, kv_stride=2, dw_kernel_size=5, **SAME, **HEADS)),
    "attention_symmetric": (MQA, dict(out_chs=24, kv_stride=2, dw_kernel_size=5, **HEADS)),
    "attention_dilated": (MQA, dict(out_chs=16, kv_stride=2, dw_kernel_size=3, dilation=2, **HEADS)),
    "attention_group": (MQA, dict(out_chs=16, kv_stride=2, norm_layer=GROUP_ALONE, **HEADS)),
    "attention_layer": (MQA, dict(out_chs=16, kv_stride=2, norm_layer=LAYER_ALONE, **HEADS)),
    "heads_layer": (MHA, dict(out_chs=24, num_heads=2, use_multi_query=False, norm_layer=LAYER_ALONE)),
}


def results():
    """Return `{block: output}` for a seeded feature map, and `{"block:tensor": shape}`."""
    arrays = {}
    for blocks, size in ((BLOCKS, (HEIGHT, WIDTH)), (ODD_BLOCKS, ODD)):
        image = torch.from_numpy(seeded.image(*size, CHANNELS).transpose(0, 3, 1, 2).copy())
        for name, (block_class, options) in blocks.items():
            block = block_class(in_chs=CHANNELS, **options).eval()
            shapes = {f"blocks.0.0.{key}": tuple(value.shape) for key, value in block.state_dict().items()}
            state = seeded.state_dict(shapes)
            block.load_state_dict({key.removeprefix("blocks.0.0."): torch.from_numpy(v) for key, v in state.items()})
            with torch.no_grad():
                arrays[name] = block(image).numpy().transpose(0, 2, 3, 1)
            arrays |= {f"{name}:{key}": np.array(shape, "int64") for key, shape in shapes.items()}
    return arrays


def main():
    """Compute and write all outputs."""
    np.savez_compressed(Path(__file__).with_name("blocks.npz"), **results())


if __name__ == "__main__":
    main()
