"""Programs of torch.export, by PyTorch."""

import collections

from mobilenet_runtime.runtimes.base import Exported, imported


class TorchProgram(Exported):
    """A model in a `.pt2` file."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        self._torch = imported("torch", "torch")
        if threads:
            self._torch.set_num_threads(threads)
        self.program = self._torch.export.load(self.path)
        self._module = self.program.module()
        self.runtime = f"PyTorch {self._torch.__version__.partition('+')[0]}"
        (placeholder,) = (
            node
            for node in self.program.graph.nodes
            if node.op == "placeholder" and node.name in self.program.graph_signature.user_inputs
        )
        self.input_shape = tuple(n if isinstance(n, int) else None for n in placeholder.meta["val"].shape)

    def run(self, batch):
        with self._torch.no_grad():
            return self._module(self._torch.from_numpy(batch)).numpy()

    def operations(self):
        calls = [node for node in self.program.graph.nodes if node.op == "call_function"]
        return dict(collections.Counter(str(node.target).rpartition("::")[2] for node in calls))
