"""Batches depend on the seed and the step alone, and damaged images on nothing else."""

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
    """Images of noise, of which the first pixel tells which it is."""
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), "uint8")
    images[:, 0, 0] = np.arange(n)[:, None]
    labels = np.minimum(np.arange(n) % 5, classes - 1)
    return Examples(images, labels, tuple("abc"[:classes]), [f"noise[{i}]" for i in range(n)])


def pipeline(data=None, *, preprocessing=TRANSFORM, batch_size=8, training=True, **options):
    return Pipeline(data or examples(), preprocessing, batch_size=batch_size, training=training, **options)


def take(made, count, first_step=0):
    iterator = iter(made.batches(first_step))
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        for x, y in zip(mine, other, strict=True):
            np.testing.assert_array_equal(x, y)


def ids(batch):
    """Which images of `examples` a batch of unchanged ones holds."""
    return (255 * (batch[0][:, 0, 0, 0] * 0.2 + 0.5)).round().astype(int).tolist()


class TestDeterminism:
    def test_workers(self):
        assert_same(take(pipeline(**FULL), 6), take(pipeline(**FULL, workers=2), 6))

    @pytest.mark.parametrize("count", [2, 4])
    def test_processes(self, count):
        whole = take(pipeline(**FULL), 5)
        shares = [take(pipeline(**FULL, process_index=i, process_count=count), 5) for i in range(count)]
        assert_same(whole, [tuple(map(np.concatenate, zip(*step, strict=True))) for step in zip(*shares, strict=True)])

    def test_first_step(self):
        assert_same(take(pipeline(**FULL), 7)[3:], take(pipeline(**FULL), 4, first_step=3))

    def test_going_over_again(self):
        batches = pipeline(**FULL).batches(1)
        first, second = iter(batches), None
        early = [next(first), next(first)]
        second = iter(batches)  # takes over what the first has begun
        assert_same(early, [next(second), next(second)])
        assert_same([next(first)], [next(second)])
        assert_same(early[:1], [next(iter(batches))])

    def test_seeds_and_epochs_differ(self):
        plain = pipeline()
        epochs = [[i for step in range(2) for i in plain.indices(2 * epoch + step)] for epoch in range(3)]
        assert len({tuple(epoch) for epoch in epochs}) == 3
        assert all(len(set(epoch)) == 16 for epoch in epochs)
        assert pipeline(seed=1).indices(0) != plain.indices(0)

    def test_announced_order_is_given(self):
        made = pipeline()
        batches = take(made, 5)
        assert [ids(batch) for batch in batches] == [made.indices(step) for step in range(5)]
        for batch, step in zip(batches, range(5), strict=True):
            np.testing.assert_array_equal(batch[1], np.eye(3)[examples().labels[made.indices(step)]])

    def test_workers_import_no_keras(self):
        class Images(list):  # local, so that a worker needs nothing of this module
            def __getitem__(self, i):
                import sys

                from mobilenet_runtime import ImageError

                raise ImageError(f"imported: {[m for m in ('keras', 'tensorflow', 'torch') if m in sys.modules]}")

        data = Examples(Images([0, 1]), [0, 1], ("a", "b"), ["p", "q"])
        assert "keras" in sys.modules
        with pytest.raises(ImageError, match=r"2 of 2 images can't be read.*imported: \[\]"):
            take(pipeline(data, batch_size=2, workers=1), 1)


class TestBatches:
    def test_training_drops_what_is_left_over(self):
        assert pipeline().steps_per_epoch == 2
        small = pipeline(batch_size=32)
        assert small.steps_per_epoch == 1
        assert sorted(small.indices(0)[:22]) == list(range(22)) and len(small.indices(0)) == 32

    def test_evaluation_is_the_preprocessing(self):
        made = pipeline(training=False)
        batches = list(made.batches())
        assert [len(x) for x, _ in batches] == [8, 8, 6] and made.steps_per_epoch == 3
        np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), TRANSFORM(list(examples().images)))
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]).argmax(1), examples().labels)

    def test_evaluation_shared_by_processes(self):
        shares = [pipeline(training=False, process_index=i, process_count=4) for i in range(4)]
        found = [index for step in range(3) for share in shares for index in share.indices(step)]
        assert found == list(range(22))
        assert [len(x) for x, _ in shares[3].batches()] == [2, 2, 2]

    @pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
    @pytest.mark.parametrize("mean", [None, (0.5, 0.4, 0.3)])
    def test_training_without_augmentation_is_the_preprocessing(self, data_format, mean):
        transform = Preprocessing((16, 16), 0.875, "bilinear", mean, mean and (0.2, 0.3, 0.4))
        made = pipeline(preprocessing=transform, data_format=data_format)
        (batch,) = take(made, 1)
        expected = transform([examples().images[i] for i in made.indices(0)])
        expected = expected if data_format == "channels_last" else np.moveaxis(expected, -1, 1)
        assert batch[0].dtype == np.float32
        np.testing.assert_allclose(batch[0], expected, rtol=1e-5, atol=1e-5)

    def test_gray(self):
        transform = Preprocessing((16, 16), 0.875, "bilinear", (0.5,), (0.25,), channels=1)
        gray = Examples(examples().images[..., 0], examples().labels, tuple("abc"))
        (batch,) = take(pipeline(gray, preprocessing=transform, **FULL, data_format="channels_first"), 1)
        assert batch[0].shape == (8, 1, 16, 16)

    def test_every_kind_of_image(self, tmp_path):
        """Each comes out as the same image in RGB or gray does."""
        paths = []
        for name, opened in photographs.modes().items():
            paths.append(tmp_path / f"{name}.{'jpg' if name in ('cmyk', 'ycbcr') else 'png'}")
            opened.save(paths[-1])
        photographs.sixteen_bit(photographs.photograph()).save(tmp_path / "16.png")
        turned = photographs.rotated_by_exif(photographs.photograph(), 6).getvalue()
        (tmp_path / "turned.png").write_bytes(turned)
        paths = [str(path) for path in (*paths, tmp_path / "16.png", tmp_path / "turned.png")]
        data = Examples(paths, [0, 1] * (len(paths) // 2), ("a", "b"))
        whole = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.4, 1.6), flip=0.0)
        made = pipeline(data, batch_size=len(paths), augmentation=whole)
        (batch,) = take(made, 1)
        assert made.damaged == []
        found = {Path(paths[i]).stem: image for i, image in zip(made.indices(0), batch[0], strict=True)}
        for name in ("rgba", "palette", "cmyk", "ycbcr", "turned"):
            assert np.abs(found[name] - found["rgb"]).mean() < 0.12, name
        for name in ("gray and alpha", "16"):
            assert np.abs(found[name] - found["gray"]).mean() < 0.02, name

    def test_waiting_is_counted(self):
        made = pipeline()
        take(made, 2)
        assert 0 < made.waited_s < 60


class TestImbalance:
    def test_weights(self):
        data = examples()
        counts = np.bincount(data.labels)
        (batch,) = take(pipeline(data, balance="weights", batch_size=22), 1)
        weights = batch[2] * counts[batch[1].argmax(1)]
        assert weights == pytest.approx(weights[0])
        assert batch[2].mean() == pytest.approx(1)
        np.testing.assert_allclose(class_weights([4, 0, 1]), [5 / 8, 0, 5 / 2])

    def test_sampling(self):
        labels = np.repeat([0, 1, 2], [1, 9, 50])
        data = Examples(np.zeros((60, 4, 4), "uint8"), labels, tuple("abc"))
        made = pipeline(data, balance="sampling", batch_size=20)
        drawn = np.array([made.indices(step) for step in range(3)]).ravel()
        assert np.bincount(labels[drawn]).tolist() == [20, 20, 20]
        assert np.bincount(drawn, minlength=60)[1:10].tolist().count(2) >= 7  # of 9 images 20 times: 2 or 3 of each
        again = np.array([made.indices(step) for step in range(3, 6)]).ravel()
        assert set(again[labels[again] == 2]) != set(drawn[labels[drawn] == 2])


def with_damage(folder, damaged, n=24):
    """Files of images, some of them cut off, empty or gone; the others' shade tells which they are."""
    for i in range(n):
        Image.new("RGB", (40, 40), (i * 8,) * 3).save(folder / f"{i}.png")
    for kind, i in enumerate(damaged):
        path = folder / f"{i}.png"
        if kind % 3 == 0:
            path.write_bytes(path.read_bytes()[:50])
        elif kind % 3 == 1:
            path.write_bytes(b"")
        else:
            path.unlink()
    return Examples([str(folder / f"{i}.png") for i in range(n)], np.arange(n) % 2, ("a", "b"))


RAW = Preprocessing((8, 8), 1.0, "bilinear", None, None)


class TestDamage:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_replaced_by_the_next_of_the_epoch(self, tmp_path, workers):
        data = with_damage(tmp_path, [3, 11, 12])
        made = pipeline(data, preprocessing=RAW, workers=workers, augmentation=Augmentation())
        order = [i for step in range(3) for i in made.indices(step)]
        good = [next(i for i in order[k:] + order[:k] if i not in (3, 11, 12)) for k in range(24)]
        batches = take(made, 3)
        found = np.concatenate([x[:, 0, 0, 0] for x, _ in batches])
        assert (found / 8).round().astype(int).tolist() == good
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]).argmax(1), np.array(good) % 2)
        assert [str(error).split(" ")[0] for error in made.damaged] == [data.images[i] for i in (3, 11, 12)]
        assert all(isinstance(error, ImageError) for error in made.damaged)

    def test_left_out_of_evaluation(self, tmp_path):
        data = with_damage(tmp_path, [0, 1, 2, 3, 9])
        made = pipeline(data, preprocessing=RAW, training=False, batch_size=4)
        batches = made.batches()
        for _ in range(2):
            given = list(batches)
            assert [len(x) for x, _ in given] == [4, 3, 4, 4, 4]
            assert batches.kept.tolist() == [i for i in range(24) if i not in (0, 1, 2, 3, 9)]
        found = np.concatenate([x[:, 0, 0, 0] for x, _ in given])
        np.testing.assert_array_equal(found, batches.kept * 8)
        assert len(made.damaged) == 5

    @pytest.mark.parametrize("training", [True, False])
    def test_more_than_the_limit(self, tmp_path, training):
        data = with_damage(tmp_path, [5, 6, 7])
        made = pipeline(data, preprocessing=RAW, training=training, damaged_limit=2)
        with pytest.raises(ImageError, match=r"3 of 24 images can't be read, and 2 are skipped .*5.png"):
            take(made, 3)

    def test_none_is_good(self, tmp_path):
        made = pipeline(with_damage(tmp_path, range(4), 4), preprocessing=RAW, batch_size=2)
        with pytest.raises(ImageError, match="4 of 4"):
            take(made, 1)

    def test_limit(self):
        assert pipeline().damaged_limit == 10
        many = Examples(np.zeros((2001, 2, 2), "uint8"), np.zeros(2001, int), ("a",))
        assert pipeline(many).damaged_limit == 21

    def test_opened_images(self):
        file = io.BytesIO()
        photographs.photograph().save(file, "JPEG")
        cut = Image.open(io.BytesIO(file.getvalue()[:3000]))
        data = Examples([cut, photographs.photograph()], [0, 1], ("a", "b"))
        made = pipeline(data, preprocessing=RAW, batch_size=2, training=False)
        assert [x.shape[0] for x, _ in made.batches()] == [1]
        assert "image 0 can't be read" in str(made.damaged[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 10, "process_count": 4}, "batch_size=10 .* multiple of process_count=4"),
        ({"batch_size": 6, "process_count": 2, "mixing": {}}, "must be even; 3"),
        ({"process_index": 2, "process_count": 2}, "process_index=2"),
        ({"balance": "both"}, "balance='both'"),
        ({"training": False, "balance": "weights"}, "training=True only"),
        ({"mixing": {"alpha": 1}}, "a name in mixing='alpha'"),
        ({"augmentation": 1}, "augmentation of type int"),
        ({"data_format": "last"}, "data_format='last'"),
        ({"workers": -1}, "workers=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**options)
