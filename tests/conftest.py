"""Configuration and fixtures of all tests: a fixed seed for each test, and a clean Keras session after it."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.deviations import Deviations, tables

# Keras is imported inside the functions, because the controlling process of pytest-xdist needs no backend.

settings.register_profile(
    "suite", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)  # Before `-m` selects the tests.
def pytest_collection_modifyitems(items):
    """Mark neutral tests as slow, except under PyTorch, which starts and compiles fastest."""
    if os.environ.get("KERAS_BACKEND") == "torch":
        return
    for item in items:
        if item.get_closest_marker("neutral"):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
    """Exclude the frameworks' objects from garbage collection, which otherwise takes up to 0.5 s after each test."""
    if not session.items:
        return
    import keras

    keras.utils.set_random_seed(0)  # The first call of this function and the next loads parts of the frameworks.
    keras.utils.clear_session()
    gc.freeze()


@pytest.fixture(scope="session")
def backend():
    """Return the name of the backend that runs the tests: "tensorflow", "jax" or "torch"."""
    import keras

    return keras.backend.backend()


@pytest.fixture
def deviation(request, record_property):
    """Return `Deviations` for a table, titled with the first line of the module's docstring."""
    return Deviations(request.module.__doc__.partition("\n")[0], record_property)


def pytest_terminal_summary(terminalreporter, config):
    """Print the tables of deviations if the slow tests ran."""
    if "not slow" in config.option.markexpr:
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = list(tables(reports))
    if lines:
        terminalreporter.section("deviations, as fractions of each output's largest value")
    for line in lines:
        terminalreporter.line(line)


@pytest.fixture(scope="module", autouse=True)
def frozen_modules():
    """Exclude all that earlier modules imported from the garbage collection after each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_session():
    """Seed every generator before a test, and clear Keras's global state, including the models, after it."""
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Start a hub server, and use it with an empty cache as the hub of this process."""
    import huggingface_hub.constants as constants

    from tests import hub_server

    with hub_server.running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # The server lacks this protocol.
        yield server


@pytest.fixture
def quick_retries(monkeypatch):
    """Let the hub's client retry at once; otherwise it waits up to half a minute."""
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda _: None)
