"""Write gradcam.npz: Grad-CAM maps of timm's models, computed with PyTorch's hooks and autograd.

Usage, from the root of the repository and with timm installed: `python -m tests.reference.make_gradcam`
"""

from pathlib import Path

import numpy as np
import torch

from tests import peers, seeded

SIZE = (97, 81)
MODELS = {  # {model: index of the class to explain}
    "mobilenetv1_100": 7,
    "mobilenetv2_050": 314,
    "mobilenetv3_small_050": 159,
    "mobilenetv4_conv_small_050": 265,
    "mobilenetv4_hybrid_medium": 358,
}


def grad_cam(model, image, class_index):
    """Return the Grad-CAM map and the logits for an image in channels-first format."""
    saved = {}

    def save(module, inputs):
        (saved["map"],) = inputs
        saved["map"].retain_grad()

    handle = model.global_pool.register_forward_pre_hook(save)
    logits = model(image)
    handle.remove()
    logits[0, class_index].backward()
    features, gradients = saved["map"][0], saved["map"].grad[0]
    weights = gradients.mean((1, 2))
    return torch.einsum("k,kij->ij", weights, features).clamp(min=0).detach().numpy(), logits.detach().numpy()


def main():
    """Compute and write all maps."""
    image = torch.from_numpy(seeded.image(*SIZE).transpose(0, 3, 1, 2).copy())
    results = {}
    for name, class_index in MODELS.items():
        model = peers.timm().create_model(name).eval()
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()})
        heat_map, _ = grad_cam(model, image, class_index)
        assert (heat_map > 0).sum() > 2, name
        results[name] = heat_map
    np.savez_compressed(Path(__file__).with_name("gradcam.npz"), **results)


if __name__ == "__main__":
    main()
