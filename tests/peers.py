"""Optional libraries that the tests compare with. `make test-all` installs them."""

import pytest

from benchmarks.contenders import import_timm


def timm():
    """Return timm, or skip the test. The benchmarks' import function also works with PyTorch's CPU build."""
    pytest.importorskip("torch")
    try:
        return import_timm()
    except ImportError as error:
        pytest.skip(f"timm is not installed ({error}): pip install '.[peers]'")


def transformers():
    """Return Hugging Face's transformers, or skip the test."""
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")
