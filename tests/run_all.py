"""Run the tests under each backend and those that compare backends, and print a summary.

Usage: python tests/run_all.py [--slow] [--part=NAME] [arguments of pytest]

`--part` runs one of the parts: tensorflow, jax, torch, or across (tests that compare backends or depend on none).
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")
PARTS = (*BACKENDS, "across")
WORKERS = 2


def quick_compilation_flags():
    """Return flags that halve XLA's compile time, or none if an installed version may not know all of them."""
    for name, first in (("jaxlib", (0, 8)), ("tensorflow-cpu", (2, 21))):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            return []
        if tuple(map(int, installed.split(".")[:2])) < first:
            return []
    return [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false",
    ]


def environment(backend, slow):
    """Return the environment of a run whose workers share the cores; variables that are already set are kept."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, cores // WORKERS))
    defaults = {
        "OMP_NUM_THREADS": threads,  # PyTorch and NumPy
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "NPROC": threads,  # XLA on a CPU
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # so that no worker takes all of a GPU's memory
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # By default, NVIDIA's GPUs round the factors of float32 products to 10 bits.
        "NVIDIA_TF32_OVERRIDE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # JAX's processes share their compiled programs.
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Compiling takes most of the time under JAX. With the slow tests, compile as users do.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0" if slow else "1",
        "XLA_FLAGS": "" if slow else " ".join(quick_compilation_flags()),
    }
    return {**defaults, **os.environ, "KERAS_BACKEND": backend}


def count_outcomes(report):
    """Count the outcomes in pytest's JUnit report; a missing report has none."""
    if not report.exists():
        return Counter()
    outcomes = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        if tags & {"failure", "error"}:
            outcomes["failed"] += 1
        elif "skipped" in tags:
            outcomes["skipped"] += 1
        else:
            outcomes["passed"] += 1
    return outcomes


def run(title, backend, markers, arguments, slow):
    """Run pytest once; return whether all tests passed, and a summary line."""
    markers = " and ".join(filter(None, [markers, "" if slow else "not slow"]))
    print(f"\n=== {title}: pytest -m '{markers}' ===", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", markers, "-n", str(WORKERS), f"--junitxml={report}"]
        status = subprocess.run([*command, *arguments], cwd=ROOT, env=environment(backend, slow)).returncode
        outcomes = count_outcomes(report)
    seconds = time.monotonic() - start

    counts = [f"{outcomes[name]} {name}" for name in ("failed", "passed", "skipped") if outcomes[name]]
    line = f"{title}: {', '.join(counts) or 'no test ran'} in {seconds:.0f} s"
    if status not in (0, 1, 5):  # Not passed, failed or empty, but interrupted, crashed or called incorrectly.
        line += f" (pytest exited with status {status})"
    # A run in which every test was skipped or deselected is not a success.
    return status == 0 and outcomes["passed"] > 0, line


def main(arguments):
    """Run all parts, even if one fails, and return the exit status."""
    slow = "--slow" in arguments
    chosen = [argument.removeprefix("--part=") for argument in arguments if argument.startswith("--part=")]
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"--part={unknown.pop()} is unknown. Allowed: {', '.join(PARTS)}.")
    arguments = [argument for argument in arguments if argument != "--slow" and not argument.startswith("--part=")]

    # The tests of a file run on one worker, so that it creates their shared fixtures once. The files run in their own
    # order, because xdist's order, by number of tests, can leave a file with few long tests for the end.
    by_file = ["--dist=loadfile", "--no-loadscope-reorder"]
    parts = {backend: (backend, backend, "not across", arguments) for backend in BACKENDS}
    parts["across"] = ("across backends", "torch", "across", [*by_file, *arguments])
    results = [run(*part, slow) for name, part in parts.items() if not chosen or name in chosen]

    print("\n" + "\n".join(line for _, line in results))
    return 0 if all(good for good, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
