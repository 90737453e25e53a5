"""Batches depend only on the seed and the step, and damaged images are replaced or skipped."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet_runtime import ImageError, Preprocessing
from mobilenet_zoo.training.data import Augmentation, Examples, Mixing, Pipeline, RandAugment
from mobilenet_zoo.training.data.orders import class_weights
from tests import photographs

pytestmark = pytest.mark.across

TRANSFORM = Preprocessing((16, 16), 1.0, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
FULL = {
    "augmentation": Augmentation(color_jitter=0.2, randaugment=RandAugment(), erasing=0.5),
    "mixing": Mixing(),
    "balance": "weights",
}


def examples(n=22, classes=3):
    """Return noise images whose first pixel encodes the index."""
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), "uint8")
    images[:, 0, 0] = np.arange(n)[:, None]
    labels = np.minimum(np.arange(n) % 5, classes - 1)
    return Examples(images, labels, tuple("abc"[:classes]), [f"noise[{i}]" for i in range(n)])


def pipeline(data=None, *, preprocessing=TRANSFORM, batch_size=8, training=True, **options):
    return Pipeline(data or examples(), preprocessing, batch_size=batch_size, training=training, **options)


def take(pipe, count, first_step=0):
    iterator = iter(pipe.batches(first_step))
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def assert_same_batches(actual, expected):
    for batch, expected_batch in zip(actual, expected, strict=True):
        for x, y in zip(batch, expected_batch, strict=True):
            np.testing.assert_array_equal(x, y)


def image_indices(batch):
    """Return the indices in `examples` of the images of an unaugmented batch."""
    return (255 * (batch[0][:, 0, 0, 0] * 0.2 + 0.5)).round().astype(int).tolist()


class TestDeterminism:
    def test_worker_count_does_not_change_batches(self):
        assert_same_batches(take(pipeline(**FULL), 6), take(pipeline(**FULL, workers=2), 6))

    @pytest.mark.parametrize("count", [2, 4])
    def test_processes_split_the_same_batch(self, count):
        whole = take(pipeline(**FULL), 5)
        parts = [take(pipeline(**FULL, process_index=i, process_count=count), 5) for i in range(count)]
        joined = [tuple(map(np.concatenate, zip(*step, strict=True))) for step in zip(*parts, strict=True)]
        assert_same_batches(whole, joined)

    def test_first_step_skips_batches(self):
        assert_same_batches(take(pipeline(**FULL), 7)[3:], take(pipeline(**FULL), 4, first_step=3))

    def test_new_iteration_restarts_at_the_first_step(self):
        batches = pipeline(**FULL).batches(1)
        first, second = iter(batches), None
        early = [next(first), next(first)]
        second = iter(batches)  # takes over the reader of `first`
        assert_same_batches(early, [next(second), next(second)])
        assert_same_batches([next(first)], [next(second)])
        assert_same_batches(early[:1], [next(iter(batches))])

    def test_order_depends_on_seed_and_epoch(self):
        plain = pipeline()
        epochs = [[i for step in range(2) for i in plain.indices(2 * epoch + step)] for epoch in range(3)]
        assert len({tuple(epoch) for epoch in epochs}) == 3
        assert all(len(set(epoch)) == 16 for epoch in epochs)
        assert pipeline(seed=1).indices(0) != plain.indices(0)

    def test_batches_follow_the_indices_of_the_pipeline(self):
        pipe = pipeline()
        batches = take(pipe, 5)
        assert [image_indices(batch) for batch in batches] == [pipe.indices(step) for step in range(5)]
        for batch, step in zip(batches, range(5), strict=True):
            np.testing.assert_array_equal(batch[1], np.eye(3)[examples().labels[pipe.indices(step)]])

    def test_workers_do_not_import_keras(self):
        class Images(list):  # local, so that workers don't import this module
            def __getitem__(self, i):
                import sys

                from mobilenet_runtime import ImageError

                raise ImageError(f"imported: {[m for m in ('keras', 'tensorflow', 'torch') if m in sys.modules]}")

        data = Examples(Images([0, 1]), [0, 1], ("a", "b"), ["p", "q"])
        assert "keras" in sys.modules
        with pytest.raises(ImageError, match=r"2 of 2 images can't be read.*imported: \[\]"):
            take(pipeline(data, batch_size=2, workers=1), 1)


class TestBatches:
    def test_training_drops_incomplete_batches(self):
        assert pipeline().steps_per_epoch == 2
        small = pipeline(batch_size=32)
        assert small.steps_per_epoch == 1
        assert sorted(small.indices(0)[:22]) == list(range(22)) and len(small.indices(0)) == 32

    def test_evaluation_applies_only_the_preprocessing(self):
        pipe = pipeline(training=False)
        batches = list(pipe.batches())
        assert [len(x) for x, _ in batches] == [8, 8, 6] and pipe.steps_per_epoch == 3
        np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), TRANSFORM(list(examples().images)))
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]).argmax(1), examples().labels)

    def test_evaluation_is_split_over_processes(self):
        pipes = [pipeline(training=False, process_index=i, process_count=4) for i in range(4)]
        indices = [index for step in range(3) for pipe in pipes for index in pipe.indices(step)]
        assert indices == list(range(22))
        assert [len(x) for x, _ in pipes[3].batches()] == [2, 2, 2]

    @pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
    @pytest.mark.parametrize("mean", [None, (0.5, 0.4, 0.3)])
    def test_training_without_augmentation_applies_only_the_preprocessing(self, data_format, mean):
        transform = Preprocessing((16, 16), 0.875, "bilinear", mean, mean and (0.2, 0.3, 0.4))
        pipe = pipeline(preprocessing=transform, data_format=data_format)
        (batch,) = take(pipe, 1)
        expected = transform([examples().images[i] for i in pipe.indices(0)])
        expected = expected if data_format == "channels_last" else np.moveaxis(expected, -1, 1)
        assert batch[0].dtype == np.float32
        np.testing.assert_allclose(batch[0], expected, rtol=1e-5, atol=1e-5)

    def test_gray_images_have_one_channel(self):
        transform = Preprocessing((16, 16), 0.875, "bilinear", (0.5,), (0.25,), channels=1)
        gray = Examples(examples().images[..., 0], examples().labels, tuple("abc"))
        (batch,) = take(pipeline(gray, preprocessing=transform, **FULL, data_format="channels_first"), 1)
        assert batch[0].shape == (8, 1, 16, 16)

    def test_every_image_mode_matches_rgb_or_gray(self, tmp_path):
        paths = []
        for name, mode_image in photographs.modes().items():
            paths.append(tmp_path / f"{name}.{'jpg' if name in ('cmyk', 'ycbcr') else 'png'}")
            mode_image.save(paths[-1])
        photographs.sixteen_bit(photographs.photograph()).save(tmp_path / "16.png")
        rotated = photographs.rotated_by_exif(photographs.photograph(), 6).getvalue()
        (tmp_path / "turned.png").write_bytes(rotated)
        paths = [str(path) for path in (*paths, tmp_path / "16.png", tmp_path / "turned.png")]
        data = Examples(paths, [0, 1] * (len(paths) // 2), ("a", "b"))
        whole = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.4, 1.6), flip=0.0)
        pipe = pipeline(data, batch_size=len(paths), augmentation=whole)
        (batch,) = take(pipe, 1)
        assert pipe.damaged == []
        images_by_mode = {Path(paths[i]).stem: image for i, image in zip(pipe.indices(0), batch[0], strict=True)}
        for name in ("rgba", "palette", "cmyk", "ycbcr", "turned"):
            assert np.abs(images_by_mode[name] - images_by_mode["rgb"]).mean() < 0.12, name
        for name in ("gray and alpha", "16"):
            assert np.abs(images_by_mode[name] - images_by_mode["gray"]).mean() < 0.02, name

    def test_waiting_time_is_measured(self):
        pipe = pipeline()
        take(pipe, 2)
        assert 0 < pipe.waited_s < 60


class TestImbalance:
    def test_weights_balance_the_classes(self):
        data = examples()
        counts = np.bincount(data.labels)
        (batch,) = take(pipeline(data, balance="weights", batch_size=22), 1)
        weights = batch[2] * counts[batch[1].argmax(1)]
        assert weights == pytest.approx(weights[0])
        assert batch[2].mean() == pytest.approx(1)
        np.testing.assert_allclose(class_weights([4, 0, 1]), [5 / 8, 0, 5 / 2])

    def test_sampling_balances_the_classes(self):
        labels = np.repeat([0, 1, 2], [1, 9, 50])
        data = Examples(np.zeros((60, 4, 4), "uint8"), labels, tuple("abc"))
        pipe = pipeline(data, balance="sampling", batch_size=20)
        drawn = np.array([pipe.indices(step) for step in range(3)]).ravel()
        assert np.bincount(labels[drawn]).tolist() == [20, 20, 20]
        assert np.bincount(drawn, minlength=60)[1:10].tolist().count(2) >= 7  # 20 draws from 9 images: 2 or 3 each
        next_epoch = np.array([pipe.indices(step) for step in range(3, 6)]).ravel()
        assert set(next_epoch[labels[next_epoch] == 2]) != set(drawn[labels[drawn] == 2])


def damaged_examples(folder, damaged, n=24):
    """Write images whose shade encodes the index, and truncate, empty or delete the files of the damaged ones."""
    for i in range(n):
        Image.new("RGB", (40, 40), (i * 8,) * 3).save(folder / f"{i}.png")
    for damage, i in enumerate(damaged):
        path = folder / f"{i}.png"
        if damage % 3 == 0:
            path.write_bytes(path.read_bytes()[:50])
        elif damage % 3 == 1:
            path.write_bytes(b"")
        else:
            path.unlink()
    return Examples([str(folder / f"{i}.png") for i in range(n)], np.arange(n) % 2, ("a", "b"))


RAW = Preprocessing((8, 8), 1.0, "bilinear", None, None)


class TestDamage:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_damaged_image_is_replaced_by_the_next_of_the_epoch(self, tmp_path, workers):
        data = damaged_examples(tmp_path, [3, 11, 12])
        pipe = pipeline(data, preprocessing=RAW, workers=workers, augmentation=Augmentation())
        order = [i for step in range(3) for i in pipe.indices(step)]
        expected = [next(i for i in order[k:] + order[:k] if i not in (3, 11, 12)) for k in range(24)]
        batches = take(pipe, 3)
        shades = np.concatenate([x[:, 0, 0, 0] for x, _ in batches])
        assert (shades / 8).round().astype(int).tolist() == expected
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]).argmax(1), np.array(expected) % 2)
        assert [str(error).split(" ")[0] for error in pipe.damaged] == [data.images[i] for i in (3, 11, 12)]
        assert all(isinstance(error, ImageError) for error in pipe.damaged)

    def test_evaluation_skips_damaged_images(self, tmp_path):
        data = damaged_examples(tmp_path, [0, 1, 2, 3, 9])
        pipe = pipeline(data, preprocessing=RAW, training=False, batch_size=4)
        batches = pipe.batches()
        for _ in range(2):
            yielded = list(batches)
            assert [len(x) for x, _ in yielded] == [4, 3, 4, 4, 4]
            assert batches.kept.tolist() == [i for i in range(24) if i not in (0, 1, 2, 3, 9)]
        shades = np.concatenate([x[:, 0, 0, 0] for x, _ in yielded])
        np.testing.assert_array_equal(shades, batches.kept * 8)
        assert len(pipe.damaged) == 5

    @pytest.mark.parametrize("training", [True, False])
    def test_more_damaged_images_than_the_limit_raise(self, tmp_path, training):
        data = damaged_examples(tmp_path, [5, 6, 7])
        pipe = pipeline(data, preprocessing=RAW, training=training, damaged_limit=2)
        with pytest.raises(ImageError, match=r"3 of 24 images can't be read, but at most 2 may be skipped.*5.png"):
            take(pipe, 3)

    def test_data_without_readable_images_raises(self, tmp_path):
        pipe = pipeline(damaged_examples(tmp_path, range(4), 4), preprocessing=RAW, batch_size=2)
        with pytest.raises(ImageError, match="4 of 4"):
            take(pipe, 1)

    def test_default_limit_is_one_percent_but_at_least_ten(self):
        assert pipeline().damaged_limit == 10
        many = Examples(np.zeros((2001, 2, 2), "uint8"), np.zeros(2001, int), ("a",))
        assert pipeline(many).damaged_limit == 21

    def test_truncated_pil_image_is_skipped(self):
        file = io.BytesIO()
        photographs.photograph().save(file, "JPEG")
        truncated = Image.open(io.BytesIO(file.getvalue()[:3000]))
        data = Examples([truncated, photographs.photograph()], [0, 1], ("a", "b"))
        pipe = pipeline(data, preprocessing=RAW, batch_size=2, training=False)
        assert [x.shape[0] for x, _ in pipe.batches()] == [1]
        assert "image 0 can't be read" in str(pipe.damaged[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 10, "process_count": 4}, "batch_size=10 .* multiple of process_count=4"),
        ({"batch_size": 6, "process_count": 2, "mixing": {}}, "must be even, got 3"),
        ({"process_index": 2, "process_count": 2}, "process_index=2"),
        ({"balance": "both"}, "balance='both'"),
        ({"training": False, "balance": "weights"}, "only allowed with training=True"),
        ({"mixing": {"alpha": 1}}, "field name in mixing='alpha'"),
        ({"augmentation": 1}, "augmentation of type int"),
        ({"data_format": "last"}, "data_format='last'"),
        ({"workers": -1}, "workers=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**options)
