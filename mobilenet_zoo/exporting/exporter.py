"""`export`: a model of any backend as a file for any runtime, checked after loading.

What does it is imported when it is called: importing the zoo brings this module.
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
    """Write a model for another runtime, opens the file there, and compares its outputs with the model's.

    The backend that writes a format best does so in a process of its own, whichever runs here: TensorFlow writes
    LiteRT and SavedModel, PyTorch ONNX, OpenVINO and torch.export. Batch norm is folded into the convolutions first.
    Models come out channels last for TensorFlow's formats and channels first for the others.

    Args:
        model: A functional model of this library, in training or not.
        path: Where to: ends with `.tflite` (LiteRT), `.onnx`, `.xml` (OpenVINO, with a `.bin` beside it) or `.pt2`
            (torch.export), or with nothing for the folder of a SavedModel. What is there already is replaced when the
            new file is whole and right.
        format: `"litert"`, `"onnx"`, `"openvino"`, `"torch"` or `"saved_model"`; None for what the path's ending says.
        batch_size: Images that the file takes at once; None for any number, which LiteRT can't.
        image_size: Height and width, an integer or a pair; None for the model's own.
        quantization: None for float32; `"float16"` (half the size: weights in float16, LiteRT, ONNX, OpenVINO);
            `"dynamic"` (a quarter: weights in int8, LiteRT, ONNX; smaller, but slower than float); `"int8"` (a quarter,
            and fast: computed in integers, with a scale for each channel of a kernel, LiteRT, ONNX, OpenVINO).
        calibration: For `"int8"`: at least 16 of the images that the model will see, of which a fifth is held out to
            compare with. A folder, paths, an array `(n, height, width, channels)`, a list of PIL images, bytes or open
            files, or a pair of one of these and the class of each image. An array of integers has pixels in 0..255,
            one of floats is as the model takes it.
        include_preprocessing: Whether the file takes pixels in 0..255 and normalizes them. A model that does so
            keeps it.
        include_softmax: Whether the file gives probabilities (True) or logits (False); None for what the model gives.
        metadata: Whether class names, normalization, source and license go into the file.
        verify: Whether the file is opened and compared. A number is the deviation to allow, as a fraction of the
            largest output, in place of 2e-4 for float32 and 5e-2 for float16.
        float_blocks: For quantization: names of layers to keep in float. None: none, unless `"int8"` costs more than a
            point of accuracy on the validation images (without labels, three points of agreement); then those layers
            that lose most, which a search finds. `()` leaves none in float32 and skips the search.
        reduce_range: For `"int8"`, ONNX and OpenVINO: whether kernels keep to 7 bits. Pass True for a file that will
            run on x86 processors without VNNI (before about 2019), whose 16-bit sums full 8-bit kernels can overflow.
            ARM processors, newer x86 ones and LiteRT don't need it, and it costs accuracy there.
        progress: Called with an `ExportStep` as each step begins, or None. Without it only the search for float32
            layers is announced, by a `MobileNetWarning`.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: An argument is wrong.
        ExportError: A library is missing, the images don't do, nothing could be written, or the file does not answer
            as the model does. It is then kept beside the path, with `.rejected` after its name, and the message says
            from which block on it deviates.
    """
    options = locals()
    del options["model"], options["path"], options["format"]
    (report,) = export_all(model, {path: format}, **options)
    return report


def export_all(model, paths, **options):
    """Yield `export` to several paths: `{path: format or None}`; the processes that write are shared.

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
        _ = plan.images  # before any process is started
    _ = plan.reference
    total = sum(len(steps_of(format, plan.quantization, plan.verify)) for format in formats.values())
    progress = Progress(plan.progress, total)
    by_backend = {}
    for path, format in formats.items():
        by_backend.setdefault(format.backend, []).append((path, format))
    for backend, wanted in by_backend.items():
        yield from write(plan, backend, wanted, progress)
