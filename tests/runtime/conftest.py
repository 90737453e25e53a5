"""Fixtures for the tests of exported files."""

import pytest

from tests.runtime import tiny


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    """Return a function that writes a tiny file once and returns its path: `tiny_file(kind, **options)`."""
    paths = {}

    def get(kind, **options):
        key = (kind, *sorted(options.items()))
        if key not in paths:
            paths[key] = tiny.write(kind, tmp_path_factory.mktemp(kind), **options)
        return paths[key]

    return get
