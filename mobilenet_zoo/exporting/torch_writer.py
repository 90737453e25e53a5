"""Write torch.export and ONNX files from a torch.export program, and OpenVINO files from ONNX."""

import contextlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from mobilenet_common.internals.keras_internals import run_graph
from mobilenet_common.ops.formulations import traced_for
from mobilenet_zoo.exporting.onnx_graph import finish
from mobilenet_zoo.exporting.prepared import blocks, output_names
from mobilenet_zoo.exporting.torch_graph import simplify

OPSET = 18


def write_program(model, path, target="torch"):
    """Write the prepared `model` as a torch.export program."""
    torch.export.save(program(model, target), path)


def write_onnx(model, path, target="onnx"):
    """Write the prepared `model` as an ONNX file whose nodes are named after the model's layers."""
    exported = program(model, target)
    dynamic = {"image": {0: "batch"}} if model.inputs[0].shape[0] is None else None
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        written: Any = torch.onnx.export(
            exported,
            dynamo=True,
            optimize=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=output_names(model),
            dynamic_shapes=dynamic,
        )
    finish(written.model)
    written.save(path, external_data=False)


def write_openvino(model, path, target="onnx"):
    """Write the prepared `model` as OpenVINO's intermediate representation, converted from ONNX."""
    import openvino

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        onnx = Path(folder) / "model.onnx"
        write_onnx(model, onnx, target)
        openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)


def program(model, target):
    """Return a prepared model as a `torch.export.ExportedProgram`."""
    shape = [2 if n is None else n for n in model.inputs[0].shape]
    dynamic = {"image": {0: torch.export.Dim("batch")}} if model.inputs[0].shape[0] is None else None
    with traced_for(target), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.export.export(
            _Program(model).eval(), (torch.zeros(shape),), dynamic_shapes=dynamic, strict=False
        )
    return simplify(traced)


class _Program(torch.nn.Module):
    """PyTorch module that runs a functional Keras model, with a submodule per layer so that traces name the layers."""

    def __init__(self, model):
        super().__init__()
        self.__dict__["model"] = model  # Not a submodule, so that each weight becomes a single constant.
        self.layer = torch.nn.ModuleDict({layer.name: _Layer(layer) for layer in blocks(model)})

    def forward(self, image):
        layers = dict(self.layer.items())  # Operations of keras.ops between layers are not in this dict.
        outputs = run_graph(self.model, image, lambda operation: layers.get(operation.name, operation))
        if isinstance(outputs, dict):  # Keras returns the outputs sorted by name.
            return {name: outputs[name] for name in output_names(self.model)}
        return outputs


class _Layer(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.__dict__["run"] = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["run"](*args, **kwargs)


@contextlib.contextmanager
def _quiet(name):
    """Suppress log messages below the level ERROR in this scope."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
