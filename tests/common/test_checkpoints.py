"""Checkpoint files of every format load completely or not at all, and never run code."""

import json
import os
import pickle
import resource
import struct
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy

import mobilenet_zoo
from mobilenet_common import CheckpointError
from mobilenet_common.architecture import Architecture, Attention, Conv, Fused, Head, Inverted, Universal
from mobilenet_common.checkpoints import LAYOUTS, load_checkpoint
from mobilenet_common.errors import MobileNetWarning
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from tests import references, seeded

pytestmark = pytest.mark.neutral
KEY, SHAPE = "timm/mobilenetv3_small_050", (32, 32, 3)


@pytest.fixture(scope="module")
def state():
    return seeded.state_dict(references.checkpoints()[KEY]["shapes"])


@pytest.fixture
def model():
    return references.build(KEY, input_shape=SHAPE)


def copy_weights(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]


def assert_unchanged(model, before):
    for variable, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


def assert_loaded(model, state):
    stem = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
    np.testing.assert_array_equal(stem, state["conv_stem.weight"].transpose(2, 3, 1, 0))
    classifier = keras.ops.convert_to_numpy(model.get_layer("classifier").kernel)
    np.testing.assert_array_equal(classifier, state["classifier.weight"].T)


# --- matching checkpoints ------------------------------------------------------------------------------------------


def write_safetensors(state, path):
    safetensors.numpy.save_file(state, path)


def write_torch(state, path):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(value.copy()) for name, value in state.items()}, path)


def write_wrapped(state, path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {f"module.{name}": torch.from_numpy(v.copy()) for name, v in state.items()}}, path)


@pytest.mark.parametrize(
    ("write", "extension"),
    [(write_safetensors, ".safetensors"), (write_torch, ".pth"), (write_torch, ".bin"), (write_wrapped, ".pth")],
)
def test_every_file_format_loads(write, extension, model, state, tmp_path):
    path = tmp_path / f"checkpoint{extension}"
    write(state, path)
    assert load_checkpoint(model, path, layout="timm") is model
    assert_loaded(model, state)


def test_create_function_adopts_classes_and_conventions_of_a_file(state, tmp_path):
    state = dict(state)
    state["classifier.weight"], state["classifier.bias"] = state["classifier.weight"][:7], state["classifier.bias"][:7]
    path = tmp_path / "seven.safetensors"
    write_safetensors(state, path)
    model = create_mobilenetv3("small", input_shape=SHAPE, width_multiplier=0.5, weights=path)
    assert model.output_shape == (None, 7)
    stem = model.get_layer("stem")
    assert (stem.padding, stem.norm_epsilon) == ("symmetric", 1e-5)
    assert_loaded(model, state)
    overridden = create_mobilenetv3(
        "small", input_shape=SHAPE, width_multiplier=0.5, weights=str(path), padding="same", norm_epsilon=0.01
    )
    assert (overridden.get_layer("stem").padding, overridden.get_layer("stem").norm_epsilon) == ("same", 0.01)


def test_saved_keras_files_load_with_the_weights_argument(tmp_path):
    options = {"variant": "conv_small", "num_classes": 3, "input_shape": SHAPE, "width_multiplier": 0.35}
    model = create_mobilenetv4(drop_path_rate=0.1, **options)
    for i, variable in enumerate(model.weights):
        variable.assign(np.full(variable.shape, 0.01 * i))
    for extension in (".weights.h5", ".keras"):
        path = tmp_path / f"own{extension}"
        (model.save_weights if extension == ".weights.h5" else model.save)(path)
        loaded = create_mobilenetv4(**(options | {"num_classes": None}), weights=path)
        assert loaded.output_shape == (None, 3)
        assert_unchanged(loaded, copy_weights(model))


def test_half_precision_tensors_are_cast_to_the_variable_dtype(model, state, tmp_path):
    half = {name: value.astype("float16") if value.dtype == "float32" else value for name, value in state.items()}
    path = tmp_path / "half.safetensors"
    write_safetensors(half, path)
    load_checkpoint(model, path)
    assert keras.backend.standardize_dtype(model.get_layer("stem").kernel.dtype) == "float32"
    assert_loaded(model, {name: value.astype("float32") for name, value in half.items()})


def test_bfloat16_files_load(model, state, tmp_path):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    path = tmp_path / "brain.safetensors"
    tensors = {name: torch.from_numpy(value.copy()).bfloat16() for name, value in state.items() if value.ndim}
    safetensors.torch.save_file(tensors, path)
    load_checkpoint(model, path)
    assert_loaded(model, {name: value.float().numpy() for name, value in tensors.items()})


def test_every_block_option_has_timm_names():
    """The parts of custom architectures have the names that timm gives such parts."""
    architecture = Architecture(
        stem=Conv(8, stride=2),
        stages=[
            [Universal(3, 3, 16, 8, 2, end=3, layer_scale=0.1), Fused(3, 16, 8)],
            [Inverted(3, 16, 8, 0.25), Attention(8, 2, 4, 8, kv_kernel=3, kv_stride=2, query_stride=2)],
        ],
        head=Head(),
    )
    model = create_mobilenetv4(architecture, 2, SHAPE)
    names = {entry.name for entry in LAYOUTS["timm"].entries(model)}
    assert {
        "blocks.0.0.dw_end.conv.weight",
        "blocks.0.0.layer_scale.gamma",
        "blocks.0.1.conv_exp.weight",
        "blocks.1.0.se.conv_reduce.bias",
        "blocks.1.1.attn.query.norm.weight",
        "blocks.1.1.attn.value.down_conv.weight",
    } <= names
    assert len(names) == len(model.weights)


# --- mismatched checkpoints ----------------------------------------------------------------------------------------


def add_fault(state, fault):
    state = dict(state)
    if fault == "missing":
        del state["blocks.1.1.conv_dw.weight"]
    elif fault == "left_over":
        state["blocks.9.9.conv.weight"] = np.zeros((3,), "float32")
    elif fault == "misshapen":
        state["conv_head.weight"] = state["conv_head.weight"][:-1]
    elif fault == "not_finite":
        state["bn1.running_var"] = state["bn1.running_var"].copy()
        state["bn1.running_var"][3] = np.nan
    elif fault == "text":
        state["bn1.weight"] = np.array(["a"] * 16)
    return state


FAULTS = {
    "missing": "blocks.1.1.conv_dw.weight",
    "left_over": "blocks.9.9.conv.weight",
    "misshapen": "conv_head.weight",
    "not_finite": "bn1.running_var",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_mismatched_tensor_is_named_and_nothing_is_loaded(fault, model, state):
    before = copy_weights(model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, add_fault(state, fault), layout="timm")
    assert FAULTS[fault] in str(caught.value)
    assert list(getattr(caught.value, fault)) == [FAULTS[fault]]
    assert_unchanged(model, before)


def test_all_faults_are_reported_together(model, state):
    for fault in FAULTS:
        state = add_fault(state, fault)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, state)
    assert all(name in str(caught.value) for name in FAULTS.values())
    assert "(1024, 288, 1, 1)" in str(caught.value), "the expected shape must be in the axis order of the checkpoint"


def test_non_numeric_tensor_raises_checkpoint_error(model, state):
    with pytest.raises(CheckpointError, match=r"bn1\.weight"):
        load_checkpoint(model, add_fault(state, "text"), layout="timm")


def test_checkpoint_of_another_model_is_rejected(model):
    before = copy_weights(model)
    other = seeded.state_dict(references.checkpoints()["timm/mobilenetv3_small_075"]["shapes"])
    with pytest.raises(CheckpointError, match="Wrong shape"):
        load_checkpoint(model, other)
    assert_unchanged(model, before)


def test_unknown_layout_suggests_a_known_one(model, state):
    with pytest.raises(ValueError, match="'timmm' is not known. Did you mean 'timm'"):
        load_checkpoint(model, state, layout="timmm")


def test_unrecognized_names_raise_checkpoint_error(model):
    with pytest.raises(CheckpointError, match="does not look like a MobileNet"):
        load_checkpoint(model, {"encoder.weight": np.zeros(3)})


def test_layout_without_names_for_a_block_raises_value_error(state):
    model = create_mobilenetv4("conv_small", input_shape=SHAPE, width_multiplier=0.35)
    with pytest.raises(ValueError, match="no name for stage3_block1: .* UniversalInvertedBottleneck"):
        load_checkpoint(model, state, layout="torchvision")


def test_source_must_be_a_path_or_mapping(model):
    with pytest.raises(ValueError, match="pass a path or a mapping"):
        load_checkpoint(model, 3)


# --- unreadable files ----------------------------------------------------------------------------------------------


def write_truncated(source, path):
    data = source.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.fixture(scope="module")
def good_files(state, tmp_path_factory):
    """Folder with one intact file of each format."""
    folder = tmp_path_factory.mktemp("good")
    write_safetensors(state, folder / "good.safetensors")
    write_torch(state, folder / "good.pth")
    model = references.build(KEY, input_shape=SHAPE)
    model.save_weights(folder / "good.weights.h5")
    model.save(folder / "good.keras")
    return folder


@pytest.mark.parametrize("name", ["good.safetensors", "good.pth", "good.weights.h5", "good.keras"])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_file_is_named_and_nothing_is_loaded(name, damage, good_files, model, tmp_path):
    path = tmp_path / name
    if damage == "truncated":
        write_truncated(good_files / name, path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"<html>Not Found</html>" * 100)
    before = copy_weights(model)
    with pytest.raises(CheckpointError, match="good"):
        load_checkpoint(model, path)
    assert_unchanged(model, before)


@pytest.mark.parametrize("header", [b"\xff" * 8 + b"{}", struct.pack("<Q", 10**9) + b"{}"])
def test_safetensors_header_with_a_wrong_length_is_rejected(header, model, tmp_path):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(header)
    with pytest.raises(CheckpointError, match="lie.safetensors can't be read"):
        load_checkpoint(model, path)


def test_safetensors_header_with_a_wrong_shape_is_rejected(model, tmp_path):
    path = tmp_path / "huge.safetensors"
    header = json.dumps(
        {"conv_stem.weight": {"dtype": "F32", "shape": [2**20, 2**9], "data_offsets": [0, 2**31]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(model, path)


def peak_memory():
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", ["claims.h5", "claims.keras", "claims.pth"])
def test_small_file_that_declares_a_huge_tensor_is_rejected_in_little_memory(name, model, tmp_path):
    """Each file declares 2 GB, with an HDF5 array without data or a PyTorch view that repeats one value."""
    path = tmp_path / name
    if name.endswith(".pth"):
        torch = pytest.importorskip("torch")
        torch.save({"conv_stem.weight": torch.zeros(1).expand(1 << 29)}, path)
    else:
        with h5py.File(tmp_path / "model.weights.h5", "w") as file:
            variables = file.create_group("layers/stem/vars")
            variables.attrs["name"] = "stem"
            variables.create_dataset("0", (1 << 29,), "float32", chunks=(1 << 16,))
        (tmp_path / "model.weights.h5").rename(path)
        if name.endswith(".keras"):
            content = path.read_bytes()
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("model.weights.h5", content)
    assert path.stat().st_size < 1 << 20
    before = peak_memory()
    with pytest.raises(CheckpointError, match="is too large for a MobileNet"):
        load_checkpoint(model, path)
    assert peak_memory() - before < 1 << 28


class MaliciousPickle:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "torch archive"])
def test_pickle_with_code_is_rejected_and_not_run(archive, model, tmp_path):
    pytest.importorskip("torch")
    marker, path = tmp_path / "was_run", tmp_path / "malicious.pth"
    payload = pickle.dumps({"conv_stem.weight": MaliciousPickle(marker)})
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", payload)
            file.writestr("archive/version", "3\n")
    else:
        path.write_bytes(payload)
    before = copy_weights(model)
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(model, path)
    assert not marker.exists()
    assert_unchanged(model, before)


def test_torch_file_without_a_state_dict_is_rejected(model, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(CheckpointError, match="not a state dict"):
        load_checkpoint(model, path)


def test_missing_torch_names_the_extra_to_install(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        CheckpointError,
        match=r"is a PyTorch file and needs torch, .*: pip install '\.\[torch\]'",
    ):
        load_checkpoint(model, path)


def test_missing_file_and_unknown_extension_raise_checkpoint_error(model, tmp_path):
    with pytest.raises(CheckpointError, match="is not a file"):
        load_checkpoint(model, tmp_path / "nowhere.safetensors")
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"unknown extension '.onnx'. Allowed: .safetensors"):
        load_checkpoint(model, path)


def test_mismatched_file_makes_create_model_fail(state, tmp_path):
    path = tmp_path / "broken.safetensors"
    write_safetensors(add_fault(state, "missing"), path)
    with pytest.raises(CheckpointError, match="Missing"):
        mobilenet_zoo.create_model("mobilenetv3_small_050", input_shape=SHAPE, weights=path)


@pytest.mark.parametrize("fits", [True, False])
def test_only_models_from_a_file_skip_random_initialization(fits, state, tmp_path):
    """Kernels that a file replaces start as zeros. Missing classifiers and later models start with random values."""
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(state, path)
    if fits:
        with pytest.warns(UserWarning, match="is new and must be trained"):
            loaded = create_mobilenetv3("small", 7, SHAPE, 0.5, weights=path)
        assert np.ptp(keras.ops.convert_to_numpy(loaded.get_layer("classifier").kernel)) > 0
    else:
        with pytest.raises(mobilenet_zoo.CheckpointError):
            create_mobilenetv3("large", 7, SHAPE, weights=path)
    kernels = [v for v in create_mobilenetv3("small", 7, SHAPE, 0.5).weights if v.name == "kernel"]
    assert all(np.ptp(keras.ops.convert_to_numpy(kernel)) > 0 for kernel in kernels)


def test_keras_file_restores_padding_and_epsilon(tmp_path):
    options = {"input_shape": SHAPE, "width_multiplier": 0.35, "num_classes": 2}
    create_mobilenetv4("conv_small", padding="symmetric", norm_epsilon=0.02, **options).save(tmp_path / "own.keras")
    loaded = create_mobilenetv4("conv_small", weights=tmp_path / "own.keras", **options)
    assert (loaded.get_layer("stem").padding, loaded.get_layer("stem").norm_epsilon) == ("symmetric", 0.02)


NON_DEFAULT = {"padding": "symmetric", "norm_epsilon": 0.02}
NARROW = {"input_shape": SHAPE, "width_multiplier": 0.35, "num_classes": 2}


def get_conventions(model):
    stem = model.get_layer("stem")
    return {"padding": stem.padding, "norm_epsilon": stem.norm_epsilon}


@pytest.mark.parametrize("extension", ["weights.h5", "safetensors"])
def test_weights_file_restores_padding_and_epsilon(extension, tmp_path, recwarn):
    model, path = create_mobilenetv4("conv_small", **NON_DEFAULT, **NARROW), tmp_path / f"own.{extension}"
    if extension == "weights.h5":
        model.save_weights(path)
    else:
        mobilenet_zoo.export_checkpoint(model, path, layout="timm")
    created = create_mobilenetv4("conv_small", weights=path, **NARROW)
    by_name = mobilenet_zoo.create_model("mobilenetv4_conv_small_035", weights=path, input_shape=SHAPE, num_classes=2)
    assert get_conventions(created) == get_conventions(by_name) == NON_DEFAULT
    assert not [warning for warning in recwarn if issubclass(warning.category, MobileNetWarning)]


def test_saved_folder_restores_padding_and_epsilon(tmp_path):
    model = create_mobilenetv4("conv_small", padding="same", norm_epsilon=0.02, **NARROW)
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "saved")
    loaded = create_mobilenetv4("conv_small", weights=folder / "model.safetensors", **NARROW)
    assert get_conventions(loaded) == {"padding": "same", "norm_epsilon": 0.02}


@pytest.mark.parametrize("load", ["Keras", "load_checkpoint"])
def test_padding_that_differs_from_the_file_warns(load, tmp_path, recwarn):
    create_mobilenetv4("conv_small", **NON_DEFAULT, **NARROW).save_weights(tmp_path / "own.weights.h5")

    def build_and_load(**options):
        model = create_mobilenetv4("conv_small", **options, **NARROW)
        if load == "Keras":
            model.load_weights(tmp_path / "own.weights.h5")
        else:
            mobilenet_zoo.load_checkpoint(model, tmp_path / "own.weights.h5")

    build_and_load(**NON_DEFAULT)
    assert not [warning for warning in recwarn if issubclass(warning.category, MobileNetWarning)]
    with pytest.warns(UserWarning, match="build the model with padding='symmetric', norm_epsilon=0.02"):
        build_and_load()


def test_unrecorded_padding_and_epsilon_are_assumed_with_a_warning(tmp_path, recwarn):
    create_mobilenetv4("conv_small", **NARROW).save_weights(tmp_path / "old.weights.h5")
    with h5py.File(tmp_path / "old.weights.h5", "a") as file:  # mimic a file from before these were recorded
        attributes = next(group for group in list_groups(file) if "padding" in group.attrs).attrs
        del attributes["padding"], attributes["norm_epsilon"]
    with pytest.warns(UserWarning, match="padding='same' and norm_epsilon=0.001 are assumed.*pass them"):
        create_mobilenetv4("conv_small", weights=tmp_path / "old.weights.h5", **NARROW)
    recwarn.clear()
    create_mobilenetv4("conv_small", weights=tmp_path / "old.weights.h5", **NON_DEFAULT, **NARROW)
    assert not [warning for warning in recwarn if issubclass(warning.category, MobileNetWarning)]


def list_groups(file):
    groups = []
    file.visititems(lambda _, group: groups.append(group))
    return groups


@pytest.mark.across
def test_conventions_of_a_file_override_those_of_a_timm_name(state, tmp_path):
    keras.applications.MobileNetV3Small(
        weights=None, input_shape=SHAPE, classes=5, include_preprocessing=False
    ).save_weights(tmp_path / "keras.weights.h5")
    name = "mobilenetv3_small_100"
    model = mobilenet_zoo.create_model(name, input_shape=SHAPE, weights=tmp_path / "keras.weights.h5")
    assert (model.get_layer("stem").padding, model.get_layer("stem").norm_epsilon) == ("same", 1e-3)
    write_safetensors(state, tmp_path / "timm.safetensors")
    model = mobilenet_zoo.create_model(
        "mobilenetv3_small_050", input_shape=SHAPE, weights=tmp_path / "timm.safetensors"
    )
    assert (model.get_layer("stem").padding, model.get_layer("stem").norm_epsilon) == ("symmetric", 1e-5)
