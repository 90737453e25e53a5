"""What every test gets: a fixed seed, and a clean Keras session after it."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.deviations import Deviations, tables

# Keras is imported inside the functions: under pytest-xdist the controlling process needs no backend.

settings.register_profile(
    "suite", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    """Leave neutral tests to the run under PyTorch, which starts and compiles fastest, unless slow ones run too."""
    if os.environ.get("KERAS_BACKEND") == "torch":
        return
    for item in items:
        if item.get_closest_marker("neutral"):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
    """Freeze the frameworks' objects: with them the garbage collection after each test takes up to 0.5 s."""
    if not session.items:
        return
    import keras

    keras.utils.set_random_seed(0)  # this and the next load parts of the frameworks when first called
    keras.utils.clear_session()
    gc.freeze()


@pytest.fixture(scope="session")
def backend():
    """Name of the backend that runs the tests: "tensorflow", "jax" or "torch"."""
    import keras

    return keras.backend.backend()


@pytest.fixture
def deviation(request, record_property):
    """Compares numbers with others', for a table named by the first line of the test's module."""
    return Deviations(request.module.__doc__.partition("\n")[0], record_property)


def pytest_terminal_summary(terminalreporter, config):
    """Show the tables of deviations where everything ran."""
    if "not slow" in config.option.markexpr:
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = list(tables(reports))
    if lines:
        terminalreporter.section("deviations, as fractions of each output's largest value")
    for line in lines:
        terminalreporter.line(line)


@pytest.fixture(autouse=True)
def fresh_session():
    """Seed every generator before a test; drop Keras's global state, and with it the models, after it."""
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub, which the hub's client in this process asks, with an empty cache."""
    import huggingface_hub.constants as constants

    from tests import hub_server

    with hub_server.running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, which the server lacks
        yield server


@pytest.fixture
def quick_retries(monkeypatch):
    """The hub's client waits up to half a minute between its tries; here it doesn't."""
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda _: None)
