"""The speed that this library wants to keep, and what a run of the benchmarks found of it."""

import dataclasses

MEASURES = (("inference", 1), ("inference", 16), ("training", 16))


@dataclasses.dataclass(frozen=True)
class Goal:
    """What to reach against one peer: its time divided by ours, for each of a few models.

    Attributes:
        name: For people.
        backend, mode, peer: Which rows of a run it is about.
        models: Which of them, by the start of their names.
        ratios: The least ratio for each of `MEASURES`; None where there is no goal.
    """

    name: str
    backend: str
    mode: str
    peer: str
    models: tuple[str, ...]
    ratios: tuple[float | None, ...]

    def reached(self, row):
        """Return the ratio and the model of one comparison, or None where the goal is about others."""
        mine = (row["backend"], row["mode"]) == (self.backend, self.mode) and row["model"].startswith(self.models)
        if not mine or self.peer not in row["contenders"]:
            return None
        ratio = row["contenders"][self.peer]["ratio"]
        return (1 / ratio if self.peer == FUSED else ratio), row["model"]


FUSED = "ours, fused"
_APPLICATIONS = ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large")
_V4 = ("mobilenetv4_conv_medium", "mobilenetv4_hybrid_medium")
_ALL = ("mobilenet",)

_KERAS = "keras.applications"

GOALS = (
    Goal(f"JAX, {_KERAS}", "jax", "jit", _KERAS, _APPLICATIONS, (6, 7, 5)),
    Goal("JAX, zeromodels", "jax", "jit", "zeromodels", _V4, (6, 6, 5)),
    Goal(f"PyTorch, {_KERAS}", "torch", "eager", _KERAS, _APPLICATIONS, (2.5, 2, 2.5)),
    Goal("PyTorch, timm", "torch", "eager", "timm", _ALL, (0.8, 1.0, 1.2)),
    Goal("PyTorch compiled, timm compiled", "torch", "compiled", "timm", _ALL, (1.0, 1.0, None)),
    Goal(f"TensorFlow graph, {_KERAS}", "tensorflow", "graph", _KERAS, _APPLICATIONS, (1.2, 1.3, 1.6)),
    Goal(f"TensorFlow by XLA, {_KERAS}", "tensorflow", "jit_compile", _KERAS, _APPLICATIONS, (6, 7, 5)),
    Goal("fused, plain: PyTorch", "torch", "eager", FUSED, _ALL, (1.1, 1.1, None)),
    Goal("fused, plain: TensorFlow", "tensorflow", "graph", FUSED, _ALL, (1.1, 1.1, None)),
    Goal("fused, plain: JAX", "jax", "jit", FUSED, _ALL, (1.0, 1.0, None)),
)


def outcome(rows):
    """Return what a run found of each goal.

    Args:
        rows: The comparisons of `results.json`.

    Returns:
        A list of `(goal, [cell for each of MEASURES])`, without goals of which the run has nothing; a cell is
        `{"lowest": (ratio, model), "highest": (ratio, model), "goal"}`, or None.
    """
    table = []
    for goal in GOALS:
        cells = []
        for measure, least in zip(MEASURES, goal.ratios, strict=True):
            found = [goal.reached(row) for row in rows if (row["measure"], row["batch"]) == measure]
            found = sorted(ratio for ratio in found if ratio is not None)
            cells.append({"lowest": found[0], "highest": found[-1], "goal": least} if found and least else None)
        if any(cells):
            table.append((goal, cells))
    return table
