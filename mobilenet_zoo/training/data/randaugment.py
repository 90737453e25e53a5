"""RandAugment (Cubuk et al., 2020): random operations that share one magnitude."""

import dataclasses

from PIL import Image, ImageEnhance, ImageOps

from mobilenet_zoo.training.recipes import recipe

MAX_MAGNITUDE = 10.0  # The magnitude at which the operations are strongest.
_FILL = 128  # Mid gray, as in AutoAugment's code, for the area that a moved image uncovers.


@dataclasses.dataclass(frozen=True)
class RandAugment(recipe.RandAugment):
    """Applies operations drawn with replacement from the 14 operations of the paper (section 3).

    The ranges of the operations are AutoAugment's (Cubuk et al., 2019, table 6). Autocontrast and equalize don't depend
    on the magnitude; every other operation grows with it and does nothing at 0, which timm calls `inc1`.
    `RandAugment(2, 9, 0.5)` corresponds to timm's `rand-m9-mstd0.5-inc1`, with two differences: as in the paper, a
    drawn operation is always applied, and the operations are the paper's 14.

    The fields and their allowed values are those of the recipe section `augmentation.randaugment`.
    """

    def __call__(self, image, rng):
        """Return a PIL image in mode L or RGB, changed by operations drawn with the NumPy generator `rng`."""
        for index in rng.integers(len(_DRAWN), size=self.operations):
            magnitude = self.magnitude
            if self.magnitude_std:
                magnitude = min(max(rng.normal(magnitude, self.magnitude_std), 0.0), MAX_MAGNITUDE)
            strength = magnitude / MAX_MAGNITUDE
            image = _DRAWN[index](image, -strength if rng.random() < 0.5 else strength)
        return image


def _affine(image, coefficients):
    fill = _FILL if image.mode == "L" else (_FILL,) * 3
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


def _rotate(image, strength):
    fill = _FILL if image.mode == "L" else (_FILL,) * 3
    return image.rotate(30 * strength, resample=Image.Resampling.BILINEAR, fillcolor=fill)


def _enhance(enhancer):
    return lambda image, strength: enhancer(image).enhance(1 + 0.9 * strength)


# The strength is in -1..1. Operations without a direction use its absolute value.
OPERATIONS = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "rotate": _rotate,  # Up to 30 degrees.
    "solarize": lambda image, s: ImageOps.solarize(image, round(256 * (1 - abs(s)))),
    "color": _enhance(ImageEnhance.Color),  # Factors of 0.1 to 1.9.
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),  # Down to 4 bits.
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, s: _affine(image, (1, 0.3 * s, 0, 0, 1, 0)),
    "shear_y": lambda image, s: _affine(image, (1, 0, 0, 0.3 * s, 1, 0)),
    "translate_x": lambda image, s: _affine(image, (1, 0, 0.45 * s * image.width, 0, 1, 0)),
    "translate_y": lambda image, s: _affine(image, (1, 0, 0, 0, 1, 0.45 * s * image.height)),
}
_DRAWN = tuple(OPERATIONS.values())
