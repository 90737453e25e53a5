"""Pictures come in as timm's evaluation transform makes them, whatever they are stored as."""

import io
import struct
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Conv, Head, Inverted
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.facts import Facts, remember
from mobilenet_zoo.pictures import MOST_PIXELS
from mobilenet_zoo.registry import WEIGHTS
from tests import peers, photographs, references
from tests.reference import make_preprocessing

across = pytest.mark.across
NAME = "mobilenetv4_conv_small.e2400_r224_in1k"
TINY = Architecture("tiny", Conv(8, stride=2), ((Inverted(3, 16, 8, stride=2),),), Head(None))
CASES, MODES = make_preprocessing.CASES, photographs.modes()


@pytest.fixture(scope="module")
def theirs():
    """What timm's transform gave."""
    with np.load(references.FOLDER / "preprocessing.npz") as file:
        return dict(file)


def transform(size=32, crop=0.875, interpolation="bicubic"):
    return mobilenet_zoo.preprocessing(NAME, input_size=size, crop=crop, interpolation=interpolation)


def assert_within_one_grey_level(ours, theirs):
    ours, theirs = np.asarray(ours).astype(int), np.asarray(theirs).astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1


@across
class TestAgainstTimm:
    @pytest.mark.parametrize("case", CASES)
    def test_resizing_and_cropping(self, case, theirs, tmp_path):
        name, size, crop, interpolation = CASES[case]
        photographs.photograph(name).save(tmp_path / "picture.png")
        found = transform(size, crop, interpolation).pixels(tmp_path / "picture.png")
        assert_within_one_grey_level(found, theirs[case])

    @pytest.mark.parametrize("mode", MODES)
    def test_every_mode(self, mode, theirs):
        assert_within_one_grey_level(transform(40).pixels(MODES[mode]), theirs[f"mode {mode}"])

    def test_normalising(self, theirs):
        found = transform(32)(photographs.photograph())
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, theirs["normalised"].transpose(1, 2, 0), atol=1 / 255 / 0.224 + 1e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name, each in WEIGHTS.items() if each.source == "timm"])
    def test_every_checkpoint_of_timm(self, name, deviation):
        timm = peers.timm()
        config = timm.get_pretrained_cfg(name)
        sizes = {"input_size": config.input_size, "crop": config.crop_pct}
        given = [sizes]
        if config.test_input_size:
            given.append({"input_size": config.test_input_size, "crop": config.test_crop_pct or config.crop_pct})
        for at in given:
            size = at["input_size"][1]
            pipeline = make_preprocessing.transform(
                timm, size, at["crop"], config.interpolation, config.mean, config.std
            )
            ours = mobilenet_zoo.preprocessing(name, input_size=size)
            for picture in pictures_of_all_kinds():
                expected = pipeline(picture.convert("RGB")).numpy().transpose(1, 2, 0)
                levels = np.abs(ours(picture) - expected) * np.array(config.std) * 255
                deviation.keep(name, "grey levels of 255", levels.max())
                assert levels.max() <= 1 + 1e-3


def pictures_of_all_kinds():
    """Photographs of scikit-learn, and of scikit-image where it is installed, and odd cuts of them."""
    pictures = [photographs.photograph(), photographs.photograph(photographs.PORTRAIT), *MODES.values()]
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        pictures += [Image.fromarray(each()) for each in (data.astronaut, data.camera, data.coffee, data.chelsea)]
    return pictures + [pictures[0].crop((3, 5, 260, 104)), pictures[1].crop((1, 2, 98, 333))]


@across
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_that_say_how_they_are_turned_are_turned_upright(orientation, tmp_path):
    upright = photographs.photograph()
    path = tmp_path / "turned.png"
    path.write_bytes(photographs.rotated_by_exif(upright, orientation).getvalue())
    with Image.open(path) as stored:
        assert (stored.size == upright.size) == (orientation == 3)
    np.testing.assert_array_equal(transform()(path), transform()(upright))


@across
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_become_8(format, tmp_path):
    grey = photographs.photograph().convert("L")
    photographs.sixteen_bit(grey).save(tmp_path / "deep", format)
    np.testing.assert_array_equal(transform()(tmp_path / "deep"), transform()(grey))


@across
def test_arrays_are_pictures_too():
    picture = photographs.photograph()
    expected = transform()(picture)
    array = np.asarray(picture)
    np.testing.assert_array_equal(transform()(array), expected)
    np.testing.assert_array_equal(transform()(array.astype("float32")), expected)
    np.testing.assert_array_equal(transform()(keras.ops.convert_to_tensor(array)), expected)
    np.testing.assert_array_equal(transform()(array[..., 1]), transform()(Image.fromarray(array[..., 1])))


@across
def test_several_pictures_make_a_batch():
    landscape, portrait = photographs.photograph(), photographs.photograph(photographs.PORTRAIT)
    batch = transform()([landscape, np.asarray(portrait)])
    assert batch.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(batch[1], transform()(portrait))
    stacked = np.stack([np.asarray(landscape)] * 2)
    np.testing.assert_array_equal(transform()(stacked), np.stack([batch[0]] * 2))


@across
class TestWhatBelongsToAModel:
    def test_published_weights_bring_theirs(self):
        checkpoint = WEIGHTS["mobilenetv4_conv_medium.e500_r256_in1k"]
        found = mobilenet_zoo.preprocessing(checkpoint.name)
        assert (found.size, found.crop) == ((256, 256), checkpoint.evaluation(256).crop)
        assert (found.mean, found.std) == (checkpoint.mean, checkpoint.std)
        assert mobilenet_zoo.preprocessing(f"{checkpoint.name}@main") == found
        larger = checkpoint.evaluations[1]
        assert mobilenet_zoo.preprocessing(checkpoint.name, input_size=larger.size).crop == larger.crop

    def test_a_model_named_after_weights(self):
        model = create_mobilenetv4("conv_small", 4, (96, 96, 3), width_multiplier=0.35, name=NAME)
        found = mobilenet_zoo.preprocessing(model)
        assert found.size == (96, 96)
        assert found.mean == WEIGHTS[NAME].mean

    def test_any_other_model_gets_minus_1_to_1(self):
        found = mobilenet_zoo.preprocessing(create_mobilenetv2("0.35", 4, (64, 80, 3)))
        assert (found.size, found.crop, found.mean, found.std) == ((64, 80), 0.875, (0.5,) * 3, (0.5,) * 3)
        assert mobilenet_zoo.preprocessing("mobilenetv2_035").size == (224, 224)

    def test_channels_first_and_grey(self):
        model = create_mobilenetv2("0.35", 4, (1, 32, 48), data_format="channels_first")
        found = mobilenet_zoo.preprocessing(model)(photographs.photograph())
        assert found.shape == (1, 32, 48)

    def test_what_is_known_survives_a_fresh_classifier_and_fusing(self):
        model = create_mobilenetv2("0.35", 4, (32, 32, 3))
        remember(model, Facts((32, 32), 0.9, "bilinear", class_names=("a", "b", "c", "d")))
        for other in (mobilenet_zoo.fuse(model), mobilenet_zoo.reset_classifier(model, 2)):
            assert mobilenet_zoo.preprocessing(other).crop == 0.9
        assert mobilenet_zoo.class_names_of(mobilenet_zoo.fuse(model)) == ["a", "b", "c", "d"]
        assert mobilenet_zoo.class_names_of(mobilenet_zoo.reset_classifier(model, 2)) is None


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_that_normalises_gets_pixels_and_answers_the_same(data_format, channels):
    shape = (40, 40, channels) if data_format == "channels_last" else (channels, 40, 40)
    options = {"input_shape": shape, "data_format": data_format, "name": NAME}
    plain = create_mobilenetv2(TINY, 4, **options)
    inside = create_mobilenetv2(TINY, 4, include_preprocessing=True, **options)
    inside.set_weights(plain.get_weights())
    picture = [photographs.photograph()]
    pixels = mobilenet_zoo.preprocessing(inside)(picture)
    assert pixels.min() >= 0 and pixels.max() > 100
    if channels == 3:  # of published means there are three
        normalised = (pixels / 255 - 0.5) / 0.5
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(inside(pixels)), keras.ops.convert_to_numpy(plain(normalised)), atol=1e-5
        )
    assert mobilenet_zoo.preprocessing(plain)(picture).max() < 5


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_model_can_resize(data_format):
    """Against Keras's own resizing of the whole picture, which the model is known to do."""
    options = {"data_format": data_format, "classifier_activation": None}
    model = create_mobilenetv2(TINY, 4, include_preprocessing=(40, 48), **options)
    sized = create_mobilenetv2(
        TINY,
        4,
        input_shape=(40, 48, 3) if data_format == "channels_last" else (3, 40, 48),
        include_preprocessing=True,
        **options,
    )
    sized.set_weights(model.get_weights())
    picture = np.asarray(photographs.photograph())[None].astype("float32")
    resized = np.asarray(Image.fromarray(picture[0].astype("uint8")).resize((48, 40), Image.Resampling.BILINEAR))
    resized = resized[None].astype("float32")
    if data_format == "channels_first":
        picture, resized = picture.transpose(0, 3, 1, 2), resized.transpose(0, 3, 1, 2)
    assert model.input_shape[1:].count(None) == 2
    found = keras.ops.convert_to_numpy(model(picture))
    expected = keras.ops.convert_to_numpy(sized(resized))
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max(), "Pillow rounds to whole grey levels"
    assert mobilenet_zoo.preprocessing(model).size == (40, 48)


@across
@pytest.mark.parametrize("value", ["yes", 3.5, (32,), (32, 0), 8, None])
def test_what_is_no_size_to_resize_to_is_refused(value):
    with pytest.raises(ValueError, match="include_preprocessing=.* must be True or False, or a size"):
        create_mobilenetv2("0.35", 4, include_preprocessing=value)


def png(width, height, data=b""):
    """A PNG's bytes with that size in its header, whatever follows."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@across
class TestWhatIsNoPicture:
    def refused(self, picture, match):
        with pytest.raises(mobilenet_zoo.PictureError, match=match):
            transform()(picture)

    def test_files(self, tmp_path):
        whole = io.BytesIO()
        photographs.photograph().save(whole, "JPEG")
        contents = {
            "empty.jpg": b"",
            "text.png": b"no picture at all",
            "half.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
            "header.png": png(10, 10)[:20],
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            self.refused(tmp_path / name, f"{name} can't be read as a picture")
        self.refused(tmp_path, "can't be read as a picture")
        self.refused(tmp_path / "absent.png", "absent.png can't be read as a picture")

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_a_bomb(self, tmp_path):
        side = int(MOST_PIXELS**0.5) + 1
        for name, size in (("bomb", (50_000, 50_000)), ("large", (side, side))):
            path = tmp_path / f"{name}.png"
            path.write_bytes(png(*size, bytes(1 << 20)))
            self.refused(path, "scale it down first")
        self.refused(Image.new("1", (side, side)), "scale it down first")

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4,)),
            np.zeros((4, 4, 2)),
            np.zeros((0, 4, 3)),
            np.full((4, 4), 256),
            np.full((4, 4), -1),
            np.full((4, 4), np.nan),
            np.array([["a"]]),
        ],
        ids=["vector", "2 channels", "empty", "256", "-1", "nan", "text"],
    )
    def test_arrays(self, array):
        self.refused(array, "no picture|0..255")


@across
@pytest.mark.parametrize(
    "argument, options, match",
    [
        ("mobilenetv4_conv_smal", {}, "Did you mean 'mobilenetv4_conv_small'"),
        (NAME, {"input_size": 0}, "input_size=0"),
        (NAME, {"input_size": (1, 2, 3)}, "integer or .height, width"),
        (NAME, {"crop": 0}, "crop=0"),
        (NAME, {"interpolation": "cubic"}, "interpolation='cubic'.*'bicubic'"),
        (3, {}, "int is not allowed"),
    ],
)
def test_wrong_arguments(argument, options, match):
    with pytest.raises(ValueError, match=match):
        mobilenet_zoo.preprocessing(argument, **options)


@across
def test_no_pictures_and_other_models():
    with pytest.raises(ValueError, match="no pictures"):
        transform()([])
    with pytest.raises(ValueError, match="no model of this library"):
        mobilenet_zoo.preprocessing(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    model = create_mobilenetv2("0.35", 4, (32, 32, 5))
    with pytest.raises(ValueError, match="takes 5"):
        mobilenet_zoo.preprocessing(model)(Path("any.png"))
