"""Fixtures of the training tests."""

import pytest


@pytest.fixture(autouse=True)
def end_processes():
    """End the processes that a failed test left running."""
    from tests.training.processes import end_all  # imported here: pytest-xdist's controlling process needs no backend

    yield
    end_all()
