"""What the tests of `export` share."""

import pytest

from tests.zoo.exporting.shared import left, tiny


@pytest.fixture(scope="module")
def model():
    """A model of four blocks."""
    return tiny()


@pytest.fixture
def old(tmp_path):
    """A file that is there already, and which stays if the export fails."""
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert left(tmp_path) == ["a.onnx"], "nothing half-written, and no folder of the export"
