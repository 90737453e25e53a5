"""Write the report of an evaluation as a self-contained HTML file that works offline."""

import base64
import html
import io
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_common.errors import integer, printable
from mobilenet_common.types import PathLike
from mobilenet_common.writing import write_text
from mobilenet_runtime.evaluation import charts
from mobilenet_runtime.evaluation.classification_metrics import confident_mistakes, confused_pairs
from mobilenet_runtime.evaluation.evaluating import Evaluation
from mobilenet_runtime.evaluation.history import read_history
from mobilenet_runtime.images import pillow

_CELLS = 24  # maximum number of classes for a confusion matrix with numbers; more are drawn as an image
_PAIRS = 12
_SMALL = 96  # maximum size in pixels of an image that is embedded losslessly
# Colors of correct and wrong predictions in images, which can't use the page's CSS variables.
_FIRST, _SECOND = (11, 98, 196), (179, 84, 11)


def write_report(
    path: PathLike,
    evaluation: Evaluation,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    overlays: Mapping[int, Any] | None = None,
    facts: Mapping[str, str] | None = None,
    mistakes: int = 12,
) -> Path:
    """Write an evaluation as a self-contained HTML report.

    Args:
        path: Path of the file. Its folder is created if necessary. An existing file is replaced once the new one is
            complete.
        evaluation: The `Evaluation`.
        history: Training history for curves of loss, accuracy and learning rate: one record per epoch, a dictionary of
            lists, or the path of a CSV log. None draws no curves.
        overlays: Heatmaps to show next to the mistakes, `{row of the evaluation: PIL image}`, as
            `mobilenet_zoo.evaluation.heat_on_mistakes` returns them. None for models without gradients, such as
            exported files.
        facts: Facts for the top of the report, `{name: text}`, such as the date, the data or the command.
        mistakes: Number of the most confident mistakes to show, at least 0.

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        ValueError: If an argument is wrong, or if matplotlib or Pillow is not installed.
    """
    path = Path(path)
    integer("mistakes", mistakes, 0)
    facts = {"Model": evaluation.model, "Runtime": evaluation.runtime} | dict(facts or {})
    template = resources.files("mobilenet_runtime.evaluation").joinpath("report.html").read_text("utf-8")
    page = string.Template(template).substitute(
        title=_text(f"{evaluation.model}: evaluation"),
        facts="".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items()),
        figures=_figures(evaluation),
        curves=_curves(history),
        confusion=_confusion(evaluation),
        classes=_classes(evaluation),
        calibration=_calibration(evaluation.metrics.calibration),
        mistakes=_mistakes(evaluation, overlays or {}, mistakes),
        speed=_speed(evaluation),
        damaged=_damaged(evaluation.damaged),
    )
    write_text(path, page)
    return path


def _figures(evaluation):
    metrics = evaluation.metrics
    figures = {"top-1 accuracy": f"{metrics.top1:.2%}"}
    if metrics.top5 is not None:
        figures["top-5 accuracy"] = f"{metrics.top5:.2%}"
    figures |= {
        "log loss (nats)": f"{metrics.log_loss:.4f}",
        "calibration error": f"{metrics.calibration.ece:.4f}",
        "images": f"{len(evaluation.labels):,}",
        "mistakes": f"{len(evaluation.labels) - int(metrics.confusion.trace()):,}",
    }
    return "".join(f"<div><dt>{_text(name)}</dt><dd>{value}</dd></div>" for name, value in figures.items())


def _curves(history):
    records = read_history(history) if history is not None else []
    if not records:
        return ""
    names = dict.fromkeys(name for record in records for name in record)
    plotted = [name for name in names if f"val_{name}" in names or name in ("loss", "accuracy", "learning_rate")]
    drawn = []
    for name in plotted:
        logged = [record for record in records if name in record]
        pairs = {"training": name, "validation": f"val_{name}"}
        series = {label: [r.get(key, np.nan) for r in logged] for label, key in pairs.items() if key in names}
        title = name.replace("_", " ")
        drawn.append(charts.curves([record["epoch"] for record in logged], series, title, name == "learning_rate"))
    return _section("Training", _side_by_side(drawn))


def _confusion(evaluation):
    names, matrix = evaluation.class_names, evaluation.metrics.confusion
    fractions = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    note = "<p>Rows are true classes, columns are predicted classes. The color shows the fraction of the row.</p>"
    if len(names) <= _CELLS:
        drawn = _confusion_table(names, matrix, fractions)
    else:
        description = (
            f"Confusion matrix of {len(names)} classes: correct predictions on the diagonal in blue, mistakes in orange"
        )
        drawn = f'<img class="matrix" src="{_embedded(_heat_map(fractions))}" alt="{description}">'
        note += "<p>Classes are in the order of the table below.</p>"
    pairs = confused_pairs(matrix, _PAIRS)
    if pairs:
        rows = [(_text(names[a]), _text(names[b]), count, f"{fractions[a, b]:.1%}") for a, b, count in pairs]
        heads = ("true class", "predicted class", "images", "of the true class")
        drawn += "<h3>Most frequent mistakes</h3>" + _table(heads, rows, words=2)
    return _section("Confusions", note + drawn)


def _confusion_table(names, matrix, fractions):
    head = "".join(f'<th scope="col"><span>{_text(name)}</span></th>' for name in names)
    lines = []
    for i, name in enumerate(names):
        cells = []
        for j, (count, fraction) in enumerate(zip(matrix[i], fractions[i], strict=True)):
            kind = "right" if i == j else "wrong"
            cells.append(f'<td class="{kind}" style="--share: {fraction:.3f}">{count or ""}</td>')
        lines.append(f'<tr><th scope="row">{_text(name)}</th>{"".join(cells)}</tr>')
    caption = "<caption>Images by true class (rows) and predicted class (columns)</caption>"
    content = f"{caption}<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll" tabindex="0"><table class="confusion">{content}</table></div>'


def _heat_map(fractions):
    """Return an image of the confusion matrix, transparent where it is 0 to suit both light and dark pages."""
    colors = np.where(np.eye(len(fractions), dtype=bool)[..., None], _FIRST, _SECOND)
    alpha = 255 * np.sqrt(fractions)[..., None]  # the root makes rare mistakes visible
    pixels = np.concatenate([colors, alpha], -1).round().astype("uint8")
    scale = max(1, 800 // len(fractions))
    return pillow("Image").fromarray(pixels.repeat(scale, 0).repeat(scale, 1))


def _classes(evaluation):
    metrics = evaluation.metrics
    columns = (evaluation.class_names, metrics.support, metrics.precision, metrics.recall, metrics.f1)
    rows = [(_text(name), f"{n:,}", *map(_percent, rest)) for name, n, *rest in zip(*columns, strict=True)]
    heads = ("class", "images", "precision", "recall", "F1")
    return _section("Classes", _table(heads, rows, words=1, sortable=True))


def _calibration(calibration):
    description = (
        f"<p>The expected calibration error is {calibration.ece:.4f}: the mean distance between confidence and "
        f"accuracy over {len(calibration.counts)} bins (Guo et al., 2017). The model is overconfident where bars end "
        "below the dashed line.</p>"
    )
    drawn = [charts.reliability(calibration), charts.confidences(calibration)]
    return _section("Calibration", description + _side_by_side(drawn))


def _mistakes(evaluation, overlays, count):
    shown = []
    for row in confident_mistakes(evaluation.probabilities, evaluation.labels, count).tolist():
        index = int(evaluation.indices[row])
        name = _text(evaluation.examples.name_of(index))
        values = evaluation.probabilities[row]
        true, predicted = (_text(evaluation.class_names[i]) for i in (evaluation.labels[row], values.argmax()))
        image = evaluation.transform.pixels(evaluation.examples.images[index])
        images = f'<img src="{_embedded(image)}" alt="An image of {true} that was classified as {predicted}">'
        if row in overlays:
            images += f'<img src="{_embedded(overlays[row])}" alt="A heatmap of the evidence for {predicted}">'
        shown.append(
            f'<figure><div class="pair">{images}</div><figcaption><b>{predicted}</b>, {values.max():.1%}<br>truth: '
            f"{true}, {values[evaluation.labels[row]]:.1%}<br><small>{name}</small></figcaption>"
            "</figure>"
        )
    if not shown:
        return ""
    heat = (
        " The heatmap next to each, on the whole image, shows the evidence for the wrong class (Grad-CAM, Selvaraju et "
        "al., 2017). Parts that the model did not see are dimmed."
        if overlays
        else ""
    )
    note = f"<p>Images as the model saw them, the most confident mistakes first.{heat}</p>"
    return _section("Most confident mistakes", f'{note}<div class="mistakes">{"".join(shown)}</div>')


def _speed(evaluation):
    speed, costs = evaluation.speed, dict(evaluation.costs)
    rows = []
    if speed is not None:
        unit = "one image" if speed.latency_batch == 1 else f"a batch of {speed.latency_batch}"
        rows += [
            ("images per second, from disk to prediction", f"{speed.images_per_second:,.1f}"),
            (f"latency of {unit}, median", f"{speed.latency_ms:,.2f} ms"),
        ]
        if speed.peak_memory_mb is not None:
            rows.append(("peak memory of the process", f"{speed.peak_memory_mb:,.0f} MB"))
    if "bytes" in costs:
        rows.append(("size of the file", f"{costs.pop('bytes') / 1e6:,.2f} MB"))
    names = {"macs": "multiply-accumulates per image"}
    rows += [(_text(names.get(name, name)), f"{value:,}") for name, value in costs.items()]
    return _section("Speed and size", _table(("figure", "value"), rows, words=1)) if rows else ""


def _damaged(errors):
    if not errors:
        return ""
    items = "".join(f"<li>{_text(error)}</li>" for error in errors)
    note = f"<p>These images could not be read and are excluded from all metrics ({len(errors)} in total).</p>"
    return _section("Skipped images", f"{note}<ul>{items}</ul>")


def _section(title, body):
    return f"<section><h2>{title}</h2>{body}</section>"


def _side_by_side(drawn):
    return f'<div class="charts">{"".join(drawn)}</div>'


def _table(heads, rows, words, sortable=False):
    """Return a table of escaped cells, with text in the first `words` columns and numbers in the others."""
    head = "".join(f'<th scope="col"{"" if i < words else _NUMBER}>{head}</th>' for i, head in enumerate(heads))
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td{'' if i < words else _NUMBER}>{cell}</td>" for i, cell in enumerate(rest, 1))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    kind = ' class="sortable"' if sortable else ""
    table = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


_NUMBER = ' class="number"'


def _percent(value):
    return "–" if np.isnan(value) else f"{value:.1%}"


def _embedded(image):
    file = io.BytesIO()
    is_lossless = max(image.size) <= _SMALL or image.mode == "RGBA"
    image.save(file, "PNG") if is_lossless else image.convert("RGB").save(file, "JPEG", quality=85)
    return f"data:image/{'png' if is_lossless else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(value):
    return html.escape(printable(value))
