"""Run programs of torch.export with PyTorch."""

import collections
import os
import threading
import zipfile

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.metadata import FILE
from mobilenet_runtime.runtimes.base import Exported, imported, opening_errors

_ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # environment variable that PyTorch reads at each load
_LOADING = threading.Lock()  # the environment variable is shared by all threads


class TorchProgram(Exported):
    """A model in a `.pt2` file, which any number of threads may call.

    `threads` is a process-wide setting of PyTorch: the value passed last applies to all loaded files.
    """

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        self._torch = torch = imported("torch", "torch")
        self.runtime = f"PyTorch {torch.__version__.partition('+')[0]}"
        if threads:
            torch.set_num_threads(threads)
        files = {FILE: ""}
        with opening_errors(self.path, self.runtime):
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
        # Models return a tensor, a tuple or a dictionary. Only a dictionary has names; otherwise use the graph's names.
        outputs = tree_unflatten(list(signature.user_outputs), self.program.call_spec.out_spec)
        shapes = [[n if isinstance(n, int) else None for n in tensor.shape] for tensor in inputs]
        self._describe(shapes, [outputs] if isinstance(outputs, str) else outputs)
        self._type = inputs[0].dtype
        self._set_metadata(files[FILE])

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
    """Load a program and the text files in its archive.

    An archive may contain pickles, which can run arbitrary code. Only tensors are loaded from them, and anything else
    raises an error.

    Args:
        path: Path of the `.pt2` file.
        files: Dictionary `{name: text}`, which is updated with the texts of the files that the archive contains.

    Returns:
        The `torch.export.ExportedProgram`.
    """
    if not zipfile.is_zipfile(path):  # PyTorch would log a traceback before its error
        raise ArgumentError("it is not an archive of torch.export")
    with _LOADING:
        previous = os.environ.get(_ONLY_TENSORS)
        os.environ[_ONLY_TENSORS] = "1"
        try:
            return imported("torch", "torch").export.load(path, extra_files=files)
        finally:
            if previous is None:
                del os.environ[_ONLY_TENSORS]
            else:
                os.environ[_ONLY_TENSORS] = previous
