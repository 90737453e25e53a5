"""Files as trainers write them: wrapped networks, averaged weights, any ending, and objects beside the tensors."""

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
    return {name: torch.from_numpy(value) for name, value in arrays().items()}


def arrays():
    return seeded.state_dict(references.checkpoints()[KEY]["shapes"])


def averaged(state):
    """Other weights than the state's, by the same names."""
    return {name: value * 2 if value.is_floating_point() else value for name, value in state.items()}


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def model():
    return references.build(KEY, input_shape=SHAPE)


def loaded(source, layout=None):
    """Load into a model; return it and the lines that were said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = load_checkpoint(model(), source, layout)
    return result, [
        str(warning.message) for warning in caught if issubclass(warning.category, mobilenet_zoo.MobileNetWarning)
    ]


def assert_loaded(found, state):
    ours = {entry.name: entry for entry in LAYOUTS["timm"].entries(found)}
    for name in ("conv_stem.weight", "classifier.bias", "blocks.1.1.bn2.running_var"):
        value = keras.ops.convert_to_numpy(ours[name].variable)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        np.testing.assert_array_equal(value, state[name].float().numpy(), err_msg=name)


# --- which network -------------------------------------------------------------------------------------------------

WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "loss": 0.5},
    "DataParallel": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled, then distributed": lambda state: prefixed("module._orig_mod.", state),
    "distributed, then compiled": lambda state: {"model": prefixed("_orig_mod.module.", state)},
    "Lightning": lambda state: {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 0.1}},
    "Lightning, compiled": lambda state: {"state_dict": prefixed("model._orig_mod.", state)},
    "deep": lambda state: {"model": {"state_dict": prefixed("_orig_mod.module.model.", state)}},
    "no average yet": lambda state: {"state_dict": state, "state_dict_ema": None},
    "an average of something else": lambda state: {"state_dict": state, "ema": {"decay": 0.999, "updates": 7}},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_network_is_found_below_the_names_of_wrappers(wrap, state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(WRAPPED[wrap](state), path)
    found, said = loaded(path)
    assert_loaded(found, state)
    assert said == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.model."])
@pytest.mark.parametrize("layout", [None, "timm"])
def test_wrappers_are_taken_off_in_safetensors_and_mappings(prefix, layout, state, tmp_path):
    tensors = prefixed(prefix, arrays())
    safetensors.numpy.save_file(tensors, tmp_path / "wrapped.safetensors", {"format": "pt"})
    for source in (tmp_path / "wrapped.safetensors", tensors, {"state_dict": tensors, "epoch": 1}):
        assert_loaded(loaded(source, layout)[0], state)


def test_wrappers_are_taken_off_the_names_of_torchvision():
    tensors = seeded.state_dict(references.checkpoints()["torchvision/mobilenet_v2"]["shapes"])
    opened = StateDict.open({"model": prefixed("module.", tensors)})
    assert opened.layout.name == "torchvision"
    assert opened.tensors.keys() == tensors.keys()


AVERAGES = {
    "state_dict_ema": lambda state, average: {"state_dict": state, "state_dict_ema": average},
    "model_ema.module": lambda state, average: {
        "model": state,
        "model_ema": prefixed("module.", average) | {"n_averaged": torch.tensor(5)},
    },
    "ema.module": lambda state, average: {"model": state, "ema": {"module": average, "decay": 0.999}},
    "state_dict.model_ema.module": lambda state, average: {
        "state_dict": prefixed("model.", state) | prefixed("model_ema.module.", average)
    },
    "state_dict.ema_model.module": lambda state, average: {
        "state_dict": prefixed("net.", state)
        | prefixed("ema_model.module.", average)
        | {"ema_model.n_averaged": torch.tensor(5)}
    },
}


@pytest.mark.parametrize("place", AVERAGES)
def test_averaged_weights_go_first_and_that_is_said(place, state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(AVERAGES[place](state, averaged(state)), path)
    found, said = loaded(path)
    assert_loaded(found, averaged(state))
    assert len(said) == 1 and said[0].startswith(
        f"{path} holds several networks: loaded {place} (averaged weights), not "
    )


def test_the_order_is_timms_where_all_are_there(state, tmp_path):
    names = ("model", "state_dict", "model_ema", "state_dict_ema")
    wholes = {name: {key: torch.full_like(value, i) for key, value in state.items()} for i, name in enumerate(names)}
    for i in (3, 2, 1, 0):
        torch.save(wholes, tmp_path / "all.pth")
        found, _ = loaded(tmp_path / "all.pth")
        assert keras.ops.convert_to_numpy(found.get_layer("stem").kernel).flat[0] == i, names[i]
        del wholes[names[i]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [*WRAPPED, *(f"{name} averaged" for name in ("state_dict_ema", "model_ema.module"))], ids=str
)
def test_timm_takes_the_same(case, state, tmp_path):
    """Wherever timm's own loading takes a file, the weights are those that it takes."""
    timm = peers.timm()
    if case.endswith(" averaged"):
        contents = AVERAGES[case.removesuffix(" averaged")](state, averaged(state))
        contents.get("model_ema", {}).pop("n_averaged", None)  # timm would refuse it
    else:
        contents = WRAPPED[case](state)
    path = tmp_path / "checkpoint.pth"
    torch.save(contents, path)
    theirs = timm.create_model("mobilenetv3_small_050")
    try:
        timm.models.load_checkpoint(theirs, str(path))
    except RuntimeError as error:
        if case in ("bare", "state_dict", "model", "DataParallel", "compiled", "no average yet") or "averaged" in case:
            raise
        pytest.skip(f"timm refuses it: {str(error).splitlines()[0]}")
    assert_loaded(loaded(path)[0], theirs.state_dict())


@pytest.mark.slow
def test_a_file_that_timm_saved_while_training(state, tmp_path):
    """With averaged weights, the arguments of the run and the optimizer's state."""
    timm = peers.timm()
    theirs = timm.create_model("mobilenetv3_small_050")
    theirs.load_state_dict(state)
    average = timm.utils.ModelEmaV3(theirs, decay=0.5)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01)
    theirs(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    average.update(theirs)
    arguments = argparse.Namespace(model="mobilenetv3_small_050", device=torch.device("cpu"), opt_betas=None)
    folders = {"checkpoint_dir": str(tmp_path), "recovery_dir": str(tmp_path)}
    saver = timm.utils.CheckpointSaver(theirs, optimizer, args=arguments, model_ema=average, **folders)
    saver.save_checkpoint(0, metric=np.float64(71.5))
    found, said = loaded(tmp_path / "last.pth.tar")
    assert_loaded(found, average.module.state_dict())
    assert not np.array_equal(theirs.classifier.bias.detach(), average.module.classifier.bias.detach())
    assert len(said) == 1 and "loaded state_dict_ema (averaged weights), not state_dict." in said[0]


@pytest.mark.slow
def test_a_file_as_torchvisions_references_save_it(tmp_path, deviation):
    """`model_ema` is PyTorch's averaged model, with a wrapper's names and a counter."""
    peers.timm()  # which repairs torchvision's import beside PyTorch's build for CPUs
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.mobilenet_v3_small(num_classes=5)
    averaging = torch.optim.swa_utils.AveragedModel(
        theirs, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    for scale in (1.0, 1.5):
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.mul_(scale)
        averaging.update_parameters(theirs)
    contents = {
        "model": theirs.state_dict(),
        "optimizer": torch.optim.SGD(theirs.parameters(), lr=0.1).state_dict(),
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
        ours = create_mobilenetv3(
            "small", input_shape=(64, 64, 3), weights=tmp_path / "model_3.pth", classifier_activation=None
        )
    deviation("torchvision's V3", "averaged", references.infer(ours, image), expected, references.TOLERANCE)


def test_what_is_beside_the_network_is_left_out_and_that_is_said(state, tmp_path):
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": prefixed("model.", state) | {"criterion.weight": torch.ones(3)}}, path)
    found, said = loaded(path)
    assert_loaded(found, state)
    assert said == [f"{path} has more than the network. Left out: criterion.weight."]


def test_a_tensor_too_many_inside_the_network_is_still_refused(state):
    with pytest.raises(CheckpointError, match=r"blocks\.9\.9\.conv\.weight") as caught:
        load_checkpoint(model(), {"model": state | {"blocks.9.9.conv.weight": torch.ones(3)}})
    assert caught.value.left_over == ("blocks.9.9.conv.weight",)


def test_the_warning_is_at_the_users_line(state, tmp_path):
    torch.save({"model": state, "model_ema": averaged(state)}, tmp_path / "two.pth")
    with pytest.warns(UserWarning, match="several networks") as caught:
        load_checkpoint(model(), tmp_path / "two.pth")
        mobilenet_zoo.create_model("mobilenetv3_small_050", input_shape=SHAPE, weights=tmp_path / "two.pth")
    assert [warning.filename for warning in caught if issubclass(warning.category, mobilenet_zoo.MobileNetWarning)] == [
        __file__,
        __file__,
    ]


# --- endings -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    """A file of each kind of content."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(state, folder / "torch")
    torch.save(state, folder / "old_torch", _use_new_zipfile_serialization=False)
    safetensors.numpy.save_file(arrays(), folder / "safetensors")
    own = load_checkpoint(model(), arrays())
    for ending in ("keras", "weights.h5", "h5"):
        path = folder / f"own.{ending}"
        (own.save_weights if ending == "weights.h5" else own.save)(path)
        path.rename(folder / ending)
    return folder


@pytest.mark.parametrize(
    "ending", ["", ".pth.tar", ".pt.tar", ".ckpt", ".pth", ".safetensors", ".h5", ".keras", ".old"]
)
@pytest.mark.parametrize("content", ["torch", "old_torch", "safetensors", "keras", "weights.h5", "h5"])
def test_content_decides_and_not_the_name(content, ending, files, state, tmp_path):
    path = tmp_path / f"weights{ending}"
    shutil.copy(files / content, path)
    opened = StateDict.open(path)
    assert opened.layout.name == ("native" if content in ("keras", "weights.h5", "h5") else "timm")
    stem = opened.tensors["stem/0" if opened.layout.name == "native" else "conv_stem.weight"]
    np.testing.assert_array_equal(np.sort(stem, axis=None), np.sort(state["conv_stem.weight"].numpy(), axis=None))


@pytest.mark.parametrize("content", ["torch", "keras", "h5"])
def test_a_file_without_a_known_ending_goes_into_weights(content, files, state, tmp_path):
    path = tmp_path / "model_best.pth.tar"
    shutil.copy(files / content, path)
    built = create_mobilenetv3("small", width_multiplier=0.5, input_shape=SHAPE, weights=str(path))
    assert_loaded(built, state)
    assert built.get_layer("stem").padding == "symmetric", "a .keras file's own option, whatever it is called"


def test_a_safetensors_header_whose_length_looks_like_another_kind(tmp_path):
    """The first bytes of the file are the length of its header: 19280 reads PK, as an archive; 128 as a pickle."""
    for length in (128, 19280):
        tensors = {"conv_stem.weight": np.zeros((2, 2), "float32")}
        data = safetensors.numpy.save(tensors, {"format": "pt"})
        own = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + own].rstrip().ljust(length)
        path = tmp_path / "model"
        path.write_bytes(length.to_bytes(8, "little") + header + data[8 + own :])
        assert list(StateDict.open(path).tensors) == ["conv_stem.weight"]


@pytest.mark.parametrize(
    "config",
    ["[]", "3", '{"config": []}', '{"config": {"layers": 3}}', '{"config": {"layers": [3, {"config": null}]}}'],
)
def test_a_keras_file_whose_description_is_odd_is_read_as_weights(config, tmp_path):
    small = create_mobilenetv4("compact_nano", 3, (16, 16, 3))
    small.save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as archive, zipfile.ZipFile(tmp_path / "odd.keras", "w") as odd:
        odd.writestr("config.json", config)
        odd.writestr("model.weights.h5", archive.read("model.weights.h5"))
    found = create_mobilenetv4("compact_nano", 3, (16, 16, 3), weights=tmp_path / "odd.keras")
    for ours, theirs in zip(found.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ending", ["", ".ckpt", ".npz", ".onnx"])
def test_unknown_content_is_refused_by_what_it_is(ending, tmp_path):
    path = tmp_path / f"weights{ending}"
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    shutil.move(tmp_path / "arrays.npz", path)
    with pytest.raises(CheckpointError, match=r"its content is of no known kind|weights\.ckpt can't be read"):
        load_checkpoint(model(), path)


def test_a_missing_file_with_a_trainers_ending_is_a_missing_file():
    for name in ("absent.ckpt", "absent.pth.tar"):
        with pytest.raises(CheckpointError, match=f"{name} is not a file"):
            create_mobilenetv3("small", weights=name)


# --- what is beside the tensors ------------------------------------------------------------------------------------


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
def test_harmless_objects_beside_the_tensors_are_no_hindrance(kind, state, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    for legacy in (False, True):
        torch.save({"state_dict": state, "args": EXTRAS[kind]}, path, _use_new_zipfile_serialization=not legacy)
        assert_loaded(loaded(path)[0], state)


@pytest.mark.parametrize(
    "extra", [np.float64(0.75), np.arange(3), [np.float32(1), (np.float32(2),)], pathlib.Path("/data")]
)
def test_harmless_objects_among_the_tensors_are_no_hindrance(extra, state, tmp_path):
    torch.save(state | {"score": extra}, tmp_path / "flat.pth")
    assert_loaded(loaded(tmp_path / "flat.pth")[0], state)


@pytest.mark.parametrize(
    "contents", [argparse.Namespace(a=1), {"a": np.arange(3)}, {"state_dict": {"a": np.arange(3)}}, np.float64(3)]
)
def test_a_file_without_tensors_is_refused_in_words(contents, tmp_path):
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not a state dict: .* objects? of (an)?other kind") as caught:
        load_checkpoint(model(), tmp_path / "other.pth")
    assert "NotRead" not in str(caught.value)


@pytest.mark.parametrize("module", ["lightning_fabric.utilities.data", "pytorch_lightning.utilities.parsing"])
def test_lightnings_hyperparameters_are_no_hindrance(module, state, tmp_path, monkeypatch):
    """Their type is a dict by another name; Lightning need not be installed."""
    kind = type("AttributeDict", (dict,), {"__module__": module})
    with monkeypatch.context() as patch:
        names = [module.rsplit(".", i)[0] for i in range(3)]
        for name in names:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[module].AttributeDict = kind
        contents = {"state_dict": prefixed("model.", state), "hyper_parameters": kind(lr=0.1)}
        torch.save(contents, tmp_path / "last.ckpt")
    assert_loaded(loaded(tmp_path / "last.ckpt")[0], state)


class OfUser:
    """A class of the user's own."""


class Loud(argparse.Namespace):
    """Shows whether the class of a file is called."""

    called = 0

    def __setstate__(self, state):
        Loud.called += 1


def test_a_compressed_archive_is_refused_before_it_is_read(state, tmp_path, monkeypatch):
    torch.save(state, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "small.pth", "w") as small:
        for member in plain.infolist():
            small.writestr(member.filename, plain.read(member), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match=r"small.pth was not read: its member .*data.pkl is compressed"):
        load_checkpoint(model(), tmp_path / "small.pth")


def test_a_member_of_a_keras_file_may_not_be_larger_than_any_model(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "large.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2_000_000))
    assert (tmp_path / "large.keras").stat().st_size < 10_000
    monkeypatch.setattr(keras_files, "_MOST_BYTES_OF_WEIGHTS", 1_000_000)
    with pytest.raises(CheckpointError, match="its weights of 2,000,000 bytes are too large"):
        load_checkpoint(model(), tmp_path / "large.keras")


def test_permission_for_namespaces_opens_no_other_global(state, tmp_path):
    for extra in (OfUser(), Loud(a=1), argparse.ArgumentParser, print, keras.Model, getattr, eval, np.load):
        path = tmp_path / "checkpoint.pth"
        torch.save({"state_dict": state, "args": argparse.Namespace(a=extra)}, path)
        with pytest.raises(CheckpointError, match=r"could run code.*model\.state_dict\(\)"):
            load_checkpoint(model(), path)
    assert Loud.called == 0


def test_what_was_refused_is_named(state, tmp_path):
    torch.save({"state_dict": state, "trainer": OfUser()}, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=rf"more than tensors \({__name__}\.OfUser\)"):
        load_checkpoint(model(), tmp_path / "checkpoint.pth")


def test_permissions_end_with_the_call_and_take_none_away(state, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1), "trainer": OfUser()}, path)
    before = torch.serialization.get_safe_globals()
    with pytest.raises(CheckpointError):
        load_checkpoint(model(), path)
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, path)
    loaded(path)
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(Exception, match="Namespace"):
        torch.load(path, weights_only=True)
    with torch.serialization.safe_globals([argparse.Namespace]):  # the user's own permission
        loaded(path)
        assert torch.load(path, weights_only=True)["args"].a == 1


def test_a_torchscript_archive_is_code(state, tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript archive, which is code.*state_dict\(\)"):
        load_checkpoint(model(), tmp_path / "script.pt")


def test_a_pickle_that_holds_itself_ends(tmp_path):
    contents = {"optimizer": torch.zeros(1)}
    for word in ("state_dict", "model", "ema", "module"):
        contents[word] = contents
    torch.save(contents, tmp_path / "loop.pth")
    with pytest.raises(CheckpointError, match="not a state dict|does not look like"):
        load_checkpoint(model(), tmp_path / "loop.pth")


# --- tensors -------------------------------------------------------------------------------------------------------


def test_parameters_and_half_precision_load(state, tmp_path):
    kinds = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}
    for name, dtype in kinds.items():
        tensors = {
            key: torch.nn.Parameter(value.to(dtype), requires_grad=True) if value.is_floating_point() else value
            for key, value in state.items()
        }
        torch.save(tensors, tmp_path / f"{name}.pth")
        assert_loaded(loaded(tmp_path / f"{name}.pth")[0], {key: value.detach() for key, value in tensors.items()})


@pytest.mark.parametrize(
    "make", [lambda value: value.to_sparse(), lambda value: value.to("meta"), lambda value: quantized(value)]
)
def test_a_tensor_that_is_no_plain_array_is_named(make, state, tmp_path):
    path = tmp_path / "odd.pth"
    torch.save(state | {"classifier.bias": make(state["classifier.bias"])}, path)
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        load_checkpoint(model(), path)


def quantized(value):
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def test_a_counter_among_the_tensors_is_dropped(state):
    found, said = loaded(state | {"n_averaged": torch.tensor(3)})
    assert_loaded(found, state)
    assert said == []


def test_an_object_among_the_tensors_is_named(state, tmp_path):
    torch.save(state | {"epoch": "three"}, tmp_path / "flat.pth")
    with pytest.raises(CheckpointError, match="not a state dict: it must map names to tensors, but epoch is a str"):
        load_checkpoint(model(), tmp_path / "flat.pth")


# --- files without classifier --------------------------------------------------------------------------------------


def test_a_create_function_makes_a_fresh_head_for_a_file_without_one(state, tmp_path):
    """As timm's features alone are saved: neither the wide layer of the head nor the classifier is there."""
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


def test_load_checkpoint_says_how_to_load_a_file_without_classifier(state):
    features = {name: value for name, value in state.items() if not name.startswith("classifier")}
    with pytest.raises(
        CheckpointError, match=r"Missing \(2\): classifier\.weight.*\n.*no classifier: give it as weights="
    ):
        load_checkpoint(model(), features)
    load_checkpoint(references.build(KEY, input_shape=SHAPE, include_top=False), features)


@pytest.mark.parametrize("part", ["classifier.bias", "blocks.1.1.conv_dw.weight", "conv_head.bias"])
def test_half_a_layer_is_no_file_without_classifier(part, state):
    """What is missing then is a fault, in create functions too."""
    rest = {name: value for name, value in state.items() if name != part}
    with pytest.raises(CheckpointError, match="Missing") as caught:
        create_mobilenetv3("small", 5, SHAPE, 0.5, weights=StateDict.open(rest))
    assert part in caught.value.missing


def test_own_legacy_files_bring_padding_and_epsilon(tmp_path):
    options = {"input_shape": SHAPE, "width_multiplier": 0.35, "num_classes": 2}
    own = create_mobilenetv4("conv_small", padding="symmetric", norm_epsilon=0.02, **options)
    own.save(tmp_path / "own.h5")
    again = create_mobilenetv4("conv_small", weights=tmp_path / "own.h5", **options)
    assert (again.get_layer("stem").padding, again.get_layer("stem").norm_epsilon) == ("symmetric", 0.02)
    for value, same in zip(own.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(value, same)


@pytest.mark.parametrize("contents", [torch.tensor(1.0), 3, None, argparse.Namespace(a=1)])
def test_a_file_of_something_else_is_no_state_dict(contents, tmp_path):
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not a state dict"):
        load_checkpoint(model(), tmp_path / "other.pth")


def test_files_load_in_several_threads_at_once(state, tmp_path):
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, tmp_path / "checkpoint.pth")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(StateDict.open, [tmp_path / "checkpoint.pth"] * 12))
    assert all(each.tensors.keys() == state.keys() for each in opened)


def test_bytes_are_no_source(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    with pytest.raises(ValueError, match="type BytesIO is not allowed: give a path or a mapping"):
        load_checkpoint(model(), stream)
