"""Run OpenVINO's intermediate representation, an `.xml` file with a `.bin` file, with OpenVINO."""

import collections
import functools

from mobilenet_runtime.metadata import KEY
from mobilenet_runtime.runtimes.base import Exported, imported, opening_errors
from mobilenet_runtime.runtimes.pool import Pool, parallel_calls

_ENDS = ("Parameter", "Constant", "Result")  # node types that are not operations
_COMPILED_ENDS = ("Input", "Const", "Output")  # the same in a compiled model


@functools.cache
def _core():
    """Return the `Core` of this process, which is never released.

    OpenVINO's CPU plugin gives the main thread a stack for signal handlers. If another thread released the last model
    and its `Core`, this stack would be freed while in use, and the next signal would end the process.
    """
    return imported("openvino").Core()


class OpenvinoModel(Exported):
    """A model in an `.xml` file.

    An inference request of OpenVINO serves one thread at a time, so each call uses its own request. OpenVINO runs the
    requests one after the other, each on all cores (or `threads` threads), because the model is compiled for the lowest
    latency.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        openvino = imported("openvino")
        self.runtime = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        # By default, OpenVINO computes in bfloat16 on processors that support it.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        with opening_errors(self.path, self.runtime):
            core = _core()
            self.model = core.read_model(self.path)
            self.compiled = core.compile_model(self.model, "CPU", settings)
        self._requests = Pool(self.compiled.create_infer_request, parallel_calls(None))
        shapes = [tensor.get_partial_shape() for tensor in self.model.inputs]
        names = [
            output.get_any_name() if output.get_names() else f"output_{i}"
            for i, output in enumerate(self.model.outputs)
        ]
        self._describe([[n.get_length() if n.is_static else None for n in shape] for shape in shapes], names)
        if self.model.has_rt_info([KEY]):
            self._set_metadata(self.model.get_rt_info([KEY]).astype(str))

    def run(self, batch):
        with self._requests.borrow() as request:
            outputs = request.infer(batch, share_inputs=True)  # the outputs are copies
        return [outputs[i] for i in range(len(self.output_names))]

    def operations(self):
        kinds = (node.get_type_name() for node in self.model.get_ordered_ops())
        return dict(collections.Counter(kind for kind in kinds if kind not in _ENDS))

    def placement(self):
        counts = collections.Counter()
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) not in _COMPILED_ENDS:
                counts[f"CPU {info['runtimePrecision'].astype(str)}"] += 1
        return dict(counts)
