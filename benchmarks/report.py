"""Results of the benchmarks as JSON, Markdown tables and plots."""

import json

from benchmarks import goals

COLORS = {"keras.applications": "#4477aa", "zeromodels": "#228833", "timm": "#ee6677", "ours, fused": "#ccbb44"}


def write_report(results, folder):
    """Write `results.json`, `tables.md` and, if matplotlib is installed, the plots to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    (folder / "tables.md").write_text(tables(results))
    plot_ratios(results, folder / "ratios.png")
    plot_growth(results, folder / "growth.png")


def tables(results):
    """Return the results as Markdown: the machine, the goals, one table per backend and mode, and the growth."""
    lines = [machine_line(results["machine"]), "", f"Command: `{results['command']}`", ""]
    header, *rows = goal_table(results)
    if rows:
        lines += ["### Goals", "", *map(_line, [header, ["---"] * len(header), *rows]), ""]
    for (backend, mode), rows in _by_mode(_comparisons(results)).items():
        lines += [f"### {backend}, {mode}", ""]
        lines += ["| model | measure | ours | memory | against | peer's time / ours | memory |"]
        lines += ["|---|---|---:|---:|---|---:|---:|"]
        for row in rows:
            lines += _comparison_lines(row)
        lines.append("")
    growth = [row for row in results["rows"] if "axis" in row]
    if growth:
        lines += ["### Growth", "", "| backend | axis | value | ms | memory | fraction of the matrix product's rate |"]
        lines += ["|---|---|---:|---:|---:|---:|"]
        for row in growth:
            ours = row["contenders"]["ours"]
            rate = results["matrix_product_rate"][row["backend"]]
            fraction = row["macs"] / (ours["ms"] / 1e3) / rate
            values = [row["backend"], row["axis"], row["value"], f"{ours['ms']:.1f}", _memory(ours), f"{fraction:.0%}"]
            lines.append(_line(values))
        lines.append("")
    return "\n".join(lines)


def goal_table(results):
    """Return the table of the goals as rows of strings, header first. A cell has the lowest and the highest ratio."""
    rows = [["ours, peer", *(f"{measure}, batch {batch}" for measure, batch in goals.MEASURES)]]
    for goal, cells in goals.outcome(_comparisons(results)):
        rows.append([goal.name, *map(_goal_cell, cells)])
    return rows


def _goal_cell(cell):
    if cell is None:
        return ""
    (low, slowest), (high, fastest) = cell["lowest"], cell["highest"]
    span = f"{low:.2f} ({_model(slowest)})"
    if fastest != slowest:
        span += f" to {high:.2f} ({_model(fastest)})"
    return f"{span}; goal {cell['goal']:g}"


def _model(name):
    return name.removeprefix("mobilenet")


def _line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def machine_line(machine):
    """Return a sentence with the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; {versions}."


def _comparison_lines(row):
    contenders = row["contenders"]
    ours = contenders["ours"]
    measure = f"{row['measure']}, batch {row['batch']}"
    first = [row["model"], measure, f"{ours['ms']:.1f} ms", _memory(ours)]
    lines = []
    for name, peer in contenders.items():
        if name == "ours":
            continue
        factor = f"**{peer['ratio']:.2f}** ({peer['low']:.2f} to {peer['high']:.2f})"
        values = [*first, name, factor, _memory(peer)]
        lines.append(_line(values))
        first = ["", "", "", ""]
    return lines or [_line([*first, "", "", ""])]


def _memory(contender):
    return "" if contender.get("memory") is None else f"{contender['memory']:.0f} MiB"


def plot_ratios(results, path):
    """Plot each peer's time divided by ours, with one panel per backend and mode."""
    pyplot = _pyplot()
    groups = _by_mode(_comparisons(results))
    if pyplot is None or not groups:
        return
    labels = list(dict.fromkeys(_label(row) for rows in groups.values() for row in rows))
    size = (1.6 + 2.7 * len(groups), 0.26 * len(labels) + 1.6)
    figure, axes = pyplot.subplots(1, len(groups), figsize=size, squeeze=False, sharey=True)
    for axis, ((backend, mode), rows) in zip(axes[0], groups.items(), strict=True):
        for name, color in COLORS.items():
            points = [(labels.index(_label(row)), row["contenders"][name]) for row in rows if name in row["contenders"]]
            if not points:
                continue
            positions, peers = zip(*points, strict=True)
            ratios = [peer["ratio"] for peer in peers]
            spread = [
                [max(0.0, peer["ratio"] - peer["low"]) for peer in peers],
                [max(0.0, peer["high"] - peer["ratio"]) for peer in peers],
            ]
            axis.errorbar(ratios, positions, xerr=spread, fmt="o", color=color, label=name, markersize=4, linewidth=1)
        axis.axvline(1.0, color="0.3", linewidth=1)
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        _plain_ticks(axis.xaxis, [tick for tick in (0.25, 0.5, 0.7, 1, 1.4, 2, 3, 5, 7, 10, 15) if low <= tick <= high])
        axis.set_title(f"{backend}, {mode}", fontsize=10)
        axis.set_xlabel("time / ours")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(labels)), labels, fontsize=7)
    axes[0][0].invert_yaxis()
    handles = {}
    for axis in axes[0]:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_growth(results, path):
    """Plot time and memory over batch, image size and width. Dashed: time of a matrix product with the same MACs."""
    pyplot = _pyplot()
    rows = [row for row in results["rows"] if "axis" in row]
    if pyplot is None or not rows:
        return
    names = list(dict.fromkeys(row["axis"] for row in rows))
    figure, axes = pyplot.subplots(2, len(names), figsize=(3.8 * len(names), 6), squeeze=False)
    colors = {"jax": "#4477aa", "torch": "#ee6677", "tensorflow": "#ccbb44"}
    for column, name in enumerate(names):
        for backend in dict.fromkeys(row["backend"] for row in rows):
            backend_rows = [row for row in rows if row["axis"] == name and row["backend"] == backend]
            values = [row["value"] for row in backend_rows]
            ours = [row["contenders"]["ours"] for row in backend_rows]
            rate = results["matrix_product_rate"][backend]
            color = colors[backend]
            axes[0][column].plot(values, [row["ms"] for row in ours], "o-", color=color, label=backend, markersize=3)
            limit = [1e3 * row["macs"] / rate for row in backend_rows]
            axes[0][column].plot(values, limit, "--", color=color, linewidth=1)
            if all(row.get("memory") is not None for row in ours):
                axes[1][column].plot(values, [row["memory"] for row in ours], "o-", color=color, markersize=3)
        for axis, label in zip((axes[0][column], axes[1][column]), ("ms", "MiB"), strict=True):
            axis.set_xscale("log", base=2)
            _plain_ticks(axis.xaxis, sorted({row["value"] for row in rows if row["axis"] == name}))
            axis.tick_params(axis="x", labelsize=7)
            axis.set_yscale("log" if label == "ms" else "linear")
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(f"{rows[0]['model']}: {name}", fontsize=9)
        axes[1][column].set_xlabel(name)
    axes[0][0].plot([], [], "--", color="0.5", linewidth=1, label="a matrix product with the same MACs")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _comparisons(results):
    return [row for row in results["rows"] if "axis" not in row]


def _by_mode(rows):
    groups = {}
    for row in rows:
        groups.setdefault((row["backend"], row["mode"]), []).append(row)
    return groups


def _label(row):
    return f"{_model(row['model'])}, {'train' if row['measure'] == 'training' else 'infer'} {row['batch']}"


def _plain_ticks(axis, values):
    """Set the ticks to `values`, formatted as plain numbers."""
    axis.set_major_locator(_ticker().FixedLocator(values))
    axis.set_major_formatter(_ticker().FormatStrFormatter("%g"))
    axis.set_minor_locator(_ticker().NullLocator())


def _ticker():
    from matplotlib import ticker

    return ticker


def _pyplot():
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
