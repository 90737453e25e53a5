"""Run LiteRT (formerly TensorFlow Lite) files with LiteRT's interpreter and XNNPACK."""

import collections
import importlib.metadata
import zipfile
from pathlib import Path

import numpy as np

from mobilenet_common.internals.litert_internals import graph_operations
from mobilenet_common.types import PathLike
from mobilenet_runtime.metadata import FILE
from mobilenet_runtime.runtimes.base import Exported, imported, opening_errors
from mobilenet_runtime.runtimes.pool import Pool, parallel_calls


class LiteRtModel(Exported):
    """A model in a `.tflite` file.

    Inputs and outputs are float32. If the file has integer inputs or outputs, they are quantized and dequantized with
    the scale and the zero point in the file.

    An interpreter serves one thread at a time, so each call uses its own interpreter. The number of interpreters grows
    with the number of concurrent calls, up to one per core (or per `threads` cores). Each holds its own copy of the
    weights in XNNPACK's layout.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        module = imported("ai_edge_litert.interpreter")
        self.runtime = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
        # Keep the bytes: a later interpreter must load the same model even if the file has changed.
        content = Path(path).read_bytes()
        self._pool = Pool(lambda: _Instance(module, content, threads), parallel_calls(threads))
        with opening_errors(self.path, self.runtime), self._pool.borrow() as instance:
            interpreter = instance.interpreter
            inputs, self._outputs = interpreter.get_input_details(), interpreter.get_output_details()
            names = self._names(interpreter)
        self._describe([tensor["shape_signature"] for tensor in inputs], names)
        (self._input,) = inputs
        with opening_errors(self.path, self.runtime):
            self._set_metadata(associated_file(self.path, FILE))

    def _names(self, interpreter):
        """Return the names of the outputs in the file's first signature, or else of their tensors."""
        names = {}
        for signature in list(interpreter.get_signature_list())[:1]:
            details = interpreter.get_signature_runner(signature).get_output_details()
            names = {detail["index"]: name for name, detail in details.items()}
        return [names.get(output["index"], output["name"]) for output in self._outputs]

    def run(self, batch):
        index = self._input["index"]
        with self._pool.borrow(lambda instance: instance.shape == batch.shape) as instance:
            instance.allocate(index, batch.shape)
            interpreter = instance.interpreter
            interpreter.set_tensor(index, _quantized(batch, self._input))
            interpreter.invoke()
            return [_dequantized(interpreter.get_tensor(output["index"]), output) for output in self._outputs]

    def operations(self):
        with opening_errors(self.path, self.runtime), self._pool.borrow() as instance:
            return dict(collections.Counter(node["op_name"] for node in instance.nodes()[0]))

    def placement(self):
        nodes, delegates = self._prepared()
        remaining = sum(self.left_over().values())
        delegated = {"XNNPACK": len(nodes) - remaining} if delegates else {}
        return delegated | ({"interpreter": remaining} if remaining else {})

    def left_over(self):
        """Return the number of operations of each type that XNNPACK doesn't run, `{type: count}`."""
        nodes, delegates = self._prepared()
        inputs = {node["index"]: node["inputs"] for node in nodes}
        producers = {tensor: node["index"] for node in nodes for tensor in node["outputs"]}
        delegated = set()
        for delegate in delegates:
            # The interpreter keeps the nodes that a delegate replaces, but doesn't report which nodes these are. Find
            # them by walking back from the delegate's outputs to its inputs.
            delegate_inputs, pending = set(delegate["inputs"]), list(delegate["outputs"])
            while pending:
                tensor = pending.pop()
                producer = producers.get(tensor)
                if producer is not None and producer not in delegated and tensor not in delegate_inputs:
                    delegated.add(producer)
                    pending.extend(inputs[producer])
        return dict(collections.Counter(node["op_name"] for node in nodes if node["index"] not in delegated))

    def _prepared(self):
        """Return `(nodes, delegates)` of an interpreter with allocated tensors: allocation creates the delegates."""
        with self._pool.borrow(_Instance.is_allocated) as instance:
            if not instance.is_allocated():
                shape = self._example_shape()
                with opening_errors(self.path, self.runtime):
                    instance.allocate(self._input["index"], shape)
            return instance.nodes()


class _Instance:
    """An interpreter, with the shape of the batch for which its tensors are allocated, or None."""

    def __init__(self, module, content, threads):
        self.interpreter = module.Interpreter(model_content=content, num_threads=threads)
        self.shape = None

    def is_allocated(self):
        return self.shape is not None

    def allocate(self, index, shape):
        """Resize the input at `index` to a batch of `shape` and allocate all tensors."""
        if self.shape != shape:
            self.interpreter.resize_tensor_input(index, shape, strict=True)
            self.interpreter.allocate_tensors()
            self.shape = shape

    def nodes(self):
        """Return the nodes of the graph and the nodes of delegates as a tuple of two lists."""
        nodes = graph_operations(self.interpreter)
        delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
        return [node for node in nodes if node["op_name"] != "DELEGATE"], delegates


def _quantized(values, details):
    """Convert real numbers to the tensor's type, and quantize them if it is an integer type."""
    kind = np.dtype(details["dtype"])
    if kind.kind not in "iu":
        return values.astype(kind)
    scale, zero = details["quantization"]
    limits = np.iinfo(kind)
    return np.clip(np.rint(values / (scale or 1) + zero), limits.min, limits.max).astype(kind)


def _dequantized(values, details):
    """Convert the values of a tensor to float32, and dequantize them if they are quantized."""
    scale, zero = details["quantization"]
    if not scale or values.dtype.kind not in "iu":
        return values.astype("float32")
    return (values.astype("float32") - np.float32(zero)) * np.float32(scale)


def associated_file(path: PathLike, name: str) -> str | None:
    """Return the text of an associated file of LiteRT's metadata, or None if the file is missing.

    LiteRT appends associated files to the `.tflite` as a ZIP archive.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode() if name in archive.namelist() else None
