"""Comparisons of contenders that run in separate processes and take turns."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import contenders, timing

ROOT = Path(__file__).resolve().parents[1]


class ContenderFailed(RuntimeError):
    """Raised if a contender's process ends unexpectedly. The message is the last line of its error output."""


class Process:
    """Child process that runs `benchmarks.worker` under one backend."""

    def __init__(self, backend):
        self.log = tempfile.TemporaryFile("w+")
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": backend}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def ask(self, **order):
        """Send an order to the worker and return its response; see `benchmarks.worker`."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        response = self.process.stdout.readline()
        if not response:
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise ContenderFailed(lines[-1] if lines else f"status {self.process.wait()}")
        return json.loads(response)

    def close(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def compare(backend, job):
    """Time a model's contenders against each other.

    Args:
        backend: Name of the backend.
        job: Dictionary with the keys `model`, `mode`, `precision`, `batches`, `training_batch` and `seconds`. For the
            modes, see `contenders.MODES`.

    Returns:
        A dictionary with the keys `rows` and `matrix_product_rate`. Each measure has a row with the keys `model`,
        `backend`, `mode`, `precision`, `measure`, `batch` and `contenders`.

    Raises:
        ContenderFailed: If a contender's process ends unexpectedly.
    """
    model = contenders.find(job["model"])
    measures = [("inference", size) for size in job["batches"]]
    measures += [("training", job["training_batch"])] if job["training_batch"] else []
    rows, processes = [], {}
    with contextlib.ExitStack() as stack:
        for measure, batch in measures:
            names = contenders.names(model, backend, job["mode"], measure)
            if not names:
                continue
            for name in names:  # Start all processes before the first order.
                if name not in processes:
                    processes[name] = Process(backend)
                    stack.callback(processes[name].close)
            memory = {}
            for name in names:
                contender_args = [name, model.name, job["mode"], measure, batch]
                memory[name] = processes[name].ask(prepare=contender_args, precision=job["precision"])["memory"]
            turns = {name: _turn_of(processes[name]) for name in names}
            summary = timing.summary(timing.interleaved(turns, job["seconds"]), contenders.OURS, contenders.REFERENCES)
            for name in names:
                summary[name]["memory"] = memory[name]
            rows.append(_row(backend, job, measure, batch, summary))
        rate = processes[contenders.OURS].ask(rate=None)["rate"] if processes else None
    return {"rows": rows, "matrix_product_rate": rate}


def grow(backend, job):
    """Time our model over batch sizes, image sizes or widths.

    Returns:
        The same as `compare`, with the additional keys `axis`, `value` and `macs` in each row.
    """
    measurements, rates = [], []
    for value in job["values"]:  # Memory that a shared process still holds would hide what the next value needs.
        process = Process(backend)
        try:
            measurements += process.ask(grow=job | {"values": [value]})["rows"]
            rates.append(process.ask(rate=None)["rate"])
        finally:
            process.close()
    rows = []
    for measured in measurements:
        ours = timing.summary({contenders.OURS: measured["seconds"]}, contenders.OURS)
        ours[contenders.OURS]["memory"] = measured["memory"]
        row = _row(backend, job, "inference", measured["batch"], ours)
        rows.append(row | {"axis": job["axis"], "value": measured["value"], "macs": measured["macs"]})
    return {"rows": rows, "matrix_product_rate": max(rates)}


def _turn_of(process):
    return lambda: process.ask(turn=0.1)["seconds"]


def _row(backend, job, measure, batch, contender_results):
    return {
        "model": job["model"],
        "backend": backend,
        "mode": job["mode"],
        "precision": job["precision"],
        "measure": measure,
        "batch": batch,
        "contenders": contender_results,
    }
