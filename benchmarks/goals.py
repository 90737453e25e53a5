"""Speed goals of this library, and the results of a benchmark run for each goal."""

import dataclasses

MEASURES = (("inference", 1), ("inference", 16), ("training", 16))


@dataclasses.dataclass(frozen=True)
class Goal:
    """Minimum ratios of one peer's time to ours, for some of the models.

    If the peer is our fused copy, the ratio is the time of the plain model divided by the time of the fused copy.

    Attributes:
        name: Name in the tables.
        backend: Backend of the rows that the goal applies to.
        mode: Execution mode of these rows; see `contenders.MODES`.
        peer: Contender that is compared with our model.
        models: Prefixes of the names of the models that the goal applies to.
        ratios: Minimum ratio for each of `MEASURES`; None without a goal.
    """

    name: str
    backend: str
    mode: str
    peer: str
    models: tuple[str, ...]
    ratios: tuple[float | None, ...]

    def result(self, row):
        """Return `(ratio, model)` of one comparison, or None if the goal doesn't apply to it."""
        applies = (row["backend"], row["mode"]) == (self.backend, self.mode) and row["model"].startswith(self.models)
        if not applies or self.peer not in row["contenders"]:
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
    Goal(f"TensorFlow with XLA, {_KERAS}", "tensorflow", "jit_compile", _KERAS, _APPLICATIONS, (6, 7, 5)),
    Goal("fused, plain: PyTorch", "torch", "eager", FUSED, _ALL, (1.1, 1.1, None)),
    Goal("fused, plain: TensorFlow", "tensorflow", "graph", FUSED, _ALL, (1.1, 1.1, None)),
    Goal("fused, plain: JAX", "jax", "jit", FUSED, _ALL, (1.0, 1.0, None)),
)


def outcome(rows):
    """Return the results of a run for each goal.

    Args:
        rows: The comparisons of `results.json`.

    Returns:
        A list of `(goal, [cell for each of MEASURES])`, without the goals for which the run has no results. A cell is
        `{"lowest": (ratio, model), "highest": (ratio, model), "goal": minimum ratio}`, or None.
    """
    table = []
    for goal in GOALS:
        cells = []
        for measure, minimum in zip(MEASURES, goal.ratios, strict=True):
            results = [goal.result(row) for row in rows if (row["measure"], row["batch"]) == measure]
            results = sorted(result for result in results if result is not None)
            cells.append(
                {"lowest": results[0], "highest": results[-1], "goal": minimum} if results and minimum else None
            )
        if any(cells):
            table.append((goal, cells))
    return table
