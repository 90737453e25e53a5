"""The plot that `mobilenet-zoo plot` writes."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

COLORS = {"v1": "#e69f00", "v2": "#56b4e9", "v3": "#009e73", "v4": "#cc3311"}
MARKERS = {"v1": "s", "v2": "o", "v3": "^", "v4": "D"}
_TICKS = {"macs": (30, 100, 300, 1000, 3000, 10000), "parameters": (0.5, 1, 2, 5, 10, 20, 40)}
_AXES = {
    "macs": "multiply-accumulates per image (millions)",
    "parameters": "parameters (millions)",
}


def draw(rows, output):
    """Plot the rows of `listing.rows()`, save the plot as .png and .svg, and return the two paths."""
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, field in zip(panels, _AXES, strict=True):
        _panel(panel, rows, field)
    panels[0].set_ylabel("top-1 accuracy on ImageNet-1k (%)")
    panels[1].legend(title="MobileNet", loc="lower right", frameon=False)
    figure.suptitle("Published weights, each at the image size with its highest accuracy")
    paths = [output.with_suffix(ending) for ending in (".png", ".svg")]
    for path, canvas in zip(paths, (FigureCanvasAgg, FigureCanvasSVG), strict=True):
        canvas(figure)
        figure.savefig(path, dpi=150)
    return paths


def _panel(panel, rows, field):
    for generation, color in COLORS.items():
        selected = sorted((row for row in rows if row.generation == generation), key=lambda row: getattr(row, field))
        panel.scatter(
            [getattr(row, field) / 1e6 for row in selected],
            [row.top1 for row in selected],
            s=28,
            color=color,
            marker=MARKERS[generation],
            alpha=0.75,
            linewidths=0,
            label=generation.upper(),
        )
        pareto_front, best = [], 0.0
        for row in selected:
            if row.top1 > best:
                pareto_front.append(row)
                best = row.top1
        panel.plot(
            [getattr(row, field) / 1e6 for row in pareto_front],
            [row.top1 for row in pareto_front],
            color=color,
            lw=1,
        )
    panel.set_xscale("log")
    panel.set_xticks(_TICKS[field])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(_AXES[field])
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
