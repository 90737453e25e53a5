"""Distributions of initial parameters: uniform or normal, and the standard deviation."""

import numpy as np

# Mean fourth power of a standardized value.
KURTOSIS = {"uniform": 1.8, "normal": 3.0}


def parameters(module):
    """Return the trainable parameters of a PyTorch module as `{name: array}`."""
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def fit_distribution(arrays):
    """Return `[kind, number]` for arrays drawn from the same distribution.

    This is `"constant"` and the value, or `"uniform"` or `"normal"` and the standard deviation.
    """
    values = np.concatenate([np.ravel(array) for array in arrays]).astype("float64")
    if values.min() == values.max():
        return ["constant", float(values[0])]
    deviation = np.sqrt(np.square(values).mean())
    assert abs(values.mean()) < 6 * deviation / np.sqrt(values.size), "the mean is not 0"
    kurtosis = np.mean((values / deviation) ** 4)
    kind = min(KURTOSIS, key=lambda name: abs(KURTOSIS[name] - kurtosis))
    error = np.sqrt(96 / values.size)  # of a normal distribution's kurtosis; a uniform distribution's is smaller
    assert abs(KURTOSIS[kind] - kurtosis) < 6 * error, f"neither uniform nor normal: kurtosis {kurtosis}"
    return [kind, float(f"{deviation:.4g}")]


class Pool:
    """Values of one kind of kernel, each kernel divided by its expected standard deviation."""

    def __init__(self):
        self.kinds, self.arrays = set(), []

    def add(self, kind, deviation, array):
        """Add a kernel's values."""
        self.kinds.add(kind)
        self.arrays.append(np.ravel(array) / deviation)

    def check(self, name):
        """Assert that all values together have the expected distribution."""
        assert len(self.kinds) == 1, f"{name}: {self.kinds}"
        (kind,) = self.kinds
        values = np.concatenate(self.arrays).astype("float64")
        limit = 6 / np.sqrt(values.size)
        deviation = values.std()
        assert abs(values.mean()) < limit, f"{name}: the mean is {values.mean():.3g} standard deviations"
        # The expected standard deviations have four digits and were measured on ten draws.
        spread = np.sqrt((KURTOSIS[kind] - 1) / 4)
        tolerance = 1.05 * limit * spread + 1e-3
        assert abs(deviation - 1) < tolerance, f"{name}: {deviation:.3g} times the expected standard deviation"
        kurtosis = np.mean((values / deviation) ** 4)
        assert abs(kurtosis - KURTOSIS[kind]) < limit * np.sqrt(96) + 0.02, f"{name}: {kind}, kurtosis {kurtosis:.3g}"
        if kind == "uniform":
            assert np.abs(values).max() < 1.02 * np.sqrt(3), f"{name}: values outside the uniform distribution"
