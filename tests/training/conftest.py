"""What every test of training gets."""

import pytest


@pytest.fixture(autouse=True)
def ended():
    """No process that a test has started outlives it."""
    from tests.training.processes import end_all  # here: under pytest-xdist the controlling process needs no backend

    yield
    end_all()
