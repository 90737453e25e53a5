"""LiteRT files, formerly TensorFlow Lite, by LiteRT's interpreter with XNNPACK."""

import collections
import zipfile

import numpy as np

from mobilenet_runtime.runtimes.base import Exported, imported


class LiteRtModel(Exported):
    """A model in a `.tflite` file."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        interpreter = imported("ai_edge_litert.interpreter")
        version = imported("importlib.metadata").version("ai-edge-litert")
        self.interpreter = interpreter.Interpreter(model_path=self.path, num_threads=threads)
        (self._input,), (self._output,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.input_shape = tuple(None if n == -1 else int(n) for n in self._input["shape_signature"])
        self.runtime = f"LiteRT {version}"
        self._allocated = None

    def run(self, batch):
        if self._allocated != batch.shape:
            self.interpreter.resize_tensor_input(self._input["index"], batch.shape, strict=True)
            self.interpreter.allocate_tensors()
            self._allocated = batch.shape
        self.interpreter.set_tensor(self._input["index"], _quantized(batch, self._input))
        self.interpreter.invoke()
        return _real(self.interpreter.get_tensor(self._output["index"]), self._output)

    def operations(self):
        schema = imported("ai_edge_litert.schema_py_generated")
        names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        with open(self.path, "rb") as file:
            model = schema.Model.GetRootAs(file.read())
        graph = model.Subgraphs(0)
        codes = [
            model.OperatorCodes(graph.Operators(i).OpcodeIndex()).BuiltinCode() for i in range(graph.OperatorsLength())
        ]
        return dict(collections.Counter(names[code] for code in codes))


def _quantized(values, details):
    """Real numbers as the tensor holds them."""
    scale, zero = details["quantization"]
    if not scale:
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale + zero), limits.min, limits.max).astype(details["dtype"])


def _real(values, details):
    scale, zero = details["quantization"]
    return values.astype("float32") if not scale else ((values.astype("float32") - zero) * scale).astype("float32")


def associated_file(path, name):
    """A text file that travels at the end of a `.tflite`, as LiteRT's metadata keep them, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode()
    except (zipfile.BadZipFile, KeyError):
        return None
