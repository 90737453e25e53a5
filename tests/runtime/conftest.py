"""What the tests of exported files share."""

import pytest

from tests.runtime import tiny


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A function that gives the path of a tiny file, written when first asked for: `written(kind, **options)`."""
    made = {}

    def give(kind, **options):
        key = (kind, *sorted(options.items()))
        if key not in made:
            made[key] = tiny.write(kind, tmp_path_factory.mktemp(kind), **options)
        return made[key]

    return give
