"""Write blocks.npz: what timm's blocks answer with options that no published model uses.

Usage, from the root of the repository and beside an installed timm: `python -m tests.reference.make_blocks`
"""

from pathlib import Path

import numpy as np
import torch
from timm.models import _efficientnet_blocks as timm_blocks

from tests import seeded

CHANNELS, HEIGHT, WIDTH = 16, 12, 10
UIB, MQA, MHA = timm_blocks.UniversalInvertedResidual, timm_blocks.MobileAttention, timm_blocks.MobileAttention
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


def main():
    """Compute and write all outputs."""
    picture = seeded.image(HEIGHT, WIDTH, CHANNELS)
    results = {}
    for name, (kind, options) in BLOCKS.items():
        block = kind(in_chs=CHANNELS, **options).eval()
        shapes = {f"blocks.0.0.{key}": tuple(value.shape) for key, value in block.state_dict().items()}
        state = seeded.state_dict(shapes)
        block.load_state_dict({key.removeprefix("blocks.0.0."): torch.from_numpy(v) for key, v in state.items()})
        with torch.no_grad():
            answer = block(torch.from_numpy(picture.transpose(0, 3, 1, 2).copy())).numpy()
        results[name] = answer.transpose(0, 2, 3, 1)
        results |= {f"{name}:{key}": np.array(shape, "int64") for key, shape in shapes.items()}
    np.savez_compressed(Path(__file__).with_name("blocks.npz"), **results)


if __name__ == "__main__":
    main()
