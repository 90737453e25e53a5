"""OpenVINO's intermediate representation, an `.xml` file with its `.bin`, by OpenVINO."""

import collections

import numpy as np

from mobilenet_runtime.runtimes.base import Exported, imported


class OpenvinoModel(Exported):
    """A model in an `.xml` file."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        openvino = imported("openvino")
        core = openvino.Core()
        self.model = core.read_model(self.path)
        # Some processors would compute in bfloat16 without being asked.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        self.compiled = core.compile_model(self.model, "CPU", settings)
        self.runtime = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        shape = self.model.inputs[0].get_partial_shape()
        self.input_shape = tuple(n.get_length() if n.is_static else None for n in shape)

    def run(self, batch):
        return np.array(self.compiled(batch)[0])

    def operations(self):
        return dict(collections.Counter(node.get_type_name() for node in self.model.get_ordered_ops()))
