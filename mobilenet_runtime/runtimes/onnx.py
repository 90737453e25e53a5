"""Run ONNX files with ONNX Runtime."""

import collections

from mobilenet_runtime.metadata import KEY
from mobilenet_runtime.runtimes.base import Exported, RuntimeFailure, imported, opening_errors

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_PROVIDER = "CPUExecutionProvider"


class OnnxModel(Exported):
    """A model in an `.onnx` file. Several threads may call its session at once; the calls share `threads` threads."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        runtime = imported("onnxruntime")
        self.runtime = f"ONNX Runtime {runtime.__version__}"
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings concern the graph, which users can't change here
        if threads:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        with opening_errors(self.path, self.runtime):
            self.session = runtime.InferenceSession(self.path, options, providers=[_PROVIDER])
        inputs = self.session.get_inputs()
        shapes = [[n if isinstance(n, int) else None for n in tensor.shape] for tensor in inputs]
        self._describe(shapes, [output.name for output in self.session.get_outputs()])
        (self._input,) = inputs
        if self._input.type not in _TYPES:
            raise RuntimeFailure(
                f"{self.path} has an input of type {self._input.type}, but only {', '.join(_TYPES)} are supported: use "
                "its runtime directly."
            )
        self._set_metadata(self.session.get_modelmeta().custom_metadata_map.get(KEY))

    def run(self, batch):
        return self.session.run(self.output_names, {self._input.name: batch.astype(_TYPES[self._input.type])})

    def operations(self):
        graph = imported("onnx").load(self.path, load_external_data=False).graph
        return dict(collections.Counter(node.op_type for node in graph.node))

    def placement(self):
        return {_PROVIDER: sum(self.operations().values())}
