"""Metadata survives a JSON round trip, and errors about damaged metadata name the field."""

import dataclasses
import json

import numpy as np
import pytest

from mobilenet_runtime import Metadata, Preprocessing
from tests import photographs

pytestmark = pytest.mark.across

FULL = Metadata(
    name="temples",
    class_names=("flower", "tempel, östlich"),
    size=(8, 10),
    channels=3,
    layout="NCHW",
    crop=0.875,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    gives="probabilities",
    source="mobilenetv2_100.ra_in1k",
    license="apache-2.0",
)
BARE = Metadata("body", None, (32, 32), 1, "NHWC", 1, "bilinear", None, None, "features")


@pytest.mark.parametrize("metadata", [FULL, BARE], ids=["full", "bare"])
def test_json_round_trip(metadata):
    restored = Metadata.from_json(metadata.as_json())
    assert restored == metadata
    assert hash(restored) == hash(metadata), "lists are converted back to tuples"
    assert json.loads(metadata.as_json())["generator"].startswith("mobilenet-zoo 0.")


def test_transform_matches_fields():
    transform = FULL.transform()
    assert transform == Preprocessing((8, 10), 0.875, "bicubic", FULL.mean, FULL.std, 3, "channels_last")
    assert BARE.transform()(photographs.photograph()).shape == (32, 32, 1)
    assert BARE.transform()(photographs.photograph()).max() > 100


def test_lists_and_numpy_numbers_are_converted():
    converted = dataclasses.replace(
        FULL, size=[np.int64(8), 10], mean=list(np.float64(FULL.mean)), class_names=["a", "b"]
    )
    assert (converted.size, converted.mean, converted.class_names) == ((8, 10), FULL.mean, ("a", "b"))
    assert Metadata.from_json(converted.as_json()) == converted


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", ""),
        ("name", 3),
        ("class_names", "cat"),
        ("class_names", []),
        ("class_names", ["cat", 3]),
        ("size", 224),
        ("size", [224]),
        ("size", [224, 0]),
        ("size", [224.0, 224.0]),
        ("channels", 0),
        ("channels", True),
        ("layout", "NHCW"),
        ("crop", 0),
        ("crop", "0.9"),
        ("crop", float("nan")),
        ("interpolation", "cubic"),
        ("mean", [0.5]),
        ("mean", [0.5, 0.5, "0.5"]),
        ("mean", [0.5, 0.5, float("inf")]),
        ("mean", None),
        ("std", [1, 1, 0]),
        ("gives", "scores"),
        ("source", 3),
        ("license", []),
        ("generator", None),
        ("format", 0),
        ("format", "1"),
        ("color", "blue"),
    ],
)
def test_damaged_field_raises_value_error(field, value):
    record = json.loads(FULL.as_json()) | {field: value}
    with pytest.raises(ValueError, match=field):
        Metadata.from_json(json.dumps(record))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Metadata)] + ["format"])
def test_missing_field_raises_value_error(field):
    record = json.loads(FULL.as_json())
    del record[field]
    with pytest.raises(ValueError, match=field):
        Metadata.from_json(json.dumps(record))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', FULL.as_json()[:-20]])
def test_text_without_json_object_raises_value_error(text):
    with pytest.raises(ValueError, match="metadata (is not|must be)"):
        Metadata.from_json(text)


def test_newer_format_asks_for_update():
    record = json.loads(FULL.as_json()) | {"format": 2}
    with pytest.raises(ValueError, match="newer version of mobilenet-zoo: update it"):
        Metadata.from_json(json.dumps(record))
