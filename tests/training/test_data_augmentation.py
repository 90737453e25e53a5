"""Augmentation compared with the definitions in its papers, and partial decoding compared with full decoding."""

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from mobilenet_runtime import ImageError
from mobilenet_zoo.training.data import Augmentation, Mixing, RandAugment
from mobilenet_zoo.training.data.decoding import open_crop
from mobilenet_zoo.training.data.randaugment import OPERATIONS
from mobilenet_zoo.training.recipes import load_recipe
from tests import photographs

pytestmark = pytest.mark.across

IMAGE = photographs.photograph().resize((48, 32))
PIXELS = np.asarray(IMAGE).astype(float)
GRAY = np.asarray(IMAGE.convert("L")).astype(float)
NO_CROP_OR_FLIP = {"crop_scale": None, "flip": 0.0}


def apply(name, strength, image=IMAGE):
    return np.asarray(OPERATIONS[name](image, strength)).astype(int)


def blend(degenerate, factor):
    return np.clip(degenerate + factor * (PIXELS - degenerate), 0, 255)


def sample(dx, dy):
    """Return the image sampled at (x + dx, y + dy), in whole pixels, with mid gray outside."""
    rows, columns = np.indices(PIXELS.shape[:2])
    rows, columns = rows + dy, columns + dx
    inside = (rows >= 0) & (rows < 32) & (columns >= 0) & (columns < 48)
    return np.where(inside[..., None], PIXELS[rows.clip(0, 31), columns.clip(0, 47)], 128)


EXPECTED = {
    ("identity", 0.7): PIXELS,
    ("autocontrast", 0.7): np.asarray(ImageOps.autocontrast(IMAGE)),
    ("equalize", 0.7): np.asarray(ImageOps.equalize(IMAGE)),
    ("solarize", -0.75): np.where(PIXELS < 64, PIXELS, 255 - PIXELS),
    ("solarize", 0.0): PIXELS,
    ("posterize", 1.0): PIXELS // 16 * 16,
    ("posterize", -0.5): PIXELS // 4 * 4,
    ("brightness", 1.0): np.clip(PIXELS * 1.9, 0, 255),
    ("brightness", -1.0): PIXELS * 0.1,
    ("color", -0.5): blend(GRAY[..., None], 0.55),
    ("contrast", 0.5): blend(np.full((1, 1, 1), round(GRAY.mean())), 1.45),
    ("sharpness", -1.0): blend(np.asarray(IMAGE.filter(ImageFilter.SMOOTH)).astype(float), 0.1),
    ("rotate", 1.0): np.asarray(IMAGE.rotate(30, Image.Resampling.BILINEAR, fillcolor=(128,) * 3)),
    ("translate_x", 10 / (0.45 * 48)): sample(10, 0),
    ("translate_y", -8 / (0.45 * 32)): sample(0, -8),
}


class TestOperations:
    @pytest.mark.parametrize(("name", "strength"), EXPECTED)
    def test_operation_matches_its_definition(self, name, strength):
        assert np.abs(apply(name, strength) - EXPECTED[name, strength]).max() <= 1

    @pytest.mark.parametrize("name", ["shear_x", "shear_y"])
    def test_shear_tilts_edges_by_its_strength(self, name):
        """At full strength, a straight edge tilts by 0.3 pixels per pixel."""
        ramp = np.indices((32, 48))[1 if name == "shear_x" else 0] * 4 + 10
        sheared = apply(name, 1.0, Image.fromarray(ramp.astype("uint8")))
        slope = np.polyfit(np.arange(8), sheared[:8, 8] if name == "shear_x" else sheared[8, :8], 1)[0] / 4
        assert slope == pytest.approx(0.3, abs=0.05)

    def test_fourteen_operations_exist_and_keep_images_at_zero_strength(self):
        assert len(OPERATIONS) == 14
        for name in OPERATIONS.keys() - {"autocontrast", "equalize"}:
            np.testing.assert_array_equal(apply(name, 0.0), PIXELS, name)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_operation_supports_gray_images(self, name):
        assert apply(name, 0.8, IMAGE.convert("L")).shape == (32, 48)


class TestRandAugment:
    def draw_strengths(self, monkeypatch, settings, times=400):
        """Return the strengths that the operations are called with."""
        strengths = []

        def record(image, strength):
            strengths.append(strength)
            return image

        monkeypatch.setattr("mobilenet_zoo.training.data.randaugment._DRAWN", (record,) * 14)
        rng = np.random.default_rng(0)
        for _ in range(times):
            settings(IMAGE, rng)
        return np.array(strengths)

    def test_magnitudes_have_the_distribution_of_timm(self, monkeypatch):
        strengths = self.draw_strengths(monkeypatch, RandAugment(3, 5.0, 0.5))
        assert len(strengths) == 1200
        assert np.abs(strengths).mean() == pytest.approx(0.5, abs=0.01)
        assert np.abs(strengths).std() == pytest.approx(0.05, rel=0.1)
        assert (strengths > 0).mean() == pytest.approx(0.5, abs=0.05)

    def test_magnitudes_stay_in_range(self, monkeypatch):
        strengths = np.abs(self.draw_strengths(monkeypatch, RandAugment(2, 9.0, 3.0)))
        assert strengths.max() == 1.0 and (strengths == 1.0).mean() > 0.2

    def test_operations_are_drawn_uniformly(self, monkeypatch):
        drawn = []
        operations = tuple(lambda image, s, i=i: drawn.append(i) or image for i in range(14))
        monkeypatch.setattr("mobilenet_zoo.training.data.randaugment._DRAWN", operations)
        rng = np.random.default_rng(0)
        for _ in range(700):
            RandAugment(2, 9.0, 0.0)(IMAGE, rng)
        counts = np.bincount(drawn, minlength=14)
        assert counts.sum() == 1400 and counts.min() > 60 and counts.max() < 140


class TestCrop:
    @pytest.mark.parametrize("size", [(640, 427), (30, 90)])
    def test_crops_have_the_given_scale_and_ratio(self, size):
        settings, rng = Augmentation(crop_scale=(0.1, 0.5), crop_ratio=(0.8, 1.25)), np.random.default_rng(0)
        boxes = np.array([settings.crop(*size, rng) for _ in range(500)])
        assert boxes.min() >= 0 and (boxes[:, 2] <= size[0]).all() and (boxes[:, 3] <= size[1]).all()
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        fraction = width * height / (size[0] * size[1])
        fits = fraction >= 0.1 * 0.9
        assert fits.mean() > 0.95 and fraction.max() <= 0.5 * 1.1
        assert (width / height).min() > 0.8 * 0.9 and (width / height).max() < 1.25 * 1.1
        assert boxes[:, 0].std() > 0.05 * size[0]
        if size == (640, 427):
            assert fraction.mean() == pytest.approx(0.3, abs=0.02)

    def test_crop_falls_back_to_the_full_height(self):
        box = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0)).crop(100, 40, np.random.default_rng(0))
        assert box == (30, 0, 70, 40)

    def test_crop_matches_pillow(self, tmp_path):
        photographs.photograph().save(tmp_path / "p.png")
        box = (100, 50, 228, 178)
        cropped = open_crop(tmp_path / "p.png", "p", 3, (64, 64), "bicubic", lambda w, h: box)
        expected = photographs.photograph().resize((64, 64), Image.Resampling.BICUBIC, box=box)
        assert np.abs(np.asarray(cropped).astype(int) - np.asarray(expected)).mean() < 1

    @pytest.mark.parametrize("orientation", [3, 6, 8])
    def test_crop_applies_exif_orientation(self, orientation, tmp_path):
        (tmp_path / "p.png").write_bytes(photographs.rotated_by_exif(photographs.photograph(), orientation).getvalue())
        sizes = []

        def crop(width, height):
            sizes.append((width, height))
            return 200, 100, 264, 164

        cropped = open_crop(str(tmp_path / "p.png"), "p", 3, (64, 64), "nearest", crop)
        assert sizes == [(640, 427)]
        np.testing.assert_array_equal(cropped, np.asarray(photographs.photograph())[100:164, 200:264])

    def test_large_jpegs_are_decoded_at_reduced_size(self, tmp_path):
        """The result is as close to full decoding as JPEG compression is to the original."""
        large = photographs.photograph().resize((2560, 1708), Image.Resampling.BICUBIC)
        large.save(tmp_path / "p.jpg", quality=90)
        box = (300, 200, 1900, 1600)
        sizes = []
        original = Image.Image.resize

        def resize(image, *args, **kwargs):
            sizes.append(image.size)
            return original(image, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image.Image, "resize", resize)
            decoded = open_crop(str(tmp_path / "p.jpg"), "p", 3, (224, 224), "bicubic", lambda w, h: box)
        assert sizes == [(1280, 854)]
        expected = Image.open(tmp_path / "p.jpg").resize((224, 224), Image.Resampling.BICUBIC, box=box)
        error = np.asarray(decoded).astype(float) - np.asarray(expected)
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 38  # dB

    @pytest.mark.parametrize("content", [b"", b"no image", None])
    def test_unreadable_file_raises(self, content, tmp_path):
        path = tmp_path / "p.jpg"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ImageError, match="p.jpg can't be read"):
            open_crop(str(path), str(path), 3, (8, 8), "bicubic", lambda w, h: (0, 0, w, h))


class TestAugmentation:
    def test_flip_mirrors_images(self):
        mirrored = Augmentation(crop_scale=None, flip=1.0)(IMAGE, np.random.default_rng(0))
        np.testing.assert_array_equal(mirrored, PIXELS[:, ::-1])
        np.testing.assert_array_equal(Augmentation(**NO_CROP_OR_FLIP)(IMAGE, np.random.default_rng(0)), PIXELS)

    def test_color_jitter_stays_within_its_range(self):
        uniform, rng = Image.new("RGB", (4, 4), (100, 100, 100)), np.random.default_rng(0)
        settings = Augmentation(**NO_CROP_OR_FLIP, color_jitter=0.4)
        values = np.array([settings(uniform, rng)[0, 0, 0] for _ in range(300)])  # only brightness changes uniform gray
        assert values.min() >= 60 and values.min() < 65 and values.max() <= 140 and values.max() > 135

    def test_erasing_has_the_given_area_and_probability(self):
        settings, rng = Augmentation(**NO_CROP_OR_FLIP, erasing=1.0), np.random.default_rng(0)
        black = Image.new("RGB", (100, 80))
        fractions = []
        for _ in range(200):
            rows, columns = np.nonzero(settings(black, rng).any(-1))
            fractions.append((np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 8000)
        assert 0.015 < min(fractions) < 0.04 and 0.29 < max(fractions) < 0.36
        assert Augmentation(**NO_CROP_OR_FLIP, erasing=1.0)(black.convert("L"), rng).shape == (80, 100, 1)
        is_changed = [Augmentation(**NO_CROP_OR_FLIP, erasing=0.3)(black, rng).any() for _ in range(300)]
        assert np.mean(is_changed) == pytest.approx(0.3, abs=0.08)

    def test_dictionary_is_converted_to_randaugment(self):
        assert Augmentation(randaugment={"operations": 1, "magnitude": 3}).randaugment == RandAugment(1, 3)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"crop_scale": (0.5, 0.1)}, "crop_scale"),
            ({"crop_scale": 0.5}, "crop_scale=0.5"),
            ({"crop_ratio": (0, 1)}, "crop_ratio=0"),
            ({"flip": 1.5}, "flip=1.5"),
            ({"randaugment": {"magnitude": 11}}, "randaugment.magnitude=11"),
            ({"randaugment": {"operations": 0}}, "randaugment.operations=0"),
            ({"erasing": -1}, "erasing=-1"),
        ],
    )
    def test_wrong_settings_raise(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Augmentation(**settings)


class TestMixing:
    def batch(self, n=5):
        rng = np.random.default_rng(1)
        return rng.random((n, 8, 6, 3), "float32"), np.eye(n, dtype="float32"), np.arange(1, n + 1, dtype="float32")

    def test_mixup_blends_pairs(self):
        images, targets, weights = self.batch()
        amount = np.random.default_rng(7)
        amount.random()
        amount = amount.beta(0.8, 0.8)
        for values in (mixed := [x.copy() for x in (images, targets, weights)]):
            assert values is not images
        Mixing(mixup=0.8, cutmix=0.0)(*mixed, np.random.default_rng(7))
        partner = [1, 0, 3, 2, 4]
        for actual, values in zip(mixed, (images, targets, weights), strict=True):
            np.testing.assert_allclose(actual, amount * values + (1 - amount) * values[partner], rtol=1e-5)

    @pytest.mark.parametrize("channels_last", [True, False])
    def test_cutmix_swaps_boxes_within_pairs(self, channels_last):
        images, targets, _ = self.batch()
        settings = Mixing(mixup=0.0, cutmix=1.0)
        kept_fraction, (top, bottom, left, right) = settings.draw(8, 6, np.random.default_rng(3))
        mixed_images = (images if channels_last else np.moveaxis(images, -1, 1)).copy()
        mixed_targets = targets.copy()
        settings(mixed_images, mixed_targets, None, np.random.default_rng(3), channels_last)
        actual = mixed_images if channels_last else np.moveaxis(mixed_images, 1, -1)
        expected = images.copy()
        for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
            expected[i, top:bottom, left:right] = images[j, top:bottom, left:right]
        np.testing.assert_array_equal(actual, expected)
        assert not np.array_equal(actual, images)
        assert kept_fraction == pytest.approx(1 - (bottom - top) * (right - left) / 48)
        np.testing.assert_allclose(mixed_targets[0], [kept_fraction, 1 - kept_fraction, 0, 0, 0], rtol=1e-6)

    def test_mixing_has_the_given_probabilities(self):
        rng, settings = np.random.default_rng(0), Mixing(0.3, 1.0, probability=0.8, switch_probability=0.25)
        drawn = [settings.draw(224, 224, rng) for _ in range(4000)]
        mixed = [d for d in drawn if d is not None]
        assert len(mixed) / len(drawn) == pytest.approx(0.8, abs=0.03)
        assert np.mean([box is not None for _, box in mixed]) == pytest.approx(0.25, abs=0.03)
        amounts = np.array([amount for amount, box in mixed if box is None])
        assert amounts.var() == pytest.approx(1 / (4 * (2 * 0.3 + 1)), rel=0.06)  # variance of Beta(α, α)
        assert amounts.mean() == pytest.approx(0.5, abs=0.03)

    @pytest.mark.parametrize("settings", [{"mixup": 0, "cutmix": 0}, {"probability": 0}])
    def test_settings_that_mix_nothing_raise(self, settings):
        with pytest.raises(ValueError, match="=0"):
            Mixing(**settings)
        with pytest.raises(ValueError, match="=0"):
            load_recipe("finetune", {f"mixing.{name}": value for name, value in settings.items()})

    def test_wrong_settings_raise(self):
        with pytest.raises(ValueError, match="mixup=-1"):
            Mixing(mixup=-1)
        with pytest.raises(ValueError, match="probability=2"):
            Mixing(probability=2)
