"""Write files in one child process, and verify each file before it is moved to its path."""

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
from mobilenet_zoo.exporting.destination import folder_next_to, size_on_disk
from mobilenet_zoo.exporting.prepared import output_names
from mobilenet_zoo.exporting.report import ExportReport
from mobilenet_zoo.exporting.search import loses, search
from mobilenet_zoo.exporting.verification import TOLERANCES, compare, first_deviation

_MAX_RATIO = 20  # largest allowed ratio of the file's deviation to `Plan.sensitivity`


def write(plan, backend, targets, progress):
    """Write files in one process under `backend`, and yield their reports; `targets` is a list of `(path, format)`."""
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(folder_next_to(path)) for path, _ in targets]
        try:
            model_file = folders[0] / "model.keras"
            # Save an uncompiled model: the export doesn't need the optimizer.
            keras.Model(plan.model.input, plan.model.output, name=plan.model.name).save(model_file)
            calibration = None
            if plan.quantization == "int8":
                calibration = str(folders[0] / "calibration.npy")
                np.save(calibration, plan.to_file_input(plan.images.calibration))
            session = Session(plan, backend, model_file, folders[0], calibration, progress)
            parts = [folder / path.name for folder, (path, _) in zip(folders, targets, strict=True)]
            jobs = [plan.job(part, format, calibration) for part, (_, format) in zip(parts, targets, strict=True)]
            results = session.run(jobs, [path for path, _ in targets])
            shared = (time.monotonic() - start) / len(targets)
            for part, (path, format), result in zip(parts, targets, results, strict=True):
                start = time.monotonic()
                report = session.verify(part, path, format, result)
                replace_all(format.files(part), format.files(path))
                yield dataclasses.replace(report, seconds=round(shared + time.monotonic() - start, 2))
        except OSError as error:
            names = ", ".join(str(path) for path, _ in targets)
            raise ExportError(
                f"{names} can't be written: {error.strerror or error}. Existing files are unchanged."
            ) from error


class Session:
    """Export session: runs jobs on a saved model in child processes, and verifies the files that they write."""

    def __init__(self, plan, backend, model_file, folder, calibration, progress):
        self.plan = plan
        self.progress = progress
        self.backend = backend
        self.model_file = model_file
        self.folder = folder
        self.calibration = calibration

    def run(self, jobs, paths=()):
        """Run jobs in a child process, and return their results.

        Args:
            jobs: List of `Job`s.
            paths: Path of the exported file that each job belongs to, for progress reports. Without paths, no progress
                is reported.

        Returns:
            A list with the `Result` of each job.
        """
        options = {}
        if paths and self.plan.progress is not None:
            options["progress"] = lambda number, text: self.progress.step(paths[number], text)
        return process.run(self.backend, self.model_file, self.plan.modules, jobs, self.folder, **options)

    def verify(self, part, path, format, result):
        """Verify a written file as the plan requires, and return its report.

        Args:
            part: Path of the written file, in a temporary folder.
            path: Path that the file will be moved to.
            format: `Format` of the file.
            result: `Result` of the job that wrote the file.

        Returns:
            The `ExportReport`.

        Raises:
            ExportError: The outputs of the file differ from the model's, or its runtime can't run it.
        """
        plan = self.plan
        report = ExportReport(
            path=str(path),
            format=format.name,
            input_shape=_file_shape(plan, result.layout),
            layout=result.layout,
            quantization=plan.quantization,
            float_blocks=tuple(plan.float_blocks or ()),
            bytes=size_on_disk(format.files(part)),
            float_bytes=result.float_bytes,
            notes=_notes(plan, format),
        )
        if plan.verify is False:
            return report
        self.progress.step(path, "compare with the model")
        try:
            comparison, report = self.compare_file(part, report)
        except RuntimeFailure as error:
            rejected = _set_aside(part, path, format)
            raise ExportError(
                f"{path} was not written: {error} The file is kept as {rejected}.", rejected=rejected
            ) from error
        if plan.quantization == "int8" and plan.float_blocks is None and loses(comparison):
            comparison, report = search(self, part, format, result, comparison, report)
        allowed = None if plan.verify is True else float(plan.verify)
        if comparison.is_right(plan.quantization, allowed):
            return report
        if allowed is None and plan.quantization is None and comparison.is_right(None, _MAX_RATIO * plan.sensitivity):
            note = (
                "this model amplifies rounding errors: a relative change of 1e-6 in the images changes the output by "
                f"{plan.sensitivity:.0e} of the largest output"
            )
            return dataclasses.replace(report, notes=(*report.notes, note))
        self._reject(part, path, format, report)

    def compare_file(self, part, report):
        """Return the `Comparison` of a file's outputs with the model's, and the report with the measured values."""
        plan = self.plan
        record, outputs = measure(part, plan.to_file_input(plan.images.checked))
        outputs = _in_order(outputs, plan.model)
        comparison = compare(outputs, plan.expected, plan.images.labels)
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
        """Keep a wrong file next to its path, and raise an `ExportError` that names the first layer that deviates."""
        block, where = None, ""
        if self.plan.quantization in TOLERANCES:  # With 8 bits, every layer deviates a little.
            try:
                block, where = self._first_deviation(part, format)
            except (ExportError, RuntimeFailure) as error:
                where = f" The first layer that deviates could not be determined: {error}"
        rejected = _set_aside(part, path, format)
        raise ExportError(
            f"{path} was not written: the output of {report.runtime} deviates from the model by "
            f"{report.deviation:.1e} of the largest output.{where} The file is kept as {rejected}.",
            rejected=rejected,
            block=block,
            report=report,
        )

    def _first_deviation(self, part, format):
        """Return the name of the first layer whose output deviates, or None, and a sentence for the error message."""
        plan = self.plan
        probe = part.with_name(f"blocks_{part.name}")
        self.run([plan.job(probe, format, None, blocks=True, metadata=None)])
        images = plan.images.checked[: plan.batch_size or 1]
        _, outputs = measure(probe, plan.to_file_input(images), runs=1)
        allowed = TOLERANCES[plan.quantization] if plan.verify is True else float(plan.verify)
        first = first_deviation(outputs, plan.reference.block_outputs(images), allowed)
        if first is None:
            return None, " No single layer deviates by more than the allowed value."
        return first[0], f" The first layer that deviates is {first[0]}, by {first[1]:.1e}."


def _in_order(outputs, model):
    """Return the outputs of a file as a list, in the order of the model's outputs, which can differ from the file's."""
    names = output_names(model)
    if isinstance(model.output, dict):
        names = keras.tree.flatten({name: name for name in names})
    return [outputs[name] for name in names] if outputs.keys() == set(names) else list(outputs.values())


def _set_aside(part, path, format):
    """Move a rejected file next to `path`, and return its new path."""
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
            "int8 weights reduce the size but not the latency: every call converts weights to float, or inputs to int8"
        )
    if plan.quantization == "float16":
        notes.append("weights are stored in float16, but the file computes in float32 unless a GPU supports float16")
    if plan.quantization == "int8" and format.reduces_range and not plan.reduce_range and processor_overflows():
        notes.append(
            "this machine's processor has no VNNI, so sums of 8-bit products can overflow on it (but not on ARM and "
            "newer x86 processors); to run the file on such machines, pass reduce_range=True (--reduce-range)"
        )
    if plan.quantization is not None and format.name == "openvino" and plan.verify is not False:
        notes.append("the comparison ran in float32; on some processors, OpenVINO computes in bfloat16 by default")
    return tuple(notes)


def processor_overflows(file="/proc/cpuinfo"):
    """Return whether this machine's processor adds 8-bit products in 16 bits; False if it can't be determined."""
    try:
        flags = next(line for line in Path(file).read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return False
    return not {"avx_vnni", "avx512_vnni"} & set(flags)
