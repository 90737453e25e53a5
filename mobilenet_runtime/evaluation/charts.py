"""SVG charts for the HTML report, with the colors of the page's light or dark theme and selectable text."""

import contextlib
import html
import io
import re

import numpy as np

from mobilenet_runtime.evaluation.overlays import matplotlib

# Placeholder colors for matplotlib, and the CSS variables of the page that replace them in the SVG.
_INK, _MUTED, _LINE, _FIRST, _SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _LINE: "line", _FIRST: "first", _SECOND: "second"}
_SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": _LINE,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "mobilenet-zoo",
    "text.parse_math": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _LINE,
    "ytick.labelcolor": _MUTED,
}


def curves(epochs, series, name, logarithmic=False):
    """Return a line chart of values by epoch as SVG.

    Args:
        epochs: Sequence of epoch numbers.
        series: Values by epoch of one or two lines, `{label: values}`. The second line is dashed.
        name: Name of the quantity, for the title and the y axis.
        logarithmic: Whether the y axis is logarithmic, which requires positive values.
    """
    with _chart(f"{name} by epoch: {_summary(series)}") as (axes, chart):
        for (label, values), color, style in zip(series.items(), (_FIRST, _SECOND), ("-", "--"), strict=False):
            axes.plot(epochs, values, style, color=color, label=label, marker="." if len(epochs) < 30 else None)
        axes.set(xlabel="epoch", ylabel=name)
        if logarithmic and min(map(min, series.values())) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.locator_params(axis="x", integer=True)
        if len(series) > 1:
            _legend(axes)
    return chart[0]


def reliability(calibration):
    """Return the reliability diagram as SVG: the accuracy in each bin of confidence, and its gap to the confidence."""
    middles = (calibration.edges[:-1] + calibration.edges[1:]) / 2
    width = 1 / len(middles)
    filled = calibration.counts > 0
    title = f"Reliability diagram with an expected calibration error of {calibration.ece:.4f}"
    with _chart(title) as (axes, chart):
        confidence, accuracy = calibration.confidence[filled], calibration.accuracy[filled]
        axes.bar(middles[filled], accuracy, 0.9 * width, color=_FIRST, alpha=0.6, label="accuracy")
        axes.vlines(confidence, confidence, accuracy, color=_SECOND, linewidth=2.5, label="gap to the confidence")
        axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1, label="no gap")
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        _legend(axes)
    return chart[0]


def confidences(calibration):
    """Return a histogram of the confidence of all predictions as SVG."""
    middles = (calibration.edges[:-1] + calibration.edges[1:]) / 2
    peak = middles[calibration.counts.argmax()]
    with _chart(f"Histogram of confidence with its peak at {peak:.0%}") as (axes, chart):
        axes.bar(middles, calibration.counts, 0.9 / len(middles), color=_FIRST)
        axes.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    return chart[0]


def _legend(axes):
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=3, columnspacing=1)


@contextlib.contextmanager
def _chart(title):
    """Yield the axes to draw on, and a list to which the SVG is appended at the end of the `with` block."""
    chart = []
    with matplotlib("rc_context")(_SETTINGS):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.2), facecolor="none")
        yield figure.add_subplot(facecolor="none"), chart
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    title = html.escape(title)
    head = f'<svg role="img" aria-label="{title}" viewBox="0 0 360 230.4"'
    chart.append(re.sub(r"<svg [^>]*?viewBox=\"[^\"]*\"[^>]*>", f"{head}><title>{title}</title>", text, count=1))


def _summary(series):
    """Return the last value of each line as text."""
    return ", ".join(f"{label} ends at {np.asarray(values)[-1]:.4g}" for label, values in series.items())
