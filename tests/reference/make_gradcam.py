"""Write gradcam.npz: Grad-CAM of timm's models, by PyTorch's hooks and autograd.

Usage, from the root of the repository and beside an installed timm: `python -m tests.reference.make_gradcam`
"""

from pathlib import Path

import numpy as np
import torch

from tests import peers, seeded

SIZE = (97, 81)
MODELS = {  # the class that is explained, of a thousand
    "mobilenetv1_100": 7,
    "mobilenetv2_050": 314,
    "mobilenetv3_small_050": 159,
    "mobilenetv4_conv_small_050": 265,
    "mobilenetv4_hybrid_medium": 358,
}


def grad_cam(model, image, number):
    """The map and the logits of an image, channels first."""
    kept = {}

    def keep(module, inputs):
        (kept["map"],) = inputs
        kept["map"].retain_grad()

    handle = model.global_pool.register_forward_pre_hook(keep)
    logits = model(image)
    handle.remove()
    logits[0, number].backward()
    features, gradients = kept["map"][0], kept["map"].grad[0]
    weights = gradients.mean((1, 2))
    return torch.einsum("k,kij->ij", weights, features).clamp(min=0).detach().numpy(), logits.detach().numpy()


def main():
    """Compute and write all maps."""
    image = torch.from_numpy(seeded.image(*SIZE).transpose(0, 3, 1, 2).copy())
    results = {}
    for name, number in MODELS.items():
        model = peers.timm().create_model(name).eval()
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()})
        heat, _ = grad_cam(model, image, number)
        assert (heat > 0).sum() > 2, name
        results[name] = heat
    np.savez_compressed(Path(__file__).with_name("gradcam.npz"), **results)


if __name__ == "__main__":
    main()
