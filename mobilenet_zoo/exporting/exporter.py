"""`export`: write a model from any backend as a file for another runtime, and verify the file.

Importing `mobilenet_zoo` imports this module, so the modules that do the work are imported only when `export` is
called.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mobilenet_common.types import ImageLike, PathLike
from mobilenet_zoo.exporting.progress import ExportStep
from mobilenet_zoo.exporting.report import ExportReport


def export(
    model: keras.Model,
    path: PathLike,
    *,
    format: str | None = None,
    batch_size: int | None = 1,
    image_size: int | tuple[int, int] | None = None,
    quantization: str | None = None,
    calibration: PathLike | np.ndarray | Sequence[ImageLike] | tuple[Any, Any] | None = None,
    include_preprocessing: bool = False,
    include_softmax: bool | None = None,
    metadata: bool = True,
    verify: bool | float = True,
    float_blocks: Iterable[str] | None = None,
    reduce_range: bool = False,
    progress: Callable[[ExportStep], object] | None = None,
) -> ExportReport:
    """Write a model for another runtime, open the file there, and compare its outputs with the model's.

    A separate process writes the file with the backend that suits the format, whatever the current backend is:
    TensorFlow writes LiteRT and SavedModel; PyTorch writes ONNX, OpenVINO and torch.export. Batch norm is first folded
    into the convolutions. TensorFlow's formats are written channels last, the others channels first.

    Args:
        model: Functional model of this library. It may be compiled for training.
        path: Path to write. Its extension is `.tflite` (LiteRT), `.onnx`, `.xml` (OpenVINO, with a `.bin` file next to
            it) or `.pt2` (torch.export); a path without an extension is the folder of a SavedModel. An existing file is
            replaced only after the new file is complete and verified.
        format: `"litert"`, `"onnx"`, `"openvino"`, `"torch"` or `"saved_model"`. With None, the extension of
            the path determines the format.
        batch_size: Number of images per batch. None allows any number; LiteRT doesn't support this.
        image_size: Height and width of the images, as one integer or a pair. None for the model's own size.
        quantization: None for float32. `"float16"` stores the weights in float16, which halves the size (LiteRT, ONNX,
            OpenVINO). `"dynamic"` stores the weights in int8, which quarters the size, but runs slower than float32
            (LiteRT, ONNX). `"int8"` computes in integers, with a scale for each output channel of a kernel: a quarter
            of the size, and fast (LiteRT, ONNX, OpenVINO).
        calibration: Images like those that the model will see, at least 16; required for `"int8"`. A fifth of them is
            the validation set for the comparison. A folder, paths, an array `(n, height, width, channels)`, a list of
            PIL images, bytes or open files, or a tuple of one of these and the class of each image. Integer arrays
            contain pixels in 0..255; float arrays are passed to the model unchanged.
        include_preprocessing: Whether the file takes pixels in 0..255 and normalizes them. A model that already
            normalizes its input keeps doing so.
        include_softmax: Whether the file returns probabilities (True) or logits (False). None for the model's own
            output.
        metadata: Whether to write class names, normalization, source and license into the file.
        verify: Whether to open the file and compare its outputs. A number is the largest allowed deviation, as a
            fraction of the largest output. By default, it is 2e-4 for float32 and 5e-2 for float16.
        float_blocks: Names of layers that stay in float32 when the model is quantized. With None, all layers are
            quantized; if `"int8"` then loses more than one point of accuracy on the validation set (without labels,
            three points of agreement), a search finds the layers that lose the most, and they fall back to float32.
            `()` quantizes all layers without a search.
        reduce_range: Whether kernels use only 7 bits, for `"int8"` in ONNX and OpenVINO. Pass True for a file that will
            run on x86 processors without VNNI (before about 2019), where 8-bit weights can overflow the 16-bit sums.
            ARM processors, newer x86 processors and LiteRT don't need it, and would only lose accuracy.
        progress: Function that is called with an `ExportStep` at the start of each step, or None. Without it, only a
            search for float32 layers is reported, as a `MobileNetWarning`.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: An argument is wrong.
        ExportError: A library is missing, the calibration images can't be used, the file can't be written, or its
            outputs differ from the model's. In the last case, the file is kept next to `path`, with `.rejected`
            appended to its name, and the message names the first layer that deviates (not for 8-bit files, in which
            every layer deviates a little).
    """
    options = locals()
    del options["model"], options["path"], options["format"]
    (report,) = export_all(model, {path: format}, **options)
    return report


def export_all(model, paths, **options):
    """Export a model to several paths; formats that need the same backend share one process.

    Args:
        model: Functional model of this library.
        paths: Dictionary `{path: format or None}`.
        **options: The other arguments of `export`.

    Yields:
        An `ExportReport` for each path.
    """
    from mobilenet_zoo.exporting.destination import check_destination
    from mobilenet_zoo.exporting.formats import find_format
    from mobilenet_zoo.exporting.plan import make_plan
    from mobilenet_zoo.exporting.progress import Progress, steps_of
    from mobilenet_zoo.exporting.session import write

    plan = make_plan(model, **options)
    formats = {Path(path): find_format(path, name) for path, name in paths.items()}
    for path, format in formats.items():
        plan.check(format)
        check_destination(path, format)
    if plan.quantization == "int8":
        _ = plan.images  # Read the images now, so that an error is raised before a process starts.
    _ = plan.reference  # Build the reference model now, for the same reason.
    total = sum(len(steps_of(format, plan.quantization, plan.verify)) for format in formats.values())
    progress = Progress(plan.progress, total)
    by_backend = {}
    for path, format in formats.items():
        by_backend.setdefault(format.backend, []).append((path, format))
    for backend, targets in by_backend.items():
        yield from write(plan, backend, targets, progress)
