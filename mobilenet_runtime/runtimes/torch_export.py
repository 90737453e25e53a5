"""Programs of torch.export, by PyTorch."""

import collections
import os
import threading
import zipfile

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.metadata import FILE
from mobilenet_runtime.runtimes.base import Exported, imported, refusals

_ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # a setting that PyTorch reads whenever it loads something
_LOADING = threading.Lock()  # two threads would restore each other's setting


class TorchProgram(Exported):
    """A model in a `.pt2` file, which any number of threads may call.

    `threads` is a setting of PyTorch for the whole process: the last file that is loaded with it decides.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        self._torch = torch = imported("torch", "torch")
        self.runtime = f"PyTorch {torch.__version__.partition('+')[0]}"
        if threads:
            torch.set_num_threads(threads)
        files = {FILE: ""}
        with refusals(self.path, self.runtime):
            self.program = load_program(self.path, files)
            self._module = self.program.module()
        signature = self.program.graph_signature
        inputs = [
            node.meta["val"]
            for node in self.program.graph.nodes
            if node.op == "placeholder" and node.name in signature.user_inputs
        ]
        from mobilenet_common.internals.torch_internals import tree_leaves, tree_unflatten  # imports PyTorch

        self._leaves = tree_leaves
        # A model's outputs are a tensor, a tuple or a dictionary; the names of the first two are the graph's.
        outputs = tree_unflatten(list(signature.user_outputs), self.program.call_spec.out_spec)
        shapes = [[n if isinstance(n, int) else None for n in tensor.shape] for tensor in inputs]
        self._describe(shapes, [outputs] if isinstance(outputs, str) else outputs)
        self._type = inputs[0].dtype
        self._keep(files[FILE])

    def run(self, batch):
        with self._torch.no_grad():
            outputs = self._module(self._torch.from_numpy(batch).to(self._type))
        return [output.float().numpy() for output in self._leaves(outputs)]

    def operations(self):
        calls = [node for node in self.program.graph.nodes if node.op == "call_function"]
        return dict(collections.Counter(str(node.target).rpartition("::")[2] for node in calls))

    def placement(self):
        return {"PyTorch": sum(self.operations().values())}


def load_program(path, files):
    """Return a program, with the texts of the `files` that travel with it, by name; what isn't there stays as it is.

    An archive may hold pickles, which can run anything: they are read as tensors alone, or refused.
    """
    if not zipfile.is_zipfile(path):  # PyTorch would log a traceback first
        raise ArgumentError("it is no archive of torch.export")
    with _LOADING:
        before = os.environ.get(_ONLY_TENSORS)
        os.environ[_ONLY_TENSORS] = "1"
        try:
            return imported("torch", "torch").export.load(path, extra_files=files)
        finally:
            if before is None:
                del os.environ[_ONLY_TENSORS]
            else:
                os.environ[_ONLY_TENSORS] = before
