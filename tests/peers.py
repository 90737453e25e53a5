"""Libraries that the tests compare with where they are installed, as `make test-all` installs them."""

import pytest

from benchmarks.contenders import import_timm


def timm():
    """timm, or a skipped test. It is imported with the aid that the benchmarks have for PyTorch's CPU build."""
    pytest.importorskip("torch")
    try:
        return import_timm()
    except ImportError as error:
        pytest.skip(f"timm is not installed ({error}): pip install '.[peers]'")


def transformers():
    """Hugging Face's transformers, or a skipped test."""
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")
