"""LiteRT files, formerly TensorFlow Lite, by LiteRT's interpreter with XNNPACK."""

import collections
import importlib.metadata
import zipfile

import numpy as np

from mobilenet_runtime.metadata import FILE
from mobilenet_runtime.runtimes.base import Exported, imported, refusals


class LiteRtModel(Exported):
    """A model in a `.tflite` file.

    Numbers go in and come out as float32: where the file takes or gives integers, they are quantised on the way in and
    made real on the way out, by the scale and zero point in the file.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        interpreter = imported("ai_edge_litert.interpreter")
        self.runtime = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
        with refusals(self.path, self.runtime):
            self.interpreter = interpreter.Interpreter(model_path=self.path, num_threads=threads)
        inputs, self._outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self._describe([each["shape_signature"] for each in inputs], self._names())
        (self._input,) = inputs
        self._allocated = None
        with refusals(self.path, self.runtime):
            self._keep(associated_file(self.path, FILE))

    def _names(self):
        """The outputs' names in the file's first signature, which are those its maker gave, or the tensors' own."""
        names = {}
        for signature in list(self.interpreter.get_signature_list())[:1]:
            details = self.interpreter.get_signature_runner(signature).get_output_details()
            names = {each["index"]: name for name, each in details.items()}
        return [names.get(each["index"], each["name"]) for each in self._outputs]

    def run(self, batch):
        self._allocate(batch.shape)
        self.interpreter.set_tensor(self._input["index"], _quantized(batch, self._input))
        self.interpreter.invoke()
        return [_real(self.interpreter.get_tensor(each["index"]), each) for each in self._outputs]

    def _allocate(self, shape):
        if self._allocated != tuple(shape):
            self.interpreter.resize_tensor_input(self._input["index"], shape, strict=True)
            self.interpreter.allocate_tensors()
            self._allocated = tuple(shape)

    def operations(self):
        with refusals(self.path, self.runtime):
            return dict(collections.Counter(each["op_name"] for each in self._nodes()[0]))

    def placement(self):
        nodes, delegates = self._prepared()
        left = sum(self.left_over().values())
        taken = {"XNNPACK": len(nodes) - left} if delegates else {}
        return taken | ({"interpreter": left} if left else {})

    def left_over(self):
        """`{operation's name: how many}` of those that XNNPACK did not take over."""
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
        """The graph's nodes and those of delegates, of which there are none before the tensors are allocated."""
        if self._allocated is None:
            with refusals(self.path, self.runtime):
                self._allocate(self._example_shape())
        return self._nodes()

    def _nodes(self):
        nodes = self.interpreter._get_ops_details()
        delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
        return [node for node in nodes if node["op_name"] != "DELEGATE"], delegates


def _quantized(values, details):
    """Real numbers as the tensor holds them."""
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


def associated_file(path, name):
    """A text file that travels at the end of a `.tflite`, as LiteRT's metadata keep them, or None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode() if name in archive.namelist() else None
