"""LiteRT files, formerly TensorFlow Lite, by LiteRT's interpreter with XNNPACK."""

import collections
import importlib.metadata
import zipfile
from pathlib import Path

import numpy as np

from mobilenet_common.internals.litert_internals import graph_operations
from mobilenet_common.types import PathLike
from mobilenet_runtime.metadata import FILE
from mobilenet_runtime.runtimes.base import Exported, imported, refusals
from mobilenet_runtime.runtimes.pool import Pool, parallel_calls


class LiteRtModel(Exported):
    """A model in a `.tflite` file.

    Numbers go in and come out as float32: where the file takes or gives integers, they are quantized on the way in and
    made real on the way out, by the scale and zero point in the file.

    An interpreter serves one thread at a time, so each call has one for itself: there are as many as calls have run at
    once, at most one per core (or per `threads` cores), and each holds the weights as XNNPACK arranges them.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        module = imported("ai_edge_litert.interpreter")
        self.runtime = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
        # The bytes and not the path: a second interpreter must be of the same model, whatever is at the path by then.
        content = Path(path).read_bytes()
        self._pool = Pool(lambda: _Instance(module, content, threads), parallel_calls(threads))
        with refusals(self.path, self.runtime), self._pool.borrow() as instance:
            interpreter = instance.interpreter
            inputs, self._outputs = interpreter.get_input_details(), interpreter.get_output_details()
            names = self._names(interpreter)
        self._describe([tensor["shape_signature"] for tensor in inputs], names)
        (self._input,) = inputs
        with refusals(self.path, self.runtime):
            self._keep(associated_file(self.path, FILE))

    def _names(self, interpreter):
        """Return the outputs' names in the file's first signature, or the tensors' own."""
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
            return [_real(interpreter.get_tensor(output["index"]), output) for output in self._outputs]

    def operations(self):
        with refusals(self.path, self.runtime), self._pool.borrow() as instance:
            return dict(collections.Counter(node["op_name"] for node in instance.nodes()[0]))

    def placement(self):
        nodes, delegates = self._prepared()
        left = sum(self.left_over().values())
        taken = {"XNNPACK": len(nodes) - left} if delegates else {}
        return taken | ({"interpreter": left} if left else {})

    def left_over(self):
        """Return `{operation's name: how many}` of those that XNNPACK did not take over."""
        nodes, delegates = self._prepared()
        inputs = {node["index"]: node["inputs"] for node in nodes}
        makers = {tensor: node["index"] for node in nodes for tensor in node["outputs"]}
        taken = set()
        for delegate in delegates:
            # The interpreter keeps the nodes that a delegate replaced, and doesn't say which these are: they are those
            # between what the delegate reads and what it gives.
            given, open_tensors = set(delegate["inputs"]), list(delegate["outputs"])
            while open_tensors:
                tensor = open_tensors.pop()
                maker = makers.get(tensor)
                if maker is not None and maker not in taken and tensor not in given:
                    taken.add(maker)
                    open_tensors.extend(inputs[maker])
        return dict(collections.Counter(node["op_name"] for node in nodes if node["index"] not in taken))

    def _prepared(self):
        """Return the graph's nodes and those of delegates, of which there are none before the tensors are allocated."""
        with self._pool.borrow(_Instance.is_allocated) as instance:
            if not instance.is_allocated():
                shape = self._example_shape()
                with refusals(self.path, self.runtime):
                    instance.allocate(self._input["index"], shape)
            return instance.nodes()


class _Instance:
    """An interpreter, and the shape of the batch that its tensors are allocated for, or None."""

    def __init__(self, module, content, threads):
        self.interpreter = module.Interpreter(model_content=content, num_threads=threads)
        self.shape = None

    def is_allocated(self):
        return self.shape is not None

    def allocate(self, index, shape):
        """Prepare the input at `index` and all that follows for a batch of `shape`."""
        if self.shape != shape:
            self.interpreter.resize_tensor_input(index, shape, strict=True)
            self.interpreter.allocate_tensors()
            self.shape = shape

    def nodes(self):
        """Return `(nodes of the graph, nodes of delegates)`."""
        nodes = graph_operations(self.interpreter)
        delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
        return [node for node in nodes if node["op_name"] != "DELEGATE"], delegates


def _quantized(values, details):
    """Return real numbers as the tensor holds them."""
    kind = np.dtype(details["dtype"])
    if kind.kind not in "iu":
        return values.astype(kind)
    scale, zero = details["quantization"]
    limits = np.iinfo(kind)
    return np.clip(np.rint(values / (scale or 1) + zero), limits.min, limits.max).astype(kind)


def _real(values, details):
    scale, zero = details["quantization"]
    if not scale or values.dtype.kind not in "iu":
        return values.astype("float32")
    return (values.astype("float32") - np.float32(zero)) * np.float32(scale)


def associated_file(path: PathLike, name: str) -> str | None:
    """Return a text file that travels at the end of a `.tflite`, as LiteRT's metadata keep them, or None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode() if name in archive.namelist() else None
