"""Checkpoints of training programs: wrapped networks, averaged weights, file extensions and other objects."""

import argparse
import collections
import concurrent.futures
import datetime
import io
import pathlib
import shutil
import sys
import types
import warnings
import zipfile

import keras
import numpy as np
import pytest
import safetensors.numpy

import mobilenet_zoo
from mobilenet_common import CheckpointError
from mobilenet_common.checkpoints import LAYOUTS, StateDict, keras_files, load_checkpoint
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from tests import peers, references, seeded

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.across

KEY, SHAPE = "timm/mobilenetv3_small_050", (32, 32, 3)


@pytest.fixture(scope="module")
def state():
    return {name: torch.from_numpy(value) for name, value in seeded_arrays().items()}


def seeded_arrays():
    return seeded.state_dict(references.checkpoints()[KEY]["shapes"])


def change_weights(state):
    """Return different weights under the same names."""
    return {name: value * 2 if value.is_floating_point() else value for name, value in state.items()}


def add_prefix(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def build_model():
    return references.build(KEY, input_shape=SHAPE)


def load_with_warnings(source, layout=None):
    """Load into a new model; return the model and the messages of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load_checkpoint(build_model(), source, layout)
    return model, [
        str(warning.message) for warning in caught if issubclass(warning.category, mobilenet_zoo.MobileNetWarning)
    ]


def assert_loaded(model, state):
    named_entries = {entry.name: entry for entry in LAYOUTS["timm"].entries(model)}
    for name in ("conv_stem.weight", "classifier.bias", "blocks.1.1.bn2.running_var"):
        value = keras.ops.convert_to_numpy(named_entries[name].variable)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        np.testing.assert_array_equal(value, state[name].float().numpy(), err_msg=name)


# --- choice of the network -----------------------------------------------------------------------------------------

WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "loss": 0.5},
    "DataParallel": lambda state: {"state_dict": add_prefix("module.", state)},
    "compiled": lambda state: add_prefix("_orig_mod.", state),
    "compiled, then distributed": lambda state: add_prefix("module._orig_mod.", state),
    "distributed, then compiled": lambda state: {"model": add_prefix("_orig_mod.module.", state)},
    "Lightning": lambda state: {"state_dict": add_prefix("model.", state), "hyper_parameters": {"lr": 0.1}},
    "Lightning, compiled": lambda state: {"state_dict": add_prefix("model._orig_mod.", state)},
    "nested": lambda state: {"model": {"state_dict": add_prefix("_orig_mod.module.model.", state)}},
    "EMA is None": lambda state: {"state_dict": state, "state_dict_ema": None},
    "EMA without tensors": lambda state: {"state_dict": state, "ema": {"decay": 0.999, "updates": 7}},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrapper_prefixes_are_removed(wrap, state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(WRAPPED[wrap](state), path)
    model, messages = load_with_warnings(path)
    assert_loaded(model, state)
    assert messages == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.model."])
@pytest.mark.parametrize("layout", [None, "timm"])
def test_wrapper_prefixes_are_removed_in_safetensors_and_mappings(prefix, layout, state, tmp_path):
    tensors = add_prefix(prefix, seeded_arrays())
    safetensors.numpy.save_file(tensors, tmp_path / "wrapped.safetensors", {"format": "pt"})
    for source in (tmp_path / "wrapped.safetensors", tensors, {"state_dict": tensors, "epoch": 1}):
        assert_loaded(load_with_warnings(source, layout)[0], state)


def test_wrapper_prefixes_are_removed_from_torchvision_names():
    tensors = seeded.state_dict(references.checkpoints()["torchvision/mobilenet_v2"]["shapes"])
    opened = StateDict.open({"model": add_prefix("module.", tensors)})
    assert opened.layout.name == "torchvision"
    assert opened.tensors.keys() == tensors.keys()


AVERAGES = {
    "state_dict_ema": lambda state, average: {"state_dict": state, "state_dict_ema": average},
    "model_ema.module": lambda state, average: {
        "model": state,
        "model_ema": add_prefix("module.", average) | {"n_averaged": torch.tensor(5)},
    },
    "ema.module": lambda state, average: {"model": state, "ema": {"module": average, "decay": 0.999}},
    "state_dict.model_ema.module": lambda state, average: {
        "state_dict": add_prefix("model.", state) | add_prefix("model_ema.module.", average)
    },
    "state_dict.ema_model.module": lambda state, average: {
        "state_dict": add_prefix("net.", state)
        | add_prefix("ema_model.module.", average)
        | {"ema_model.n_averaged": torch.tensor(5)}
    },
}


@pytest.mark.parametrize("key", AVERAGES)
def test_averaged_weights_are_preferred_with_a_warning(key, state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(AVERAGES[key](state, change_weights(state)), path)
    model, messages = load_with_warnings(path)
    assert_loaded(model, change_weights(state))
    assert len(messages) == 1 and messages[0].startswith(
        f"{path} holds several networks: loaded {key} (averaged weights), not "
    )


def test_order_of_preference_matches_timm(state, tmp_path):
    names = ("model", "state_dict", "model_ema", "state_dict_ema")
    contents = {name: {key: torch.full_like(value, i) for key, value in state.items()} for i, name in enumerate(names)}
    for i in (3, 2, 1, 0):
        torch.save(contents, tmp_path / "all.pth")
        model, _ = load_with_warnings(tmp_path / "all.pth")
        assert keras.ops.convert_to_numpy(model.get_layer("stem").kernel).flat[0] == i, names[i]
        del contents[names[i]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [*WRAPPED, *(f"{name} averaged" for name in ("state_dict_ema", "model_ema.module"))], ids=str
)
def test_loaded_weights_match_timm(case, state, tmp_path):
    """If timm loads a file, the library loads the same weights from it."""
    timm = peers.timm()
    if case.endswith(" averaged"):
        contents = AVERAGES[case.removesuffix(" averaged")](state, change_weights(state))
        contents.get("model_ema", {}).pop("n_averaged", None)  # timm rejects this entry
    else:
        contents = WRAPPED[case](state)
    path = tmp_path / "checkpoint.pth"
    torch.save(contents, path)
    timm_model = timm.create_model("mobilenetv3_small_050")
    try:
        timm.models.load_checkpoint(timm_model, str(path))
    except RuntimeError as error:
        if case in ("bare", "state_dict", "model", "DataParallel", "compiled", "EMA is None") or "averaged" in case:
            raise
        pytest.skip(f"timm rejects the file: {str(error).splitlines()[0]}")
    assert_loaded(load_with_warnings(path)[0], timm_model.state_dict())


@pytest.mark.slow
def test_training_checkpoint_of_timm_loads(state, tmp_path):
    """The file holds averaged weights, the arguments of the run and the state of the optimizer."""
    timm = peers.timm()
    timm_model = timm.create_model("mobilenetv3_small_050")
    timm_model.load_state_dict(state)
    average = timm.utils.ModelEmaV3(timm_model, decay=0.5)
    optimizer = torch.optim.AdamW(timm_model.parameters(), lr=0.01)
    timm_model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    average.update(timm_model)
    arguments = argparse.Namespace(model="mobilenetv3_small_050", device=torch.device("cpu"), opt_betas=None)
    folders = {"checkpoint_dir": str(tmp_path), "recovery_dir": str(tmp_path)}
    saver = timm.utils.CheckpointSaver(timm_model, optimizer, args=arguments, model_ema=average, **folders)
    saver.save_checkpoint(0, metric=np.float64(71.5))
    model, messages = load_with_warnings(tmp_path / "last.pth.tar")
    assert_loaded(model, average.module.state_dict())
    assert not np.array_equal(timm_model.classifier.bias.detach(), average.module.classifier.bias.detach())
    assert len(messages) == 1 and "loaded state_dict_ema (averaged weights), not state_dict." in messages[0]


@pytest.mark.slow
def test_training_checkpoint_of_torchvision_loads(tmp_path, deviation):
    """`model_ema` is an `AveragedModel` of PyTorch, with prefixed names and a counter."""
    peers.timm()  # makes torchvision importable with the CPU build of PyTorch
    torchvision = pytest.importorskip("torchvision")
    torchvision_model = torchvision.models.mobilenet_v3_small(num_classes=5)
    averaging = torch.optim.swa_utils.AveragedModel(
        torchvision_model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    for scale in (1.0, 1.5):
        with torch.no_grad():
            for parameter in torchvision_model.parameters():
                parameter.mul_(scale)
        averaging.update_parameters(torchvision_model)
    contents = {
        "model": torchvision_model.state_dict(),
        "optimizer": torch.optim.SGD(torchvision_model.parameters(), lr=0.1).state_dict(),
        "lr_scheduler": {"milestones": collections.Counter([30]), "last_epoch": 3},
        "epoch": 3,
        "args": argparse.Namespace(data_path="/data", output_dir=pathlib.Path("out")),
        "model_ema": averaging.state_dict(),
    }
    torch.save(contents, tmp_path / "model_3.pth")
    image = seeded.image(64, 64)
    with torch.no_grad():
        expected = averaging.module.eval()(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()
    with pytest.warns(UserWarning, match=r"loaded model_ema\.module \(averaged weights\), not model\."):
        model = create_mobilenetv3(
            "small", input_shape=(64, 64, 3), weights=tmp_path / "model_3.pth", classifier_activation=None
        )
    deviation("torchvision's V3", "averaged", references.infer(model, image), expected, references.TOLERANCE)


def test_weights_outside_the_network_are_left_out_with_a_warning(state, tmp_path):
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": add_prefix("model.", state) | {"criterion.weight": torch.ones(3)}}, path)
    model, messages = load_with_warnings(path)
    assert_loaded(model, state)
    assert messages == [f"{path} has weights outside the network. Left out: criterion.weight."]


def test_unexpected_tensor_inside_the_network_is_rejected(state):
    with pytest.raises(CheckpointError, match=r"blocks\.9\.9\.conv\.weight") as caught:
        load_checkpoint(build_model(), {"model": state | {"blocks.9.9.conv.weight": torch.ones(3)}})
    assert caught.value.left_over == ("blocks.9.9.conv.weight",)


def test_warning_points_to_the_line_of_the_caller(state, tmp_path):
    torch.save({"model": state, "model_ema": change_weights(state)}, tmp_path / "two.pth")
    with pytest.warns(UserWarning, match="several networks") as caught:
        load_checkpoint(build_model(), tmp_path / "two.pth")
        mobilenet_zoo.create_model("mobilenetv3_small_050", input_shape=SHAPE, weights=tmp_path / "two.pth")
    assert [warning.filename for warning in caught if issubclass(warning.category, mobilenet_zoo.MobileNetWarning)] == [
        __file__,
        __file__,
    ]


# --- file extensions -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    """Folder with one file of each format, named after its format."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(state, folder / "torch")
    torch.save(state, folder / "old_torch", _use_new_zipfile_serialization=False)
    safetensors.numpy.save_file(seeded_arrays(), folder / "safetensors")
    saved = load_checkpoint(build_model(), seeded_arrays())
    for extension in ("keras", "weights.h5", "h5"):
        path = folder / f"own.{extension}"
        (saved.save_weights if extension == "weights.h5" else saved.save)(path)
        path.rename(folder / extension)
    return folder


@pytest.mark.parametrize(
    "extension", ["", ".pth.tar", ".pt.tar", ".ckpt", ".pth", ".safetensors", ".h5", ".keras", ".old"]
)
@pytest.mark.parametrize("content", ["torch", "old_torch", "safetensors", "keras", "weights.h5", "h5"])
def test_format_is_detected_from_the_content(content, extension, files, state, tmp_path):
    path = tmp_path / f"weights{extension}"
    shutil.copy(files / content, path)
    opened = StateDict.open(path)
    assert opened.layout.name == ("native" if content in ("keras", "weights.h5", "h5") else "timm")
    stem = opened.tensors["stem/0" if opened.layout.name == "native" else "conv_stem.weight"]
    np.testing.assert_array_equal(np.sort(stem, axis=None), np.sort(state["conv_stem.weight"].numpy(), axis=None))


@pytest.mark.parametrize("content", ["torch", "keras", "h5"])
def test_weights_accepts_a_file_with_an_unknown_extension(content, files, state, tmp_path):
    path = tmp_path / "model_best.pth.tar"
    shutil.copy(files / content, path)
    built = create_mobilenetv3("small", width_multiplier=0.5, input_shape=SHAPE, weights=str(path))
    assert_loaded(built, state)
    assert built.get_layer("stem").padding == "symmetric", "options in a .keras file must apply whatever its name"


def test_safetensors_header_length_may_look_like_another_format(tmp_path):
    """A file starts with its header length. Length 19280 reads as "PK", like a zip archive, and 128 like a pickle."""
    for length in (128, 19280):
        tensors = {"conv_stem.weight": np.zeros((2, 2), "float32")}
        data = safetensors.numpy.save(tensors, {"format": "pt"})
        old_length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + old_length].rstrip().ljust(length)
        path = tmp_path / "model"
        path.write_bytes(length.to_bytes(8, "little") + header + data[8 + old_length :])
        assert list(StateDict.open(path).tensors) == ["conv_stem.weight"]


@pytest.mark.parametrize(
    "config",
    ["[]", "3", '{"config": []}', '{"config": {"layers": 3}}', '{"config": {"layers": [3, {"config": null}]}}'],
)
def test_keras_file_with_an_invalid_config_is_read_as_weights(config, tmp_path):
    saved = create_mobilenetv4("compact_nano", 3, (16, 16, 3))
    saved.save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as archive, zipfile.ZipFile(tmp_path / "odd.keras", "w") as changed:
        changed.writestr("config.json", config)
        changed.writestr("model.weights.h5", archive.read("model.weights.h5"))
    loaded = create_mobilenetv4("compact_nano", 3, (16, 16, 3), weights=tmp_path / "odd.keras")
    for value, expected in zip(loaded.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("extension", ["", ".ckpt", ".npz", ".onnx"])
def test_unknown_content_raises_checkpoint_error(extension, tmp_path):
    path = tmp_path / f"weights{extension}"
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    shutil.move(tmp_path / "arrays.npz", path)
    with pytest.raises(CheckpointError, match=r"its content has an unknown format|weights\.ckpt can't be read"):
        load_checkpoint(build_model(), path)


def test_missing_file_with_a_training_extension_is_reported():
    for name in ("absent.ckpt", "absent.pth.tar"):
        with pytest.raises(CheckpointError, match=f"{name} is not a file"):
            create_mobilenetv3("small", weights=name)


# --- objects other than tensors ------------------------------------------------------------------------------------


EXTRAS = {
    "Namespace": argparse.Namespace(lr=0.1, model="mobilenetv3_small_050", mean=(0.5,), nested=argparse.Namespace(a=1)),
    "NumPy scalar": np.float64(0.75),
    "NumPy array": np.arange(3),
    "NumPy's random state": np.random.default_rng(0).bit_generator.state["state"] | {"keys": np.arange(624)},
    "path": pathlib.Path("/data/imagenet"),
    "Windows path": pathlib.PureWindowsPath("C:/data"),
    "time": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=5),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "defaultdict of dicts": collections.defaultdict(dict, {0: {"step": torch.tensor(3)}}),
    "OrderedDict": collections.OrderedDict(a=1),
    "Counter": collections.Counter([30, 60]),
    "Size": torch.Size([2, 3]),
    "device": torch.device("cpu"),
    "dtype": torch.float16,
    "set": {1, 2},
    "bytes": b"abc",
    "complex": 1j,
}


@pytest.mark.parametrize("kind", EXTRAS)
def test_harmless_objects_beside_the_state_dict_are_ignored(kind, state, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    for legacy in (False, True):
        torch.save({"state_dict": state, "args": EXTRAS[kind]}, path, _use_new_zipfile_serialization=not legacy)
        assert_loaded(load_with_warnings(path)[0], state)


@pytest.mark.parametrize(
    "extra", [np.float64(0.75), np.arange(3), [np.float32(1), (np.float32(2),)], pathlib.Path("/data")]
)
def test_harmless_objects_among_the_tensors_are_ignored(extra, state, tmp_path):
    torch.save(state | {"score": extra}, tmp_path / "flat.pth")
    assert_loaded(load_with_warnings(tmp_path / "flat.pth")[0], state)


@pytest.mark.parametrize(
    "contents", [argparse.Namespace(a=1), {"a": np.arange(3)}, {"state_dict": {"a": np.arange(3)}}, np.float64(3)]
)
def test_file_without_tensors_is_rejected(contents, tmp_path):
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not a state dict: .* objects? of (an)?other kind") as caught:
        load_checkpoint(build_model(), tmp_path / "other.pth")
    assert "NotRead" not in str(caught.value)


@pytest.mark.parametrize("module", ["lightning_fabric.utilities.data", "pytorch_lightning.utilities.parsing"])
def test_lightning_hyperparameters_are_ignored(module, state, tmp_path, monkeypatch):
    """Their type is a subclass of dict. Lightning doesn't need to be installed."""
    kind = type("AttributeDict", (dict,), {"__module__": module})
    with monkeypatch.context() as patch:
        names = [module.rsplit(".", i)[0] for i in range(3)]
        for name in names:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[module].AttributeDict = kind
        contents = {"state_dict": add_prefix("model.", state), "hyper_parameters": kind(lr=0.1)}
        torch.save(contents, tmp_path / "last.ckpt")
    assert_loaded(load_with_warnings(tmp_path / "last.ckpt")[0], state)


class UserClass:
    """A class that a user has defined."""


class CountingNamespace(argparse.Namespace):
    """Counts how often loading a file restores the state of an instance."""

    called = 0

    def __setstate__(self, state):
        CountingNamespace.called += 1


def test_compressed_archive_is_rejected_before_reading(state, tmp_path, monkeypatch):
    torch.save(state, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "small.pth", "w") as small:
        for member in plain.infolist():
            small.writestr(member.filename, plain.read(member), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match=r"small.pth was not read: its member .*data.pkl is compressed"):
        load_checkpoint(build_model(), tmp_path / "small.pth")


def test_keras_file_with_oversized_weights_is_rejected(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "large.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2_000_000))
    assert (tmp_path / "large.keras").stat().st_size < 10_000
    monkeypatch.setattr(keras_files, "_MOST_BYTES_OF_WEIGHTS", 1_000_000)
    with pytest.raises(CheckpointError, match="its weights of 2,000,000 bytes are too large"):
        load_checkpoint(build_model(), tmp_path / "large.keras")


def test_allowing_namespaces_allows_no_other_global(state, tmp_path):
    for extra in (
        UserClass(),
        CountingNamespace(a=1),
        argparse.ArgumentParser,
        print,
        keras.Model,
        getattr,
        eval,
        np.load,
    ):
        path = tmp_path / "checkpoint.pth"
        torch.save({"state_dict": state, "args": argparse.Namespace(a=extra)}, path)
        with pytest.raises(CheckpointError, match=r"could run code.*model\.state_dict\(\)"):
            load_checkpoint(build_model(), path)
    assert CountingNamespace.called == 0


def test_rejected_object_is_named(state, tmp_path):
    torch.save({"state_dict": state, "trainer": UserClass()}, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=rf"other than tensors \({__name__}\.UserClass\)"):
        load_checkpoint(build_model(), tmp_path / "checkpoint.pth")


def test_safe_globals_are_restored_after_loading(state, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1), "trainer": UserClass()}, path)
    before = torch.serialization.get_safe_globals()
    with pytest.raises(CheckpointError):
        load_checkpoint(build_model(), path)
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, path)
    load_with_warnings(path)
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(Exception, match="Namespace"):
        torch.load(path, weights_only=True)
    with torch.serialization.safe_globals([argparse.Namespace]):  # allowed by the user
        load_with_warnings(path)
        assert torch.load(path, weights_only=True)["args"].a == 1


def test_torchscript_archive_is_rejected(state, tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript archive, which is code.*state_dict\(\)"):
        load_checkpoint(build_model(), tmp_path / "script.pt")


def test_recursive_pickle_is_rejected(tmp_path):
    contents = {"optimizer": torch.zeros(1)}
    for word in ("state_dict", "model", "ema", "module"):
        contents[word] = contents
    torch.save(contents, tmp_path / "loop.pth")
    with pytest.raises(CheckpointError, match="not a state dict|does not look like"):
        load_checkpoint(build_model(), tmp_path / "loop.pth")


# --- tensors -------------------------------------------------------------------------------------------------------


def test_parameters_of_every_float_dtype_load(state, tmp_path):
    kinds = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}
    for name, dtype in kinds.items():
        tensors = {
            key: torch.nn.Parameter(value.to(dtype), requires_grad=True) if value.is_floating_point() else value
            for key, value in state.items()
        }
        torch.save(tensors, tmp_path / f"{name}.pth")
        assert_loaded(
            load_with_warnings(tmp_path / f"{name}.pth")[0], {key: value.detach() for key, value in tensors.items()}
        )


@pytest.mark.parametrize(
    "make", [lambda value: value.to_sparse(), lambda value: value.to("meta"), lambda value: quantized(value)]
)
def test_unsupported_kind_of_tensor_is_named(make, state, tmp_path):
    path = tmp_path / "odd.pth"
    torch.save(state | {"classifier.bias": make(state["classifier.bias"])}, path)
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        load_checkpoint(build_model(), path)


def quantized(value):
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def test_counter_among_the_tensors_is_ignored(state):
    model, messages = load_with_warnings(state | {"n_averaged": torch.tensor(3)})
    assert_loaded(model, state)
    assert messages == []


def test_object_among_the_tensors_is_named(state, tmp_path):
    torch.save(state | {"epoch": "three"}, tmp_path / "flat.pth")
    with pytest.raises(CheckpointError, match="not a state dict: it must map names to tensors, but epoch is a str"):
        load_checkpoint(build_model(), tmp_path / "flat.pth")


# --- files without classifier --------------------------------------------------------------------------------------


def test_create_function_adds_a_new_head_to_a_file_without_one(state, tmp_path):
    """The file lacks the dense layer of the head and the classifier, like files of timm's feature extractors."""
    features = {name: value for name, value in state.items() if not name.startswith(("classifier", "conv_head"))}
    path = tmp_path / "features.pth"
    torch.save(features, path)
    with pytest.warns(UserWarning, match="has no classifier: head_dense and classifier are new and must be"):
        built = create_mobilenetv3("small", 5, SHAPE, 0.5, weights=path)
    for name in ("head_dense", "classifier"):
        assert np.ptp(keras.ops.convert_to_numpy(built.get_layer(name).kernel)) > 0, name
    torch.save({k: v for k, v in state.items() if not k.startswith("classifier")}, path)
    with pytest.warns(UserWarning, match="has no classifier: classifier is new and must be trained"):
        built = create_mobilenetv3("small", 5, SHAPE, 0.5, weights=path)
    kernel = keras.ops.convert_to_numpy(built.get_layer("head_dense").kernel)
    np.testing.assert_array_equal(np.squeeze(kernel).T, state["conv_head.weight"].squeeze().numpy())


def test_load_checkpoint_explains_how_to_load_without_classifier(state):
    features = {name: value for name, value in state.items() if not name.startswith("classifier")}
    with pytest.raises(
        CheckpointError, match=r"Missing \(2\): classifier\.weight.*\n.*no classifier: pass it as weights="
    ):
        load_checkpoint(build_model(), features)
    load_checkpoint(references.build(KEY, input_shape=SHAPE, include_top=False), features)


@pytest.mark.parametrize("part", ["classifier.bias", "blocks.1.1.conv_dw.weight", "conv_head.bias"])
def test_file_that_lacks_part_of_a_layer_is_rejected(part, state):
    """Create functions also reject a file that lacks only part of a layer."""
    rest = {name: value for name, value in state.items() if name != part}
    with pytest.raises(CheckpointError, match="Missing") as caught:
        create_mobilenetv3("small", 5, SHAPE, 0.5, weights=StateDict.open(rest))
    assert part in caught.value.missing


def test_legacy_h5_file_restores_padding_and_epsilon(tmp_path):
    options = {"input_shape": SHAPE, "width_multiplier": 0.35, "num_classes": 2}
    saved = create_mobilenetv4("conv_small", padding="symmetric", norm_epsilon=0.02, **options)
    saved.save(tmp_path / "own.h5")
    loaded = create_mobilenetv4("conv_small", weights=tmp_path / "own.h5", **options)
    assert (loaded.get_layer("stem").padding, loaded.get_layer("stem").norm_epsilon) == ("symmetric", 0.02)
    for value, loaded_value in zip(saved.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(value, loaded_value)


@pytest.mark.parametrize("contents", [torch.tensor(1.0), 3, None, argparse.Namespace(a=1)])
def test_file_without_a_mapping_is_rejected(contents, tmp_path):
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not a state dict"):
        load_checkpoint(build_model(), tmp_path / "other.pth")


def test_files_load_in_several_threads(state, tmp_path):
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, tmp_path / "checkpoint.pth")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(StateDict.open, [tmp_path / "checkpoint.pth"] * 12))
    assert all(checkpoint.tensors.keys() == state.keys() for checkpoint in opened)


def test_byte_stream_is_rejected(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    with pytest.raises(ValueError, match="type BytesIO is not allowed: pass a path or a mapping"):
        load_checkpoint(build_model(), stream)
