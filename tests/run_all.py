"""Run the tests under each backend, then those that compare backends, and sum up in a line each.

Usage: python tests/run_all.py [--slow] [--part=NAME] [pytest's arguments]

`--part` runs one of the parts: tensorflow, jax, torch, across (which compares backends or depends on none).
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
    """Return flags with which XLA compiles in less than half the time; none where a version may refuse one of them."""
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
    """Return a run's environment, in which the workers share the machine; what the caller has set stays."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, cores // WORKERS))
    defaults = {
        "OMP_NUM_THREADS": threads,  # PyTorch and NumPy
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "NPROC": threads,  # XLA on a CPU
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # on a GPU no worker takes all of the memory
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # NVIDIA's GPUs round the factors of products in float32 to 10 bits unless told not to.
        "NVIDIA_TF32_OVERRIDE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # What one JAX process has compiled, the others need not compile again.
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Most of the tests' time under JAX is compiling. The whole run compiles as users do.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0" if slow else "1",
        "XLA_FLAGS": "" if slow else " ".join(quick_compilation_flags()),
    }
    return {**defaults, **os.environ, "KERAS_BACKEND": backend}


def count_outcomes(report):
    """Count passed, failed, skipped ... tests in pytest's JUnit report; nothing where pytest left none."""
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
    """Run pytest once; return whether all is well, and the line that says so."""
    markers += "" if slow else " and not slow"
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
    if status not in (0, 1, 5):  # neither passed, failed nor empty: interrupted, crashed, or called wrongly
        line += f" (pytest ended with status {status})"
    # Nothing passed, for instance because everything was skipped or deselected, is no success.
    return status == 0 and outcomes["passed"] > 0, line


def main(arguments):
    """Run the parts, whatever the outcome of each; return the exit status."""
    slow = "--slow" in arguments
    chosen = [argument.removeprefix("--part=") for argument in arguments if argument.startswith("--part=")]
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"--part={unknown.pop()} is not known. Allowed: {', '.join(PARTS)}.")
    arguments = [argument for argument in arguments if argument != "--slow" and not argument.startswith("--part=")]

    results = [
        run(backend, backend, "not across", arguments, slow) for backend in BACKENDS if backend in (chosen or PARTS)
    ]
    # One file stays on one worker, so that what its tests share is made once; in the files' own order, since few tests
    # may be long, and would keep one worker busy in the end.
    together = ["--dist=loadfile", "--no-loadscope-reorder"]
    if "across" in (chosen or PARTS):
        results.append(run("across backends", "torch", "across", [*together, *arguments], slow))

    print("\n" + "\n".join(line for _, line in results))
    return 0 if all(good for good, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
