"""One process that writes files, and a look at each before it takes its place."""

import contextlib
import dataclasses
import time
from pathlib import Path

import keras
import numpy as np

from mobilenet_common.errors import ExportError
from mobilenet_common.writing import replace_all
from mobilenet_runtime.measure import measure
from mobilenet_runtime.runtimes.base import RuntimeFailure
from mobilenet_zoo.exporting import process
from mobilenet_zoo.exporting.destination import beside, size_on_disk
from mobilenet_zoo.exporting.prepared import output_names
from mobilenet_zoo.exporting.report import ExportReport
from mobilenet_zoo.exporting.search import loses, search
from mobilenet_zoo.exporting.verification import TOLERANCES, compare, first_departure

_ROUNDINGS = 20  # how much more than a rounding of the images those of all layers may come to


def write(plan, backend, wanted, progress):
    """Yield the reports of `wanted`, `[(path, format)]`, which one process under `backend` writes."""
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(beside(path)) for path, _ in wanted]
        try:
            model_file = folders[0] / "model.keras"
            keras.Model(plan.model.input, plan.model.output, name=plan.model.name).save(model_file)  # not compiled
            calibration = None
            if plan.quantization == "int8":
                calibration = str(folders[0] / "calibration.npy")
                np.save(calibration, plan.fed(plan.images.calibration))
            session = Session(plan, backend, model_file, folders[0], calibration, progress)
            parts = [folder / path.name for folder, (path, _) in zip(folders, wanted, strict=True)]
            jobs = [plan.job(part, format, calibration) for part, (_, format) in zip(parts, wanted, strict=True)]
            written = session.run(jobs, [path for path, _ in wanted])
            shared = (time.monotonic() - start) / len(wanted)
            for part, (path, format), facts in zip(parts, wanted, written, strict=True):
                start = time.monotonic()
                report = session.checked(part, path, format, facts)
                replace_all(format.files(part), format.files(path))
                yield dataclasses.replace(report, seconds=round(shared + time.monotonic() - start, 2))
        except OSError as error:
            names = ", ".join(str(path) for path, _ in wanted)
            raise ExportError(
                f"{names} can't be written: {error.strerror or error}. What was there is there still."
            ) from error


class Session:
    """A model that was saved for one process that writes, and the orders of that process."""

    def __init__(self, plan, backend, model_file, folder, calibration, progress):
        self.plan = plan
        self.progress = progress
        self.backend = backend
        self.model_file = model_file
        self.folder = folder
        self.calibration = calibration

    def run(self, jobs, paths=()):
        """Run jobs in the other process; return the result of each.

        Args:
            jobs: `Job`s.
            paths: What each job is for, where its steps are to be reported.
        """
        options = {}
        if paths and self.plan.progress is not None:
            options["progress"] = lambda number, text: self.progress.step(paths[number], text)
        return process.run(self.backend, self.model_file, self.plan.modules, jobs, self.folder, **options)

    def checked(self, part, path, format, facts):
        """Return the report of the file `part`, which becomes `path`, after comparing its outputs where asked to.

        Raises:
            ExportError: They are not the model's.
        """
        plan = self.plan
        report = ExportReport(
            path=str(path),
            format=format.name,
            input_shape=_file_shape(plan, facts.layout),
            layout=facts.layout,
            quantization=plan.quantization,
            float_blocks=tuple(plan.float_blocks or ()),
            bytes=size_on_disk(format.files(part)),
            float_bytes=facts.float_bytes,
            notes=_notes(plan, format),
        )
        if plan.verify is False:
            return report
        self.progress.step(path, "compare with the model")
        try:
            comparison, report = self.compared(part, report)
        except RuntimeFailure as error:
            rejected = _set_aside(part, path, format)
            raise ExportError(
                f"{path} was not written: {error} The file is kept as {rejected}.", rejected=rejected
            ) from error
        if plan.quantization == "int8" and plan.float_blocks is None and loses(comparison):
            comparison, report = search(self, part, format, facts, comparison, report)
        allowed = None if plan.verify is True else float(plan.verify)
        if comparison.is_right(plan.quantization, allowed):
            return report
        if allowed is None and plan.quantization is None and comparison.is_right(None, _ROUNDINGS * plan.sensitivity):
            note = (
                "this model enlarges rounding errors: a change of its images by 1e-6 changes its output by "
                f"{plan.sensitivity:.0e} of the largest"
            )
            return dataclasses.replace(report, notes=(*report.notes, note))
        self._reject(part, path, format, report)

    def compared(self, part, report):
        """Return the `Comparison` of a file's outputs with the model's, and the report with what it shows."""
        plan = self.plan
        record, found = measure(part, plan.fed(plan.images.checked))
        found = _in_order(found, plan.model)
        comparison = compare(found, plan.expected, plan.images.labels)
        return comparison, dataclasses.replace(
            report,
            runtime=record["runtime"],
            deviation=comparison.deviation,
            agreement=comparison.agreement,
            images=len(plan.images.checked),
            accuracy=comparison.accuracy,
            float_accuracy=comparison.expected_accuracy,
            latency_ms=record["latency_ms"],
            operations=record["operations"],
            placement=record["placement"],
        )

    def _reject(self, part, path, format, report):
        """Keep a wrong file aside and says where it deviates from the model."""
        block, where = None, ""
        if self.plan.quantization in TOLERANCES:  # 8 bits deviate a little in every layer
            try:
                block, where = self._departure(part, format)
            except (ExportError, RuntimeFailure) as error:
                where = f" Where it begins to could not be found out: {error}"
        rejected = _set_aside(part, path, format)
        raise ExportError(
            f"{path} was not written: the output of {report.runtime} deviates from the model by "
            f"{report.deviation:.1e} of the largest output.{where} The file is kept as {rejected}.",
            rejected=rejected,
            block=block,
            report=report,
        )

    def _departure(self, part, format):
        """Return the first block whose output is not the model's, and a sentence about it."""
        plan = self.plan
        probe = part.with_name(f"blocks_{part.name}")
        self.run([plan.job(probe, format, None, blocks=True, metadata=None)])
        images = plan.images.checked[: plan.batch_size or 1]
        _, found = measure(probe, plan.fed(images), runs=1)
        allowed = TOLERANCES[plan.quantization] if plan.verify is True else float(plan.verify)
        departure = first_departure(found, plan.reference.block_outputs(images), allowed)
        if departure is None:
            return None, " No block alone deviates by more than is allowed."
        return departure[0], f" The first layer that deviates is {departure[0]}, by {departure[1]:.1e}."


def _in_order(found, model):
    """Return the outputs of a file in the order of the model's outputs; a file may have another."""
    names = output_names(model)
    if isinstance(model.output, dict):
        names = keras.tree.flatten({name: name for name in names})
    return [found[name] for name in names] if found.keys() == set(names) else list(found.values())


def _set_aside(part, path, format):
    """Keep a file that is not to become `path` beside it; return where."""
    rejected = [Path(f"{name}.rejected") for name in format.files(path)]
    replace_all(format.files(part), rejected)
    return str(rejected[0])


def _file_shape(plan, layout):
    height, width = plan.size
    channels = plan.transform.channels
    image = (height, width, channels) if layout == "NHWC" else (channels, height, width)
    return (plan.batch_size, *image)


def _notes(plan, format):
    notes = []
    if plan.quantization == "dynamic":
        notes.append(
            "weights in int8 save space, not time: they are turned into float, or inputs into int8, in each call"
        )
    if plan.quantization == "float16":
        notes.append("weights are stored in float16 and computed with in float32, unless a GPU takes them as they are")
    if plan.quantization == "int8" and format.reduces_range and not plan.reduce_range and processor_overflows():
        notes.append(
            "this machine's processor has no VNNI, and sums of 8-bit products can overflow on it, as they can't on ARM "
            "and newer x86 processors; for machines such as this one pass reduce_range=True (--reduce-range)"
        )
    if plan.quantization is not None and format.name == "openvino" and plan.verify is not False:
        notes.append("compared in float32 where the processor would choose bfloat16")
    return tuple(notes)


def processor_overflows(file="/proc/cpuinfo"):
    """Return whether this machine's processor adds 8-bit products in 16 bits; False where the system doesn't tell."""
    try:
        flags = next(line for line in Path(file).read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return False
    return not {"avx_vnni", "avx512_vnni"} & set(flags)
