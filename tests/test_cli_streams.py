"""Commands handle non-UTF-8 file names, Unicode class names, limited console encodings and closed pipes."""

import base64
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet_cli.output import as_json
from mobilenet_common.errors import printable
from mobilenet_runtime import Metadata, embed
from tests.runtime import tiny

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from mobilenet_cli import main; main()"]
CONSOLES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}
ODD = os.fsdecode(b"caf\xe9")  # "café" in Latin-1
CLASSES = ("犬", "naïve", "[cat]", "dog", "owl")


def environment(**settings):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"} | settings


def run(*arguments, folder, **settings):
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment(**settings), capture_output=True)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), "uint8")).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier with non-ASCII class names, and images whose names are not valid UTF-8."""
    folder = tmp_path_factory.mktemp("odd")
    model = tiny.write("onnx", folder, outputs=("logits",))
    mean = (0.5, 0.5, 0.5)
    embed(model, Metadata("tiny", CLASSES, (8, 8), 3, "NCHW", 1.0, "bilinear", mean, mean, "logits"))
    try:
        save(folder / "photos" / "dog" / f"{ODD}.png")
    except OSError:
        pytest.skip("the file system requires valid Unicode names")
    save(folder / "photos" / "dog" / "plain.png", 1)
    (folder / "photos" / "owl" / f"{ODD}.png").parent.mkdir()
    save(folder / "photos" / "owl" / f"{ODD}.png", 2)
    return folder


def test_json_is_unicode_and_keeps_raw_bytes():
    record = {ODD: [ODD, "犬"], "file": ODD, "other": "\ud800", "plain": "naïve", "pair": (1, None)}
    decoded = json.loads(as_json(record, sys.stdout).encode("utf-8"))
    assert decoded == {
        r"caf\xe9": [r"caf\xe9", "犬"],
        "file": r"caf\xe9",
        "file_base64": base64.b64encode(b"caf\xe9").decode(),
        "other": r"\ud800",
        "other_base64": base64.b64encode(b"\xed\xa0\x80").decode(),
        "plain": "naïve",
        "pair": [1, None],
    }


@pytest.mark.parametrize(
    ("form", "console"),
    [("table", "ascii"), ("table", "utf-8"), ("csv", "cp1252"), ("jsonl", "C"), ("jsonl", "cp1252")],
)
def test_predict_in_console_encodings(form, console, folder):
    result = run("predict", "photos", "-m", "model.onnx", "--format", form, folder=folder, **CONSOLES[console])
    assert result.returncode == 0, result.stderr
    output = result.stdout.decode({"C": "ascii"}.get(console, console))
    if form == "jsonl":
        records = [json.loads(line) for line in output.splitlines()]
        assert [record["image"] for record in records][:2] == [r"photos/dog/caf\xe9.png", "photos/dog/plain.png"]
        encoded = [record.get("image_base64") for record in records]
        paths = [
            record["image"].encode() if text is None else base64.b64decode(text)
            for record, text in zip(records, encoded, strict=True)
        ]
        assert encoded[1] is None and b"\\ud" not in result.stdout.replace(b"\\u72ac", b"")
        assert paths == [b"photos/dog/caf\xe9.png", b"photos/dog/plain.png", b"photos/owl/caf\xe9.png"]
        assert {record["name"] for record in records[0]["predictions"]} == set(CLASSES)
    else:
        assert output.count(r"caf\xe9.png") == (2 if form == "table" else 10)
        assert output.count("犬" if console == "utf-8" else r"\u72ac") == 3
        assert output.count("naïve" if console in ("utf-8", "cp1252") else r"na\xefve") == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_predictions_file_is_utf_8(ending, folder, tmp_path):
    out = tmp_path / f"predictions.{ending}"
    arguments = ("predict", "photos", "-m", "model.onnx", "--format", ending, "-o", str(out))
    result = run(*arguments, folder=folder, **CONSOLES["C"])
    assert result.returncode == 0, result.stderr
    text = out.read_text(encoding="utf-8")
    assert "犬" in text
    if ending == "csv":
        assert list(csv.reader(text.splitlines()))[1][0] == r"photos/dog/caf\xe9.png"


def test_evaluate_writes_report_and_predictions(folder, tmp_path):
    from mobilenet_runtime.evaluation.predictions import read_predictions

    outputs = ("-o", str(tmp_path / "report.html"), "--predictions", str(tmp_path / "predictions.npz"))
    result = run("evaluate", "model.onnx", "photos", "--json", *outputs, folder=folder, **CONSOLES["ascii"])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 3
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "犬" in report
    assert r"caf\xe9.png" in report, "the image is listed among the mistakes"
    names = [f"photos/owl/{ODD}.png", "photos/dog/plain.png"]
    assert read_predictions(tmp_path / "predictions.npz", names).shape == (2, 5)


def test_unreadable_image_is_named(folder, tmp_path):
    (tmp_path / f"{ODD}.png").write_bytes(b"no image")
    save(tmp_path / "good.png")
    model = str(folder / "model.onnx")
    result = run("predict", ".", "-m", model, "--json", folder=tmp_path, PYTHONIOENCODING="utf-8")
    assert result.returncode == 1
    assert rb"skipped: caf\xe9.png" in result.stderr
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("lines", [0, 1])
def test_closed_pipe_ends_command_silently(lines, folder):
    paths = ["photos/dog/plain.png", *(f"./{'./' * i}photos/dog/plain.png" for i in range(150))]
    command = [*COMMAND, "predict", *paths, "-m", "model.onnx", "--json", "--top", "5"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for _ in range(lines):
            json.loads(process.stdout.readline())
        process.stdout.close()
        errors = process.stderr.read()
    assert errors.strip() == b""
    assert process.returncode == 1


def test_small_output_to_closed_pipe(folder):
    """A small output is flushed at exit, where Python itself would report the closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [*COMMAND, "--version"], env=environment(), stdout=writing, stderr=subprocess.PIPE, cwd=folder
    )
    os.close(writing)
    assert result.stderr == b""
    assert result.returncode == 1


def test_printable():
    assert printable("plain") == "plain"
    assert printable("naïve 犬") == "naïve 犬"
    assert printable(Path(os.fsdecode(b"caf\xe9/\xff.png"))) == r"caf\xe9/\xff.png"
    assert printable("a\ud800b") == r"a\ud800b"
    assert printable("naïve\udcc3\udca9") == "naïveé", "UTF-8 bytes that an ASCII locale decoded as surrogates"


@pytest.mark.slow
def test_class_name_that_is_not_valid_utf_8(tmp_path):
    for label in (ODD, "dog"):
        for i in range(4):
            save(tmp_path / "photos" / label / f"{ODD}{i}.png", i + 10 * len(label))
    settings = ("--set", "epochs=2", "--set", "batch_size=2", "--set", "image_size=32")
    data = ("photos", "--weights", "none", "-m", "mobilenetv1_025", "-o", "run", *settings)
    result = run("train", *data, folder=tmp_path, **CONSOLES["ascii"])
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run" / "model" / "mobilenet.json").read_text(encoding="utf-8"))
    assert record["class_names"] == [r"caf\xe9", "dog"]
    assert r"caf\xe9" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert r"caf\xe9" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    features = run("features", "photos", "-m", "run/model", "-o", "f.npz", folder=tmp_path, **CONSOLES["C"])
    assert features.returncode == 0, features.stderr
    with np.load(tmp_path / "f.npz") as arrays:
        assert os.fsencode(str(arrays["paths"][0])) == b"photos/caf\xe9/caf\xe90.png"
    heat_maps = run("explain", "photos", "-m", "run/model", "-o", "heat", folder=tmp_path, **CONSOLES["ascii"])
    assert heat_maps.returncode == 0, heat_maps.stderr
    assert len(list((tmp_path / "heat").iterdir())) == 8
