"""Times that can be compared: contenders take turns, and each turn gives a ratio."""

import ctypes
import os
import statistics
import time
from pathlib import Path


def interleaved(contenders, seconds=8.0, fewest=5, most=60):
    """Let `{name: function}` take turns; return `{name: [seconds of each turn]}`.

    A function times its own turn and returns it. The order is reversed every other turn, so that no contender always
    follows the same one.
    """
    times = {name: [] for name in contenders}
    deadline = time.perf_counter() + seconds
    for turn in range(most):
        names = list(contenders) if turn % 2 == 0 else list(reversed(contenders))
        for name in names:
            times[name].append(contenders[name]())
        if turn + 1 >= fewest and time.perf_counter() > deadline:
            break
    return times


def turn(program, least=0.1, most=10):
    """Return seconds of a call of `program`: the median of as many as take `least` seconds, after one that warms up."""
    start = time.perf_counter()
    program()
    calls = min(most, max(1, round(least / (time.perf_counter() - start))))
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        program()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def summary(times, reference, others=()):
    """Return for each contender: median milliseconds, and how many times as long as `reference` it took.

    Args:
        times: What `interleaved` returns.
        reference: The contender that the ratios are taken to.
        others: `{name: reference}` of contenders that have another one.

    Returns:
        `{name: {"ms", "ratio", "low", "high", "turns"}}`; `low` and `high` are the quartiles of the turns' ratios.
    """
    rows, others = {}, dict(others)
    for name, seconds in times.items():
        base = times[others.get(name, reference)]
        ratios = [own / ours for own, ours in zip(seconds, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows[name] = {
            "ms": 1e3 * statistics.median(seconds),
            "ratio": middle,
            "low": low,
            "high": high,
            "turns": len(seconds),
        }
    return rows


def peak_memory(program):
    """Return the MiB that a call takes at its peak beyond what the process holds before it; None if unreadable."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            program()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
    found = 0.0
    for _ in range(_TRIES):  # a call that uses again what an earlier one left seems to need nothing
        grown = _growth(program)
        if grown is None or grown >= 1.0:
            return grown
        found = max(found, grown)
    return found


_TRIES = 8


def _growth(program):
    """Return by how many MiB the process grows at most while the program runs; None where that can't be read."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    _return_free_memory()
    try:
        reset.write_text("5")  # Linux: forget the peak so far
        before = _field(status, "VmRSS")
        program()
        return max(0.0, _field(status, "VmHWM") - before) / 1024
    except OSError:
        return None


def _return_free_memory():
    """Give back to the system what earlier calls have freed, or a later one would seem to need none."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        pass


def _field(status, name):
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{name}:"))


def matrix_product_rate(size=2048, turns=5):
    """Return multiply-accumulates a second of a float32 matrix product in the backend that runs."""
    import numpy as np
    from keras import ops

    a = ops.convert_to_tensor(np.random.default_rng(0).standard_normal((size, size), dtype="float32"))
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        ops.convert_to_numpy(ops.matmul(a, a)[:1, :1])
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def cores():
    """Return cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
