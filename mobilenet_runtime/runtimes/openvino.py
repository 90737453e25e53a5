"""OpenVINO's intermediate representation, an `.xml` file with its `.bin`, by OpenVINO."""

import collections

from mobilenet_runtime.metadata import KEY
from mobilenet_runtime.runtimes.base import Exported, imported, refusals
from mobilenet_runtime.runtimes.pool import Pool, parallel_calls

_ENDS = ("Parameter", "Constant", "Result")  # what a graph holds beside its operations
_COMPILED_ENDS = ("Input", "Const", "Output")  # the same in a compiled one


class OpenvinoModel(Exported):
    """A model in an `.xml` file.

    A request of OpenVINO serves one thread at a time, so each call has one for itself. OpenVINO computes them one after
    the other, each on all cores (or `threads`), since it is asked for the lowest latency.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        openvino = imported("openvino")
        self.runtime = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        # OpenVINO would use bfloat16 on processors that have it.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        with refusals(self.path, self.runtime):
            core = openvino.Core()
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
            self._keep(self.model.get_rt_info([KEY]).astype(str))

    def run(self, batch):
        with self._requests.borrow() as request:
            answers = request.infer(batch, share_inputs=True)  # the outputs are copies
        return [answers[i] for i in range(len(self.output_names))]

    def operations(self):
        kinds = (node.get_type_name() for node in self.model.get_ordered_ops())
        return dict(collections.Counter(kind for kind in kinds if kind not in _ENDS))

    def placement(self):
        found = collections.Counter()
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            known = node.get_rt_info()
            if known["layerType"].astype(str) not in _COMPILED_ENDS:
                found[f"CPU {known['runtimePrecision'].astype(str)}"] += 1
        return dict(found)
