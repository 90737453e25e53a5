"""ONNX files, by ONNX Runtime."""

import collections
import json

from mobilenet_runtime.runtimes.base import Exported, imported


class OnnxModel(Exported):
    """A model in an `.onnx` file."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        runtime = imported("onnxruntime")
        options = runtime.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self.session = runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.runtime = f"ONNX Runtime {runtime.__version__}"
        (self._input,) = self.session.get_inputs()
        self.input_shape = tuple(n if isinstance(n, int) else None for n in self._input.shape)
        self.metadata = {
            name: json.loads(value) for name, value in self.session.get_modelmeta().custom_metadata_map.items()
        }

    def run(self, batch):
        return self.session.run(None, {self._input.name: batch})[0]

    def operations(self):
        graph = imported("onnx").load(self.path, load_external_data=False).graph
        return dict(collections.Counter(node.op_type for node in graph.node))
