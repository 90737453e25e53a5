"""RandAugment (Cubuk et al., 2020): operations drawn at random, all of one strength."""

import dataclasses

from PIL import Image, ImageEnhance, ImageOps

from mobilenet_zoo.training.recipes import recipe

STRONGEST = 10.0  # the magnitude at which an operation does its most
_FILL = 128  # where a moved image leaves nothing, mid gray as in AutoAugment's code


@dataclasses.dataclass(frozen=True)
class RandAugment(recipe.RandAugment):
    """Applies operations that are drawn, with replacement, from the 14 of the paper (section 3).

    Their ranges are AutoAugment's (Cubuk et al., 2019, table 6), and every operation grows with the magnitude, from
    nothing at 0: what timm calls `inc1`. `RandAugment(2, 9, 0.5)` is timm's `rand-m9-mstd0.5-inc1`, but for two
    things: an operation that is drawn is always applied, as in the paper, and the paper's 14 are drawn from.

    The fields are those of a recipe, which also says what each may hold.
    """

    def __call__(self, image, rng):
        """Return a PIL image in mode L or RGB, changed by what `rng`, a NumPy generator, draws."""
        for drawn in rng.integers(len(_DRAWN), size=self.operations):
            magnitude = self.magnitude
            if self.magnitude_std:
                magnitude = min(max(rng.normal(magnitude, self.magnitude_std), 0.0), STRONGEST)
            strength = magnitude / STRONGEST
            image = _DRAWN[drawn](image, -strength if rng.random() < 0.5 else strength)
        return image


def _affine(image, coefficients):
    fill = _FILL if image.mode == "L" else (_FILL,) * 3
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


def _rotate(image, strength):
    fill = _FILL if image.mode == "L" else (_FILL,) * 3
    return image.rotate(30 * strength, resample=Image.Resampling.BILINEAR, fillcolor=fill)


def _enhance(kind):
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength)


# From a strength in -1..1 where an operation has two directions; the others take its size.
OPERATIONS = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "rotate": _rotate,  # up to 30 degrees
    "solarize": lambda image, s: ImageOps.solarize(image, round(256 * (1 - abs(s)))),
    "color": _enhance(ImageEnhance.Color),  # factors of 0.1 to 1.9
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),  # down to 4 bits
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, s: _affine(image, (1, 0.3 * s, 0, 0, 1, 0)),
    "shear_y": lambda image, s: _affine(image, (1, 0, 0, 0.3 * s, 1, 0)),
    "translate_x": lambda image, s: _affine(image, (1, 0, 0.45 * s * image.width, 0, 1, 0)),
    "translate_y": lambda image, s: _affine(image, (1, 0, 0, 0, 1, 0.45 * s * image.height)),
}
_DRAWN = tuple(OPERATIONS.values())
