"""Exported checkpoints load in timm, torchvision and transformers with equal values."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import mobilenet_zoo
from mobilenet_common.checkpoints import StateDict, state_dict
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.registry import registry
from tests import peers, references, seeded

FAST = ("timm/mobilenetv1_100", "timm/mobilenetv3_small_075", "timm/mobilenetv4_conv_small", "compact/small")
COMPLETE = [key for key, facts in references.checkpoints().items() if not facts.get("features_only")]


def load_seeded(key):
    """Return the model of a reference checkpoint with seeded tensors, and the tensors."""
    tensors = seeded.state_dict(references.checkpoints()[key]["shapes"])
    model = references.build(key)
    mobilenet_zoo.load_checkpoint(model, tensors, layout=key.partition("/")[0])
    return model, tensors


@pytest.mark.across
@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=[] if key in FAST or "torchvision" in key else [pytest.mark.slow]) for key in COMPLETE],
)
def test_state_dict_equals_the_loaded_tensors(key):
    model, tensors = load_seeded(key)
    exported = state_dict(model, key.partition("/")[0])
    assert exported.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name, strict=True)


@pytest.mark.parametrize("extension", [".safetensors", ".pth"])
def test_exported_file_loads_with_equal_weights(extension, tmp_path):
    if extension == ".pth":
        pytest.importorskip("torch")
    model = create_mobilenetv4("conv_small", 5, (32, 32, 3), width_multiplier=0.35)
    path = tmp_path / f"new folder/weights{extension}"
    mobilenet_zoo.export_checkpoint(model, path)
    loaded = create_mobilenetv4("conv_small", 5, (32, 32, 3), width_multiplier=0.35)
    mobilenet_zoo.load_checkpoint(loaded, path, layout="timm")
    for value, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.across
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16"])
def test_half_precision_weights_are_exported(dtype, tmp_path):
    model = create_mobilenetv2("0.35", 5, (32, 32, 3), dtype=dtype)
    mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.safetensors")
    exported = load_file(tmp_path / "weights.safetensors")["classifier.weight"]
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(model.get_layer("classifier").kernel, "float32"))
    np.testing.assert_array_equal(exported.astype("float32"), kernel.T)


@pytest.mark.across
class TestTimmArguments:
    def export(self, model, tmp_path):
        return mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.safetensors")

    def test_model_with_a_timm_name_has_this_name(self, tmp_path):
        model = mobilenet_zoo.create_model("mobilenetv2_050", num_classes=5, input_shape=(32, 32, 1))
        expected = {"model_name": "mobilenetv2_050", "num_classes": 5, "in_chans": 1}
        assert self.export(model, tmp_path) == expected

    def test_padding_and_epsilon_that_differ_from_timm_are_included(self, tmp_path):
        arguments = self.export(create_mobilenetv2("0.5", 5, (32, 32, 3)), tmp_path)
        assert arguments.pop("model_name") == "mobilenetv2_050"
        assert arguments == {"num_classes": 5, "in_chans": 3, "pad_type": "same", "bn_eps": 1e-3}

    def test_model_converted_from_tensorflow_has_its_tf_name(self, tmp_path):
        model = mobilenet_zoo.create_model("tf_mobilenetv3_small_075", num_classes=5, input_shape=(32, 32, 3))
        assert self.export(model, tmp_path)["model_name"] == "tf_mobilenetv3_small_075"

    def test_custom_name_is_not_a_timm_name(self, tmp_path):
        model = create_mobilenetv2("0.5", 5, (32, 32, 3), name="flowers", padding="symmetric", norm_epsilon=1e-5)
        arguments = self.export(model, tmp_path)
        assert arguments == {"num_classes": 5, "in_chans": 3, "pad_type": "", "bn_eps": 1e-5}


@pytest.mark.across
@pytest.mark.parametrize(
    "build, layout, match",
    [
        (lambda: create_mobilenetv2("0.35", include_top=False, input_shape=(32, 32, 3)), "timm", "with top"),
        (lambda: mobilenet_zoo.fuse(create_mobilenetv2("0.35", 5, (32, 32, 3))), "timm", "the model that you fused"),
        (lambda: create_mobilenetv2("0.35", 5, (32, 32, 3), normalization="group"), "timm", "'group'"),
        (lambda: create_mobilenetv4("compact_nano", 5, (32, 32, 3)), "torchvision", "torchvision"),
        (lambda: create_mobilenetv4("conv_small", 5, (32, 32, 3)), "huggingface", "huggingface"),
        (lambda: create_mobilenetv2("0.35", 5, (32, 32, 3)), "keras", "'keras'.*'timm'"),
    ],
    ids=["no top", "fused", "group norm", "blocks", "generation", "layout"],
)
def test_unsupported_model_is_rejected_and_no_file_written(build, layout, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        mobilenet_zoo.export_checkpoint(build(), tmp_path / "weights.safetensors", layout=layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.across
def test_unknown_extension_is_rejected(tmp_path):
    model = create_mobilenetv2("0.35", 5, (32, 32, 3))
    with pytest.raises(ValueError, match=r"unknown extension '.h5'. Allowed: .safetensors, .pth"):
        mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.h5")


@pytest.mark.across
def test_padding_that_the_layout_does_not_use_warns(tmp_path):
    model = create_mobilenetv2("1.0", 5, (32, 32, 3))
    with pytest.warns(UserWarning, match="padding='same'.*torchvision layout have padding='symmetric'"):
        mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.pth", layout="torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.pth", layout="huggingface")


@pytest.mark.across
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in registry() if f"timm/{name}" in references.checkpoints()])
def test_timm_loads_exports_strictly_with_equal_outputs(name, tmp_path, deviation):
    """The state dict of the timm model also equals the exported tensors exactly."""
    timm = peers.timm()
    import torch

    model = mobilenet_zoo.create_model(name, num_classes=7, input_shape=(97, 81, 3), classifier_activation=None)
    shapes = dict(references.checkpoints()[f"timm/{name}"]["shapes"])
    shapes |= {key: [7, *shape[1:]] for key, shape in shapes.items() if key.startswith("classifier.")}
    mobilenet_zoo.load_checkpoint(model, seeded.state_dict(shapes), layout="timm")
    arguments = mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.safetensors")
    assert arguments["model_name"] == name
    timm_model = timm.create_model(**arguments).eval()
    tensors = {key: torch.from_numpy(value) for key, value in load_file(tmp_path / "weights.safetensors").items()}
    timm_model.load_state_dict(tensors, strict=True)
    x = seeded.image(97, 81)
    with torch.no_grad():
        expected = timm_model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    deviation(name, "timm", keras.ops.convert_to_numpy(model(x)), expected, references.TOLERANCE)
    for key, value in timm_model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), tensors[key].numpy(), err_msg=key)


@pytest.mark.across
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv4_conv_small"])
def test_timm_loads_a_model_with_same_padding(name, tmp_path, deviation):
    timm = peers.timm()
    import torch

    entry = registry()[name]
    model = entry.create(entry.architecture, 7, (97, 81, 3), entry.width, classifier_activation=None)
    arguments = mobilenet_zoo.export_checkpoint(model, tmp_path / "weights.safetensors")
    timm_model = timm.create_model(**arguments, checkpoint_path=str(tmp_path / "weights.safetensors")).eval()
    x = seeded.image(97, 81)
    with torch.no_grad():
        expected = timm_model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    deviation(name, "timm, same padding", keras.ops.convert_to_numpy(model(x)), expected, references.TOLERANCE)


class TestHuggingFace:
    """Layout of V1 and V2 in transformers, whose TF-Slim weights have a background class."""

    def tensors(self, build, **options):
        """Build a model and return its tensors under their names in transformers."""
        return state_dict(build(num_classes=1001, input_shape=(32, 32, 3), **options), "huggingface")

    @pytest.mark.parametrize("build", [create_mobilenetv1, create_mobilenetv2])
    def test_layout_provides_padding_epsilon_and_classes(self, build):
        tensors = self.tensors(build, variant="0.5")
        state = StateDict.open(tensors)
        assert (state.layout.name, state.num_classes) == ("huggingface", 1001)
        assert state.conventions(None) == {"padding": "same", "norm_epsilon": 1e-3}
        bare = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith("mobilenet_v")}
        assert StateDict.open(bare).tensors.keys() == tensors.keys() - {"classifier.weight", "classifier.bias"}

    @pytest.mark.across
    def test_background_class_is_dropped_for_1000_classes(self):
        tensors = self.tensors(create_mobilenetv1, variant="0.25")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            with_background, without_background = (
                create_mobilenetv1("0.25", classes, (32, 32, 3), weights=StateDict.open(tensors))
                for classes in (None, 1000)
            )
        kernel = keras.ops.convert_to_numpy(with_background.get_layer("classifier").kernel)
        assert kernel.shape[1] == 1001
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(without_background.get_layer("classifier").kernel), kernel[:, 1:]
        )
        with pytest.warns(UserWarning, match="1001 classes"):
            create_mobilenetv1("0.25", 10, (32, 32, 3), weights=StateDict.open(tensors))

    @pytest.mark.across
    @pytest.mark.slow
    @pytest.mark.parametrize("size", [(64, 64), (97, 81)])
    @pytest.mark.parametrize(
        "generation, width",
        [
            *((1, width) for width in ("1.0", "0.75", "0.5", "0.25")),
            *((2, width) for width in ("1.4", "1.0", "0.75", "0.5", "0.35")),
        ],
    )
    def test_outputs_match_transformers_in_both_directions(self, generation, width, size, tmp_path, deviation):
        transformers = peers.transformers()
        import torch

        build = {1: create_mobilenetv1, 2: create_mobilenetv2}[generation]
        config = getattr(transformers, f"MobileNetV{generation}Config")(depth_multiplier=float(width), num_labels=1001)
        transformers_model = getattr(transformers, f"MobileNetV{generation}ForImageClassification")(config).eval()
        shapes = {name: tuple(value.shape) for name, value in transformers_model.state_dict().items()}
        transformers_model.load_state_dict(
            {k: torch.from_numpy(v) for k, v in seeded.state_dict(shapes).items()}, strict=True
        )
        x = seeded.image(*size)
        with torch.no_grad():
            expected = transformers_model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).logits.numpy()
        model = build(
            width,
            input_shape=(*size, 3),
            classifier_activation=None,
            weights=dataclasses.replace(StateDict.open(transformers_model.state_dict()), source="transformers"),
        )
        outputs = keras.ops.convert_to_numpy(model(x))
        deviation(f"V{generation} {width}", "transformers", outputs, expected, references.TOLERANCE)
        mobilenet_zoo.export_checkpoint(model, tmp_path / "back.safetensors", layout="huggingface")
        exported = load_file(tmp_path / "back.safetensors")
        for name, value in transformers_model.state_dict().items():
            np.testing.assert_array_equal(exported[name], value.numpy(), err_msg=name)
