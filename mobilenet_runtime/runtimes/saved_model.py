"""Run SavedModel folders with TensorFlow."""

import collections
import os
from pathlib import Path

from mobilenet_runtime.metadata import FILE
from mobilenet_runtime.runtimes.base import Exported, RuntimeFailure, imported, opening_errors

_SIGNATURE = "serving_default"


class SavedModel(Exported):
    """A model in a SavedModel folder, which any number of threads may call.

    `threads` is a process-wide setting of TensorFlow, which can only be set before TensorFlow first computes.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._tensorflow = imported("tensorflow", "tensorflow")
        self.runtime = f"TensorFlow {self._tensorflow.__version__}"
        if threads:
            self._limit(threads)
        with opening_errors(self.path, self.runtime):
            # Keep a reference: the variables are deleted with the loaded object.
            self._loaded = self._tensorflow.saved_model.load(self.path)
        if _SIGNATURE not in self._loaded.signatures:
            raise RuntimeFailure(
                f"{self.path} has no signature {_SIGNATURE!r}, only {list(self._loaded.signatures)}: save the model "
                "with this signature."
            )
        self._serve = self._loaded.signatures[_SIGNATURE]
        inputs = self._serve.structured_input_signature[1]
        shapes = [tensor.shape.as_list() if tensor.shape.rank is not None else [] for tensor in inputs.values()]
        self._describe(shapes, sorted(self._serve.structured_outputs))  # the file doesn't define an order
        ((self._name, spec),) = inputs.items()
        self._type = spec.dtype
        metadata_path = Path(path) / "assets.extra" / FILE
        if metadata_path.is_file():
            with opening_errors(self.path, self.runtime):
                self._set_metadata(metadata_path.read_text(encoding="utf-8"))

    def _limit(self, threads):
        threading = self._tensorflow.config.threading
        if threading.get_intra_op_parallelism_threads() == threads:
            return
        try:
            threading.set_intra_op_parallelism_threads(threads)
            threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:  # TensorFlow has already computed something
            raise RuntimeFailure(
                f"threads={threads} can't be set: TensorFlow accepts it only before its first computation. "
                "Load the file in a new process."
            ) from error

    def run(self, batch):
        outputs = self._serve(**{self._name: self._tensorflow.constant(batch, self._type)})
        return [outputs[name].numpy() for name in self.output_names]

    def operations(self):
        graph = self._serve.graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return dict(collections.Counter(node.op for node in nodes))

    def placement(self):
        return {"TensorFlow": sum(self.operations().values())}
