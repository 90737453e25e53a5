"""Runs the comparisons: every contender in a process of its own, all of them in turns."""

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
    """A contender's process ended; the message is the last line of what it said."""


class Process:
    """A `benchmarks.worker` under one backend."""

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
        """Return the answer to an order; see `benchmarks.worker`."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.log.seek(0)
            said = self.log.read().strip().splitlines()
            raise ContenderFailed(said[-1] if said else f"status {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def compare(backend, job):
    """Time a model's contenders against each other.

    Args:
        backend: The backend.
        job: `{"model", "mode", "precision", "batches", "training_batch", "seconds"}`; see `contenders.MODES`.

    Returns:
        `{"rows", "matrix_product_rate"}`; a row for each measure: `{"model", "backend", "mode", "precision",
        "measure", "batch", "contenders"}`.

    Raises:
        ContenderFailed: A contender's process ended.
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
            for name in names:  # all start before the first is asked anything
                if name not in processes:
                    processes[name] = Process(backend)
                    stack.callback(processes[name].close)
            memory = {}
            for name in names:
                what = [name, model.name, job["mode"], measure, batch]
                memory[name] = processes[name].ask(prepare=what, precision=job["precision"])["memory"]
            turns = {name: _turn_of(processes[name]) for name in names}
            found = timing.summary(timing.interleaved(turns, job["seconds"]), contenders.OURS, contenders.REFERENCES)
            for name in names:
                found[name]["memory"] = memory[name]
            rows.append(_row(backend, job, measure, batch, found))
        rate = processes[contenders.OURS].ask(rate=None)["rate"] if processes else None
    return {"rows": rows, "matrix_product_rate": rate}


def grow(backend, job):
    """Time our model over batch, image size or width; rows as `compare`'s, with `axis`, `value` and `macs`."""
    found, rates = [], []
    for value in job["values"]:  # a process each: the memory that one leaves would hide the next one's
        process = Process(backend)
        try:
            found += process.ask(grow=job | {"values": [value]})["rows"]
            rates.append(process.ask(rate=None)["rate"])
        finally:
            process.close()
    rows = []
    for measured in found:
        ours = timing.summary({contenders.OURS: measured["seconds"]}, contenders.OURS)
        ours[contenders.OURS]["memory"] = measured["memory"]
        row = _row(backend, job, "inference", measured["batch"], ours)
        rows.append(row | {"axis": job["axis"], "value": measured["value"], "macs": measured["macs"]})
    return {"rows": rows, "matrix_product_rate": max(rates)}


def _turn_of(process):
    return lambda: process.ask(turn=0.1)["seconds"]


def _row(backend, job, measure, batch, found):
    return {
        "model": job["model"],
        "backend": backend,
        "mode": job["mode"],
        "precision": job["precision"],
        "measure": measure,
        "batch": batch,
        "contenders": found,
    }
