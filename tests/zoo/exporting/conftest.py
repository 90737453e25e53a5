"""Fixtures of the tests of `export`."""

import pytest

from tests.zoo.exporting.shared import names_in, tiny


@pytest.fixture(scope="module")
def model():
    """Return a model of four blocks."""
    return tiny()


@pytest.fixture
def existing_file(tmp_path):
    """Return the path of an existing file, which must be unchanged after the export has failed."""
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.onnx"], "no partial file and no temporary folder is left"
