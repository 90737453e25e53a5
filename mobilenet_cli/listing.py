"""`list`, `info` and `plot`: show the available weights and architectures."""

import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from mobilenet_cli.constants import figures, matching, registry, weights
from mobilenet_cli.output import messages, print_json
from mobilenet_common.errors import ArgumentError, did_you_mean, number, unknown_name
from mobilenet_common.foreign import without_hub
from mobilenet_common.libraries import import_library

_CALLS = {generation: f"create_mobilenet{generation}" for generation in ("v1", "v2", "v3", "v4")}


class Order(StrEnum):
    """Values of `--sort`."""

    NAME = "name"
    ACCURACY = "accuracy"
    MACS = "macs"
    PARAMETERS = "parameters"
    SIZE = "size"


@dataclasses.dataclass(frozen=True)
class Row:
    """Published weights at the image size with their highest accuracy."""

    name: str
    generation: str
    source: str
    size: int
    top1: float | None
    top5: float | None
    macs: int
    parameters: int
    labels: str


def rows():
    """Return one `Row` for each name in the published weights."""
    table_rows = []
    for name, checkpoint in weights().items():
        evaluation = checkpoint.best or checkpoint.evaluations[0]
        costs = figures()[name, evaluation.size]
        table_rows.append(
            Row(
                name,
                _generation(name),
                checkpoint.source,
                evaluation.size,
                evaluation.top1,
                evaluation.top5,
                costs.macs,
                costs.parameters,
                checkpoint.labels,
            )
        )
    return table_rows


def list_weights(
    pattern: Annotated[
        str, typer.Argument(help="Part of a name, such as `v4`, or a shell pattern, such as `'*v4*'`.")
    ] = "",
    generation: Annotated[
        list[str] | None, typer.Option("--generation", "-g", help="Generation: v1, v2, v3 or v4; may be repeated.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Source of the weights: timm, keras or torchvision.")] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Minimum top-1 accuracy on ImageNet-1k, in percent.")
    ] = None,
    max_macs: Annotated[float | None, typer.Option(help="Maximum multiply-accumulates, in millions.")] = None,
    max_parameters: Annotated[float | None, typer.Option(help="Maximum number of parameters, in millions.")] = None,
    max_size: Annotated[int | None, typer.Option(help="Maximum image size, in pixels.")] = None,
    sort: Annotated[
        Order, typer.Option(help="Sort key. Accuracy sorts in descending order, all others in ascending order.")
    ] = Order.NAME,
    architectures: Annotated[
        bool, typer.Option(help="List all architectures, with or without published weights.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published weights, each at the image size with its highest accuracy.

    `mobilenet-zoo list v4 --max-macs 1000 --sort accuracy`
    """
    allowed = {"generation": list(_CALLS), "source": sorted({checkpoint.source for checkpoint in weights().values()})}
    for option, given in (("generation", generation or []), ("source", [source] if source else [])):
        for value in given:
            if value not in allowed[option]:
                raise unknown_name(f"--{option}", value, allowed[option])
    limits = ((max_macs, "macs", 1e6), (max_parameters, "parameters", 1e6), (max_size, "size", 1))
    for maximum, field, _ in limits:
        if maximum is not None:
            number(f"--max-{field}", maximum, 0, math.inf)
    if min_accuracy is not None:
        number("--min-accuracy", min_accuracy, 0, 100)
    if architectures:
        for option, value in (("--source", source), ("--min-accuracy", min_accuracy), ("--max-size", max_size)):
            if value is not None:
                raise ArgumentError(f"{option} is for published weights: leave it out, or leave out --architectures.")
        if sort in (Order.ACCURACY, Order.SIZE):
            raise ArgumentError(f"--sort={sort} is for published weights: sort --architectures by macs or parameters.")
        return _list_architectures(pattern, generation, limits[:2], sort, json)
    names = set(matching(weights(), pattern))
    selected = [
        row
        for row in rows()
        if row.name in names
        and (not generation or row.generation in generation)
        and (source is None or row.source == source)
        and (min_accuracy is None or (row.top1 or 0) >= min_accuracy)
        and all(maximum is None or getattr(row, field) <= maximum * unit for maximum, field, unit in limits)
    ]
    keys = {Order.ACCURACY: lambda row: (-(row.top1 or 0), row.macs), Order.NAME: lambda row: row.name}
    selected.sort(key=keys.get(sort, lambda row: (getattr(row, sort.value), row.name)))
    if json:
        return print_json([dataclasses.asdict(row) for row in selected])
    if not selected:
        return _report_no_match("published weights", "mobilenet-zoo list", pattern, weights())
    Console().print(_table(selected))


def _table(table_rows):
    """Return a table that fits the terminal. Narrow terminals get only the most important columns."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("weights", no_wrap=True, overflow="ellipsis", min_width=30)
    columns = {
        "size": lambda row: str(row.size),
        "top-1": lambda row: _percent(row.top1),
        "MACs (M)": lambda row: f"{row.macs / 1e6:,.0f}",
        "params (M)": lambda row: f"{row.parameters / 1e6:.2f}",
        "top-5": lambda row: _percent(row.top5),
        "source": lambda row: row.source,
    }
    shown, remaining = [], console.width - max(len(row.name) for row in table_rows)
    for title, cell in columns.items():
        remaining -= 2 + max(len(title), *(len(cell(row)) for row in table_rows))
        if remaining >= 0 or len(shown) < 3:
            shown.append(title)
    for title in shown:
        table.add_column(title, justify="left" if title == "source" else "right", no_wrap=True)
    for row in table_rows:
        table.add_row(escape(row.name), *(columns[title](row) for title in shown))
    return table


def _percent(value):
    return "" if value is None else f"{value:.1f}"


def _report_no_match(what, command, pattern, names):
    hint = did_you_mean(pattern, list(names)) if pattern else ""
    messages.print(f"No {what} match.{hint} Widen the filters, or list all with: {command}", soft_wrap=True)


def _list_architectures(pattern, generations, limits, sort, json):
    names = [
        name
        for name in matching(registry(), pattern)
        if (not generations or registry()[name].generation in generations)
        and all(
            maximum is None or getattr(figures()[name, 224], field) <= maximum * unit for maximum, field, unit in limits
        )
    ]
    if sort != Order.NAME:
        names.sort(key=lambda name: getattr(figures()[name, 224], sort.value))
    published = {name: [weight for weight in weights() if weight.partition(".")[0] == name] for name in names}
    if json:
        return print_json(
            [{"name": name, "weights": published[name], **figures()[name, 224]._asdict()} for name in names]
        )
    if not names:
        return _report_no_match("architectures", "mobilenet-zoo list --architectures", pattern, registry())
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("architecture", no_wrap=True)
    for title in ("params (M)", "MACs at 224 (M)", "weights"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in names:
        costs = figures()[name, 224]
        cells = (f"{costs.parameters / 1e6:.2f}", f"{costs.macs / 1e6:,.0f}", str(len(published[name]) or ""))
        table.add_row(name, *cells)
    Console().print(table)


def info(
    name: Annotated[
        str, typer.Argument(help="Published weights such as mobilenetv2_100.ra_in1k, or a model name without a tag.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all metadata of published weights or of a model, and the code that loads it."""
    name = without_hub(name)
    base = name.partition(".")[0]
    if name in weights():
        record, lines = _weights_record(name), _loading_lines(name)
    elif base == name and name in registry():
        record, lines = _model_record(name), [f'model = mobilenet_zoo.create_model("{name}")']
    else:
        raise unknown_name("NAME", name, [*registry(), *weights()], "`mobilenet-zoo list [--architectures]`")
    if json:
        return print_json(record)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in record.items():
        if value not in (None, [], ""):
            table.add_row(key.replace("_", " "), escape(_format_value(value)))
    console = Console()
    console.print(table)
    console.print()
    code = "\n".join(["import mobilenet_zoo", "", *lines])
    # Print plain text, because a Syntax object is cut off at the width of the terminal.
    console.print(Syntax("", "python", background_color="default").highlight(code), soft_wrap=True, end="")


def _format_value(value):
    if isinstance(value, list):
        return (", " if isinstance(value[0], float) else "\n").join(_format_value(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_value(part)}" for key, part in value.items() if part is not None)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _weights_record(name):
    checkpoint = weights()[name]
    evaluations = []
    for evaluation in checkpoint.evaluations:
        costs = figures()[name, evaluation.size]
        scores = {"top1": evaluation.top1, "top5": evaluation.top5}
        evaluations.append({"size": evaluation.size, "crop": evaluation.crop, **scores, "macs": costs.macs})
    return {
        "name": name,
        "generation": _generation(name),
        "variant": checkpoint.variant,
        "width": checkpoint.width,
        "parameters": figures()[name, checkpoint.input_size].parameters,
        "evaluations": evaluations,
        "interpolation": checkpoint.interpolation,
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "padding": checkpoint.padding,
        "norm_epsilon": checkpoint.norm_epsilon,
        "classes": checkpoint.num_classes,
        "labels": checkpoint.labels,
        "source": checkpoint.source,
        "repository": checkpoint.repository,
        "file": checkpoint.file,
        "license": checkpoint.license,
        "paper": checkpoint.paper,
        "citation": checkpoint.citation,
        "scores_from": checkpoint.scores_from,
    }


def _loading_lines(name):
    checkpoint, generation = weights()[name], _generation(name)
    arguments = [f'"{checkpoint.variant}"', f'weights="{checkpoint.tag}"']
    if checkpoint.width != 1:
        arguments.insert(1, f"width_multiplier={checkpoint.width:g}")
    function = _CALLS[generation]
    return [
        f'model = mobilenet_zoo.create_model("{name}")',
        'images = mobilenet_zoo.preprocessing(model)(["image.jpg"])',
        "mobilenet_zoo.decode_predictions(model.predict(images))"
        if checkpoint.num_classes == 1000
        else "outputs = model.predict(images)",
        "",
        "# Or with the create function of its generation:",
        f"from mobilenet_{generation} import {function}",
        f"model = {function}({', '.join(arguments)})",
    ]


def _model_record(name):
    entry = registry()[name]
    costs = figures()[name, 224]
    return {
        "name": name,
        "generation": entry.generation,
        "parameters": costs.parameters,
        "macs_at_224": costs.macs,
        **{key: value for key, value in entry.options.items()},
        "weights": [weight for weight in weights() if weight.partition(".")[0] == name],
    }


def _generation(name):
    return registry()[name.partition(".")[0]].generation


def plot(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File of the plot, written as .png and as .svg.")
    ] = Path("mobilenets.png"),
) -> None:
    """Plot accuracy against multiply-accumulates and parameters, with one color per generation."""
    import_library("matplotlib", "cli", "plot")
    from mobilenet_cli.drawing import draw

    scored = [row for row in rows() if row.top1 is not None]
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in draw(scored, output):
        print(path)
