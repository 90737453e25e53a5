"""How a parameter starts: the kind of its distribution and its standard deviation."""

import numpy as np

# The mean fourth power of a standardized number.
KURTOSIS = {"uniform": 1.8, "normal": 3.0}


def parameters(module):
    """`{name: array}` of the trainable parameters of a PyTorch module."""
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def described(arrays):
    """`[kind, number]` of arrays that were drawn alike: `"constant"` and the value, or a kind and the deviation."""
    values = np.concatenate([np.ravel(array) for array in arrays]).astype("float64")
    if values.min() == values.max():
        return ["constant", float(values[0])]
    deviation = np.sqrt(np.square(values).mean())
    assert abs(values.mean()) < 6 * deviation / np.sqrt(values.size), "not drawn around 0"
    kurtosis = np.mean((values / deviation) ** 4)
    kind = min(KURTOSIS, key=lambda name: abs(KURTOSIS[name] - kurtosis))
    error = np.sqrt(96 / values.size)  # of a normal distribution's; that of a uniform one is less
    assert abs(KURTOSIS[kind] - kurtosis) < 6 * error, f"neither uniform nor normal: kurtosis {kurtosis}"
    return [kind, float(f"{deviation:.4g}")]


class Pool:
    """Numbers of one kind of kernel, each divided by the standard deviation that is expected of it."""

    def __init__(self):
        self.kinds, self.arrays = set(), []

    def add(self, kind, deviation, array):
        """Take a kernel's numbers."""
        self.kinds.add(kind)
        self.arrays.append(np.ravel(array) / deviation)

    def check(self, name):
        """Assert that all numbers together are distributed as expected."""
        assert len(self.kinds) == 1, f"{name}: {self.kinds}"
        (kind,) = self.kinds
        values = np.concatenate(self.arrays).astype("float64")
        limit = 6 / np.sqrt(values.size)
        deviation = values.std()
        assert abs(values.mean()) < limit, f"{name}: mean {values.mean():.3g} of the deviation"
        # The table's own numbers have four digits, from ten draws.
        spread = np.sqrt((KURTOSIS[kind] - 1) / 4)
        assert abs(deviation - 1) < 1.05 * limit * spread + 1e-3, f"{name}: {deviation:.3g} of the expected deviation"
        kurtosis = np.mean((values / deviation) ** 4)
        assert abs(kurtosis - KURTOSIS[kind]) < limit * np.sqrt(96) + 0.02, f"{name}: {kind}, kurtosis {kurtosis:.3g}"
        if kind == "uniform":
            assert np.abs(values).max() < 1.02 * np.sqrt(3), f"{name}: beyond the bounds of a uniform distribution"
