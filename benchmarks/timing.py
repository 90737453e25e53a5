"""Comparable timings: contenders take turns, and each turn gives a ratio."""

import ctypes
import os
import statistics
import time
from pathlib import Path


def interleaved(contenders, seconds=8.0, fewest=5, most=60):
    """Let contenders take turns.

    The order is reversed in every other turn, so that no contender always follows the same one.

    Args:
        contenders: `{name: function}`. A function runs one turn and returns its seconds.
        seconds: Minimum duration of all turns together, in seconds.
        fewest: Minimum number of turns.
        most: Maximum number of turns.

    Returns:
        `{name: [seconds of each turn]}`.
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
    """Return the median seconds of a call of `program`.

    One warm-up call determines the number of timed calls: as many as take `least` seconds, and at most `most`.
    """
    start = time.perf_counter()
    program()
    calls = min(most, max(1, round(least / (time.perf_counter() - start))))
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        program()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def summary(times, reference, others=()):
    """Return the median time of each contender, and the ratio of its time to a reference's time.

    Args:
        times: Return value of `interleaved`.
        reference: Name of the contender by whose times the others are divided.
        others: `{name: reference}` for contenders with another reference.

    Returns:
        `{name: {"ms", "ratio", "low", "high", "turns"}}`. `ms` is the median time in milliseconds, `ratio` is the
        median of the turns' ratios, and `low` and `high` are the quartiles of these ratios.
    """
    rows, others = {}, dict(others)
    for name, seconds in times.items():
        base = times[others.get(name, reference)]
        ratios = [peer / ours for peer, ours in zip(seconds, base, strict=True)]
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
    """Return the peak memory of a call in MiB, minus the memory held before it; None if it can't be measured."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            program()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
    largest = 0.0
    for _ in range(_TRIES):  # A call that reuses memory of an earlier call seems to need none, so try again.
        growth = _growth(program)
        if growth is None or growth >= 1.0:
            return growth
        largest = max(largest, growth)
    return largest


_TRIES = 8


def _growth(program):
    """Return the largest growth of the process while the program runs, in MiB; None if it can't be read."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    _return_free_memory()
    try:
        reset.write_text("5")  # resets the peak on Linux
        before = _field(status, "VmRSS")
        program()
        return max(0.0, _field(status, "VmHWM") - before) / 1024
    except OSError:
        return None


def _return_free_memory():
    """Return freed memory to the system, because a later call that reuses it would seem to need none."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # The C library isn't glibc.
        pass


def _field(status, name):
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{name}:"))


def matrix_product_rate(size=2048, turns=5):
    """Return the multiply-accumulates per second of a float32 matrix product in the current backend."""
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
    """Return the number of cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
