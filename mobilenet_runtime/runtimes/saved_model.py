"""TensorFlow's SavedModel folders, by TensorFlow."""

import collections
import os

from mobilenet_runtime.runtimes.base import Exported, imported


class SavedModel(Exported):
    """A model in a folder."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._tensorflow = imported("tensorflow", "tensorflow")
        if threads:
            self._tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        self._loaded = self._tensorflow.saved_model.load(self.path)  # dropped, it would take the variables with it
        self._serve = self._loaded.signatures["serving_default"]
        (self._name, spec), *_ = self._serve.structured_input_signature[1].items()
        self.input_shape = tuple(spec.shape)
        self.runtime = f"TensorFlow {self._tensorflow.__version__}"

    def run(self, batch):
        (answer,) = self._serve(**{self._name: self._tensorflow.constant(batch)}).values()
        return answer.numpy()

    def operations(self):
        graph = self._serve.graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return dict(collections.Counter(node.op for node in nodes))
