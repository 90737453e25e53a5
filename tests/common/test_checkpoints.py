"""Checkpoints load whole or not at all, from every kind of file, and nothing in a file is ever run."""

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


def weights_of(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]


def assert_unchanged(model, before):
    for variable, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


def assert_loaded(model, state):
    stem = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
    np.testing.assert_array_equal(stem, state["conv_stem.weight"].transpose(2, 3, 1, 0))
    classifier = keras.ops.convert_to_numpy(model.get_layer("classifier").kernel)
    np.testing.assert_array_equal(classifier, state["classifier.weight"].T)


# --- what fits -----------------------------------------------------------------------------------------------------


def write_safetensors(state, path):
    safetensors.numpy.save_file(state, path)


def write_torch(state, path):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(value.copy()) for name, value in state.items()}, path)


def write_wrapped(state, path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {f"module.{name}": torch.from_numpy(v.copy()) for name, v in state.items()}}, path)


@pytest.mark.parametrize(
    ("write", "ending"),
    [(write_safetensors, ".safetensors"), (write_torch, ".pth"), (write_torch, ".bin"), (write_wrapped, ".pth")],
)
def test_files_of_every_kind_load(write, ending, model, state, tmp_path):
    path = tmp_path / f"checkpoint{ending}"
    write(state, path)
    assert load_checkpoint(model, path, layout="timm") is model
    assert_loaded(model, state)


def test_create_takes_a_file_and_what_it_brings(state, tmp_path):
    state = dict(state)
    state["classifier.weight"], state["classifier.bias"] = state["classifier.weight"][:7], state["classifier.bias"][:7]
    path = tmp_path / "seven.safetensors"
    write_safetensors(state, path)
    model = create_mobilenetv3("small", input_shape=SHAPE, width_multiplier=0.5, weights=path)
    assert model.output_shape == (None, 7)
    stem = model.get_layer("stem")
    assert (stem.padding, stem.norm_epsilon) == ("symmetric", 1e-5)
    assert_loaded(model, state)
    asked = create_mobilenetv3(
        "small", input_shape=SHAPE, width_multiplier=0.5, weights=str(path), padding="same", norm_epsilon=0.01
    )
    assert (asked.get_layer("stem").padding, asked.get_layer("stem").norm_epsilon) == ("same", 0.01)


def test_own_files_come_back_through_weights(tmp_path):
    options = {"variant": "conv_small", "num_classes": 3, "input_shape": SHAPE, "width_multiplier": 0.35}
    model = create_mobilenetv4(drop_path_rate=0.1, **options)
    for i, variable in enumerate(model.weights):
        variable.assign(np.full(variable.shape, 0.01 * i))
    for ending in (".weights.h5", ".keras"):
        path = tmp_path / f"own{ending}"
        (model.save_weights if ending == ".weights.h5" else model.save)(path)
        again = create_mobilenetv4(**(options | {"num_classes": None}), weights=path)
        assert again.output_shape == (None, 3)
        assert_unchanged(again, weights_of(model))


def test_half_precision_tensors_become_the_variables_type(model, state, tmp_path):
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


def test_blocks_with_everything_have_a_name_in_timm():
    """A custom architecture maps by the same rule, with names that timm gives such parts."""
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


# --- what doesn't fit ----------------------------------------------------------------------------------------------


def broken(state, fault):
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
def test_a_tensor_at_fault_is_named_and_nothing_is_loaded(fault, model, state):
    before = weights_of(model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, broken(state, fault), layout="timm")
    assert FAULTS[fault] in str(caught.value)
    assert list(getattr(caught.value, fault)) == [FAULTS[fault]]
    assert_unchanged(model, before)


def test_all_faults_are_listed_at_once(model, state):
    for fault in FAULTS:
        state = broken(state, fault)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, state)
    assert all(name in str(caught.value) for name in FAULTS.values())
    assert "(1024, 288, 1, 1)" in str(caught.value), "the shape that was needed, in the checkpoint's own order"


def test_a_tensor_that_is_no_number_is_at_fault(model, state):
    with pytest.raises(CheckpointError, match=r"bn1\.weight"):
        load_checkpoint(model, broken(state, "text"), layout="timm")


def test_another_models_checkpoint_is_refused(model):
    before = weights_of(model)
    other = seeded.state_dict(references.checkpoints()["timm/mobilenetv3_small_075"]["shapes"])
    with pytest.raises(CheckpointError, match="Wrong shape"):
        load_checkpoint(model, other)
    assert_unchanged(model, before)


def test_an_unknown_layout_names_the_known_ones(model, state):
    with pytest.raises(ValueError, match="'timmm' is not known. Did you mean 'timm'"):
        load_checkpoint(model, state, layout="timmm")


def test_unrecognizable_names_say_so(model):
    with pytest.raises(CheckpointError, match="does not look like a MobileNet"):
        load_checkpoint(model, {"encoder.weight": np.zeros(3)})


def test_a_layout_without_names_for_a_block_says_so(state):
    model = create_mobilenetv4("conv_small", input_shape=SHAPE, width_multiplier=0.35)
    with pytest.raises(ValueError, match="no name for stage3_block1, a UniversalInvertedBottleneck"):
        load_checkpoint(model, state, layout="torchvision")


def test_something_else_than_a_path_or_mapping_is_refused(model):
    with pytest.raises(ValueError, match="give a path or a mapping"):
        load_checkpoint(model, 3)


# --- files that can't be read --------------------------------------------------------------------------------------


def truncated(source, path):
    data = source.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.fixture(scope="module")
def good_files(state, tmp_path_factory):
    """One whole file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    write_safetensors(state, folder / "good.safetensors")
    write_torch(state, folder / "good.pth")
    own = references.build(KEY, input_shape=SHAPE)
    own.save_weights(folder / "good.weights.h5")
    own.save(folder / "good.keras")
    return folder


@pytest.mark.parametrize("name", ["good.safetensors", "good.pth", "good.weights.h5", "good.keras"])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_files_are_named_and_nothing_is_loaded(name, damage, good_files, model, tmp_path):
    path = tmp_path / name
    if damage == "truncated":
        truncated(good_files / name, path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"<html>Not Found</html>" * 100)
    before = weights_of(model)
    with pytest.raises(CheckpointError, match="good"):
        load_checkpoint(model, path)
    assert_unchanged(model, before)


@pytest.mark.parametrize("header", [b"\xff" * 8 + b"{}", struct.pack("<Q", 10**9) + b"{}"])
def test_a_safetensors_header_that_lies_about_its_length_is_refused(header, model, tmp_path):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(header)
    with pytest.raises(CheckpointError, match="lie.safetensors can't be read"):
        load_checkpoint(model, path)


def test_a_safetensors_header_that_lies_about_a_shape_is_refused(model, tmp_path):
    path = tmp_path / "huge.safetensors"
    header = json.dumps(
        {"conv_stem.weight": {"dtype": "F32", "shape": [2**20, 2**9], "data_offsets": [0, 2**31]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(model, path)


def most_memory():
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", ["claims.h5", "claims.keras", "claims.pth"])
def test_a_small_file_that_claims_a_large_tensor_is_refused_in_little_memory(name, model, tmp_path):
    """An array that was never written, and a view that repeats one number: 2 GB each."""
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
    before = most_memory()
    with pytest.raises(CheckpointError, match="is too large for a MobileNet"):
        load_checkpoint(model, path)
    assert most_memory() - before < 1 << 28


class Mischief:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("archive", [False, True], ids=["pickle", "torch archive"])
def test_a_pickle_with_code_is_refused_and_not_run(archive, model, tmp_path):
    pytest.importorskip("torch")
    mark, path = tmp_path / "was_run", tmp_path / "mischief.pth"
    payload = pickle.dumps({"conv_stem.weight": Mischief(mark)})
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", payload)
            file.writestr("archive/version", "3\n")
    else:
        path.write_bytes(payload)
    before = weights_of(model)
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(model, path)
    assert not mark.exists()
    assert_unchanged(model, before)


def test_a_torch_file_that_is_no_state_dict_is_refused(model, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(CheckpointError, match="not a state dict"):
        load_checkpoint(model, path)


def test_a_missing_torch_names_the_extra(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        CheckpointError,
        match=r"is a PyTorch file and needs torch, .*: pip install '\.\[torch\]'",
    ):
        load_checkpoint(model, path)


def test_a_missing_file_and_an_unknown_ending_say_so(model, tmp_path):
    with pytest.raises(CheckpointError, match="is not a file"):
        load_checkpoint(model, tmp_path / "nowhere.safetensors")
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"unknown ending '.onnx'. Readable: .safetensors"):
        load_checkpoint(model, path)


def test_a_file_that_does_not_fit_stops_create(state, tmp_path):
    path = tmp_path / "broken.safetensors"
    write_safetensors(broken(state, "missing"), path)
    with pytest.raises(CheckpointError, match="Missing"):
        mobilenet_zoo.create_model("mobilenetv3_small_050", input_shape=SHAPE, weights=path)


@pytest.mark.parametrize("fits", [True, False])
def test_only_models_from_a_file_go_without_random_values(fits, state, tmp_path):
    """Their kernels start as zeros, which the file replaces; the classifier that it lacks and later models don't."""
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


def test_own_keras_files_bring_padding_and_epsilon(tmp_path):
    options = {"input_shape": SHAPE, "width_multiplier": 0.35, "num_classes": 2}
    create_mobilenetv4("conv_small", padding="symmetric", norm_epsilon=0.02, **options).save(tmp_path / "own.keras")
    again = create_mobilenetv4("conv_small", weights=tmp_path / "own.keras", **options)
    assert (again.get_layer("stem").padding, again.get_layer("stem").norm_epsilon) == ("symmetric", 0.02)


OTHER = {"padding": "symmetric", "norm_epsilon": 0.02}
NARROW = {"input_shape": SHAPE, "width_multiplier": 0.35, "num_classes": 2}


def conventions_of(model):
    stem = model.get_layer("stem")
    return {"padding": stem.padding, "norm_epsilon": stem.norm_epsilon}


@pytest.mark.parametrize("ending", ["weights.h5", "safetensors"])
def test_own_files_of_weights_bring_padding_and_epsilon(ending, tmp_path, recwarn):
    model, path = create_mobilenetv4("conv_small", **OTHER, **NARROW), tmp_path / f"own.{ending}"
    if ending == "weights.h5":
        model.save_weights(path)
    else:
        mobilenet_zoo.export_checkpoint(model, path, layout="timm")
    again = create_mobilenetv4("conv_small", weights=path, **NARROW)
    by_name = mobilenet_zoo.create_model("mobilenetv4_conv_small_035", weights=path, input_shape=SHAPE, num_classes=2)
    assert conventions_of(again) == conventions_of(by_name) == OTHER
    assert not [warning for warning in recwarn if issubclass(warning.category, MobileNetWarning)]


def test_a_saved_folder_brings_padding_and_epsilon(tmp_path):
    model = create_mobilenetv4("conv_small", padding="same", norm_epsilon=0.02, **NARROW)
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "saved")
    again = create_mobilenetv4("conv_small", weights=folder / "model.safetensors", **NARROW)
    assert conventions_of(again) == {"padding": "same", "norm_epsilon": 0.02}


@pytest.mark.parametrize("load", ["Keras", "load_checkpoint"])
def test_other_padding_than_the_file_records_is_warned_of(load, tmp_path, recwarn):
    create_mobilenetv4("conv_small", **OTHER, **NARROW).save_weights(tmp_path / "own.weights.h5")

    def loaded(**options):
        model = create_mobilenetv4("conv_small", **options, **NARROW)
        if load == "Keras":
            model.load_weights(tmp_path / "own.weights.h5")
        else:
            mobilenet_zoo.load_checkpoint(model, tmp_path / "own.weights.h5")

    loaded(**OTHER)
    assert not [warning for warning in recwarn if issubclass(warning.category, MobileNetWarning)]
    with pytest.warns(UserWarning, match="build it with padding='symmetric', norm_epsilon=0.02"):
        loaded()


def test_what_a_file_does_not_record_is_assumed_and_said(tmp_path, recwarn):
    create_mobilenetv4("conv_small", **NARROW).save_weights(tmp_path / "old.weights.h5")
    with h5py.File(tmp_path / "old.weights.h5", "a") as file:  # as it was written before they were recorded
        attributes = next(group for group in found_groups(file) if "padding" in group.attrs).attrs
        del attributes["padding"], attributes["norm_epsilon"]
    with pytest.warns(UserWarning, match="padding='same' and norm_epsilon=0.001 are assumed.*pass them"):
        create_mobilenetv4("conv_small", weights=tmp_path / "old.weights.h5", **NARROW)
    recwarn.clear()
    create_mobilenetv4("conv_small", weights=tmp_path / "old.weights.h5", **OTHER, **NARROW)
    assert not [warning for warning in recwarn if issubclass(warning.category, MobileNetWarning)]


def found_groups(file):
    groups = []
    file.visititems(lambda _, group: groups.append(group))
    return groups


@pytest.mark.across
def test_a_file_from_elsewhere_knows_better_than_a_timm_name(state, tmp_path):
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
