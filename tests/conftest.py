"""What every test gets: a fixed seed, and a clean Keras session after it."""

import gc

import pytest
from hypothesis import HealthCheck, settings

# Keras is imported inside the functions: under pytest-xdist the controlling process needs no backend.

settings.register_profile(
    "suite", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


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


@pytest.fixture(autouse=True)
def fresh_session():
    """Seed every generator before a test; drop Keras's global state, and with it the models, after it."""
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()
