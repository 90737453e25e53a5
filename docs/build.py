"""Regenerate what the manual does not write by hand: the tables of variants and the picture of the blocks.

Usage: python docs/build.py            writes docs/variants.md, the README's table and docs/images/blocks.{png,svg}
       python docs/build.py --check    writes nothing; exits 1 if a table is out of date
"""

import argparse
import re
import sys
from pathlib import Path

import mobilenet_v1
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
import mobilenet_zoo

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"

GENERATIONS = (
    ("V1", "create_mobilenetv1", mobilenet_v1),
    ("V2", "create_mobilenetv2", mobilenet_v2),
    ("V3", "create_mobilenetv3", mobilenet_v3),
    ("V4", "create_mobilenetv4", mobilenet_v4),
)


# --- the tables ----------------------------------------------------------------------------------------------------


def profiles():
    """`{(generation, variant): (profile at 224, profile at 64)}`, in the order of the tables."""
    found = {}
    for generation, function, module in GENERATIONS:
        create = getattr(module, function)
        for variant in module.VARIANTS:
            model = create(variant, input_shape=(None, None, 3))
            full, small = (mobilenet_zoo.profile(model, (size, size, 3)) for size in (224, 64))
            found[generation, variant] = (full, small)
    return found


def is_compact(variant):
    """Whether a variant is of the compact family, whose pictures are small."""
    return variant.startswith("compact_")


def table(header, rows):
    """A Markdown table; the columns whose header ends in `:` are aligned to the right."""
    rule = ["---:" if name.endswith(":") else "---" for name in header]
    lines = [[name.rstrip(":") for name in header], rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def millions(count):
    """`827,649,984` as `827.6 M`."""
    return f"{count / 1e6:,.1f} M"


def mebibytes(size):
    """Bytes as MiB with two digits after the point."""
    return f"{size / 2**20:.2f} MiB"


def readme_table(found):
    """The README's table: V1 to V4 at 224×224, then the compact family at 64×64."""
    published, compact = [], []
    for (generation, variant), (full, small) in found.items():
        row = [generation, f'`"{variant}"`', f"`{full.model}`", f"{full.parameters:,}"]
        if is_compact(variant):
            compact.append([*row, millions(small.macs)])
        else:
            published.append([*row, millions(full.macs)])
    columns = ("generation", "variant", "name", "parameters:")
    return "\n\n".join(
        (
            table((*columns, "MACs at 224×224:"), published),
            "The compact family of V4 is made for small images:",
            table((*columns, "MACs at 64×64:"), compact),
        )
    )


def variants_tables(found):
    """The tables of docs/variants.md, one a generation and one for the compact family."""
    parts = []
    for generation, function, _ in GENERATIONS:
        rows = [
            [
                f'`"{variant}"`',
                f"`{full.model}`",
                f"{full.parameters:,}",
                f"{full.statistics:,}",
                f"{full.macs:,}",
                mebibytes(full.peak_activation_bytes),
            ]
            for (owner, variant), (full, _) in found.items()
            if owner == generation and not is_compact(variant)
        ]
        header = ("variant", "name", "parameters:", "statistics:", "MACs at 224×224:", "peak activations:")
        parts += [f"## {generation}: `{function}`", table(header, rows)]
    rows = [
        [
            f'`"{variant}"`',
            f"`{full.model}`",
            f"{full.parameters:,}",
            f"{full.statistics:,}",
            f"{small.macs:,}",
            mebibytes(small.peak_activation_bytes),
            f"{full.macs:,}",
            mebibytes(full.peak_activation_bytes),
        ]
        for (_, variant), (full, small) in found.items()
        if is_compact(variant)
    ]
    header = ["variant", "name", "parameters:", "statistics:"]
    for size in ("64×64", "224×224"):
        header += [f"MACs at {size}:", f"peak activations at {size}:"]
    parts += ["## V4's compact family: `create_mobilenetv4`", table(header, rows)]
    return "\n\n".join(parts)


def with_tables(path, text):
    """The content of `path` with `text` between its markers."""
    begin, end = "<!-- begin: docs/build.py -->", "<!-- end: docs/build.py -->"
    content = path.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        raise SystemExit(f"{path.relative_to(ROOT)} must hold the markers {begin} and {end}, each once.")
    pattern = re.compile(re.escape(begin) + ".*" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", content)


# --- the picture of the blocks -------------------------------------------------------------------------------------

# Kinds of operation: fill, edge.
POINTWISE = ("#d6e6f7", "#3f78b5")
DEPTHWISE = ("#fde3c4", "#c97a1c")
DENSE = ("#e3daf3", "#7a5bb0")
EXCITE = ("#d5eed9", "#3d8f50")
ATTENTION = ("#f9d5da", "#b9475b")
NORM = ("#eceef1", "#7b8490")
INK, QUIET = "#20262e", "#5c6672"

NARROW, WIDE, HEIGHT = 100, 128, 38  # of boxes: a block's own channels are narrow, expanded ones wide


class Canvas:
    """A page measured in pixels that is drawn on from the top left."""

    def __init__(self, width, height):
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width / 100, height / 100), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()

    def text(self, x, y, text, size=8.5, color=INK, **options):
        """Words centred on a point."""
        self.axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "color": color, **options})

    def panel(self, x, y, width, height, title, subtitle):
        """A frame with a heading."""
        self._rounded(x, y, width, height, "#fafbfc", "#d5dae1", 8, zorder=1)
        self.text(x + width / 2, y + 18, title, 10, weight="bold")
        self.text(x + width / 2, y + 37, subtitle, 8, QUIET)

    def box(self, x, y, label, detail, kind, width=NARROW, height=HEIGHT):
        """An operation, centred on a point."""
        self._rounded(x - width / 2, y - height / 2, width, height, *kind, 5)
        self.text(x, y - 8 if detail else y, label, 7.9)
        self.text(x, y + 8, detail, 6.9, QUIET)

    def swatch(self, x, y, kind):
        """A sample of a kind's colours for the legend."""
        self._rounded(x, y - 7, 17, 14, *kind, 3)

    def line(self, *points):
        """An arrow through points."""
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=QUIET, lw=1.1, zorder=2, solid_joinstyle="round")
        style = {"arrowstyle": "-|>", "color": QUIET, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
        self.axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=style, zorder=2)

    def node(self, x, y, sign):
        """A round node that adds or multiplies."""
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, y), 9, fc="white", ec=QUIET, lw=1.1, zorder=3))
        arms = ((4, 0), (0, 4)) if sign == "+" else ((3, 3), (3, -3))
        for right, down in arms:
            self.axes.plot((x - right, x + right), (y - down, y + down), color=QUIET, lw=1.3, zorder=4)

    def _rounded(self, x, y, width, height, fill, edge, radius, zorder=3):
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={radius}"
        patch = FancyBboxPatch((x, y), width, height, boxstyle=style, fc=fill, ec=edge, lw=1.1, zorder=zorder)
        self.axes.add_patch(patch)


def draw_path(canvas, x, entry, steps, end, shortcut=None):
    """Boxes `(y, label, detail, kind, width, height)` one under the other, from the input to the output.

    `shortcut` is how far to the left the way round the boxes runs; without one there is none.
    """
    canvas.text(x, entry, "input", 7.5, QUIET)
    last = entry + 8
    for y, label, detail, kind, width, *height in steps:
        height = height[0] if height else HEIGHT
        canvas.line((x, last), (x, y - height / 2))
        canvas.box(x, y, label, detail, kind, width, height)
        last = y + height / 2
    draw_end(canvas, x, entry, last, end, shortcut)


def draw_end(canvas, x, entry, last, end, shortcut):
    """The sum with the input, where there is a shortcut, and the output."""
    if shortcut is not None:
        canvas.line((x, last), (x, end - 9))
        side = x - shortcut
        canvas.line((x, entry + 14), (side, entry + 14), (side, end), (x - 9, end))
        canvas.node(x, end, "+")
        last = end + 9
    canvas.line((x, last), (x, end + 25))
    canvas.text(x, end + 33, "output", 7.5, QUIET)


def draw_blocks():
    """The blocks of the four generations as one picture."""
    canvas = Canvas(900, 890)
    _draw_legend(canvas, 22)
    _draw_first_row(canvas, 44)
    _draw_universal(canvas, 436)
    _draw_attention(canvas, 436)
    canvas.text(
        450,
        868,
        "Narrow boxes: the block's own channels; wide boxes: expanded channels. BN: batch normalisation. "
        "The sum is there where stride and channels allow it.",
        7.6,
        QUIET,
    )
    return canvas.figure


def _draw_legend(canvas, y):
    from matplotlib.textpath import TextPath

    kinds = {
        "1×1 convolution": POINTWISE,
        "depthwise convolution": DEPTHWISE,
        "full convolution": DENSE,
        "squeeze-and-excitation": EXCITE,
        "attention product": ATTENTION,
        "normalisation": NORM,
    }
    widths = [TextPath((0, 0), words, size=8).get_extents().width * 100 / 72 for words in kinds]
    gap = (880 - 24 * len(kinds) - sum(widths)) / (len(kinds) - 1)
    x = 10
    for (words, kind), width in zip(kinds.items(), widths, strict=True):
        canvas.swatch(x, y, kind)
        canvas.text(x + 24, y, words, 8, ha="left")
        x += 24 + width + gap


def _draw_first_row(canvas, top):
    expand, depthwise, squeeze, project, end = (top + y for y in (106, 162, 220, 282, 330))
    entry, height = top + 62, 380
    canvas.panel(10, top, 186, height, "MobileNet V1", "depthwise separable")
    draw_path(
        canvas,
        103,
        entry,
        [
            (depthwise, "depthwise 3×3", "BN, ReLU6", DEPTHWISE, NARROW),
            (project, "1×1", "BN, ReLU6", POINTWISE, NARROW),
        ],
        end,
    )
    canvas.panel(206, top, 206, height, "MobileNet V2", "inverted residual")
    draw_path(
        canvas,
        319,
        entry,
        [
            (expand, "1×1 expand", "BN, ReLU6", POINTWISE, WIDE),
            (depthwise, "depthwise 3×3", "BN, ReLU6", DEPTHWISE, WIDE),
            (project, "1×1 project", "BN", POINTWISE, NARROW),
        ],
        end,
        shortcut=84,
    )
    canvas.panel(422, top, 266, height, "MobileNet V3", "with squeeze-and-excitation (k: 3 or 5)")
    x = 531
    draw_path(
        canvas,
        x,
        entry,
        [
            (expand, "1×1 expand", "BN, hard-swish", POINTWISE, WIDE),
            (depthwise, "depthwise k×k", "BN, hard-swish", DEPTHWISE, WIDE),
            (project, "1×1 project", "BN", POINTWISE, NARROW),
        ],
        end,
        shortcut=84,
    )
    canvas.box(x + 92, squeeze, "", "", EXCITE, 106, 62)
    for line, words in zip((-18, 0, 18), ("mean over space", "1×1, ReLU", "1×1, hard sigmoid"), strict=True):
        canvas.text(x + 92, squeeze + line, words, 7.2)
    canvas.line((x, squeeze - 20), (x + 39, squeeze - 20))
    canvas.line((x + 39, squeeze + 20), (x + 9, squeeze + 20))
    canvas.node(x, squeeze + 20, "×")
    canvas.panel(698, top, 192, height, "MobileNet V4", "fused inverted bottleneck")
    draw_path(
        canvas,
        803,
        entry,
        [
            ((expand + depthwise) / 2, "3×3 expand", "BN, ReLU", DENSE, WIDE, HEIGHT + depthwise - expand),
            (project, "1×1 project", "BN", POINTWISE, NARROW),
        ],
        end,
        shortcut=84,
    )


def _draw_universal(canvas, top):
    canvas.panel(10, top, 556, 412, "MobileNet V4", "universal inverted bottleneck: one block, four shapes (k: 3 or 5)")
    start, expand, middle, project, end = (top + y for y in (140, 194, 248, 302, 352))
    outer, wide = 96, 112
    steps = {
        "start": (start, "depthwise k×k", "BN", DEPTHWISE, outer),
        "expand": (expand, "1×1 expand", "BN, ReLU", POINTWISE, wide),
        "middle": (middle, "depthwise k×k", "BN, ReLU", DEPTHWISE, wide),
        "project": (project, "1×1 project", "BN", POINTWISE, outer),
    }
    for i, (name, places) in enumerate(
        {
            "IB": ("expand", "middle", "project"),
            "ConvNext-like": ("start", "expand", "project"),
            "ExtraDW": ("start", "expand", "middle", "project"),
            "FFN": ("expand", "project"),
        }.items()
    ):
        x = 90 + 136 * i
        canvas.text(x, top + 68, name, 9, weight="bold")
        draw_path(canvas, x, top + 92, [steps[place] for place in places], end, shortcut=65)


def _draw_attention(canvas, top):
    canvas.panel(576, top, 314, 412, "MobileNet V4", "Mobile MQA: multi-query attention")
    entry = top + 62
    norm, down, project, attend, output, end = (top + y for y in (106, 162, 212, 262, 312, 352))
    x, apart = 738, 97
    key, value = x, x + apart
    query = x - apart
    side = 92
    canvas.text(x, entry, "input", 7.5, QUIET)
    canvas.line((x, entry + 8), (x, norm - 13))
    canvas.box(x, norm, "BN", "", NORM, NARROW, 26)
    split = norm + 22
    for column in (key, value):
        canvas.line((x, norm + 13), (x, split), (column, split), (column, down - HEIGHT / 2))
        canvas.box(column, down, "depthwise 3×3", "stride 2, BN", DEPTHWISE, side)
        canvas.line((column, down + HEIGHT / 2), (column, project - HEIGHT / 2))
    canvas.line((x, split), (query, split), (query, project - HEIGHT / 2))
    for column, label, detail in (
        (query, "1×1 query", "one per head"),
        (key, "1×1 key", "one for all heads"),
        (value, "1×1 value", "one for all heads"),
    ):
        canvas.box(column, project, label, detail, POINTWISE, side)
        canvas.line((column, project + HEIGHT / 2), (column, attend - 15))
    canvas.box(x, attend, "softmax(query · key / √size) · value", "", ATTENTION, 2 * apart + side, 30)
    canvas.line((x, attend + 15), (x, output - HEIGHT / 2))
    canvas.box(x, output, "1×1 output", "layer scale", POINTWISE)
    draw_end(canvas, x, entry, output + HEIGHT / 2, end, 153)


def save(figure):
    """Write the picture as PNG and SVG; the same picture gives the same bytes."""
    from matplotlib import rc_context

    IMAGES.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": "blocks", "svg.fonttype": "path"}):
        figure.savefig(IMAGES / "blocks.svg", metadata={"Date": None})
    figure.savefig(IMAGES / "blocks.png", dpi=200, metadata={"Software": None})


# --- the command ---------------------------------------------------------------------------------------------------


def main(arguments=None):
    """Write everything, or with `--check` say what would change; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a table is out of date")
    check = parser.parse_args(arguments).check
    found = profiles()
    outdated = 0
    for path, text in (
        (ROOT / "README.md", readme_table(found)),
        (ROOT / "docs" / "variants.md", variants_tables(found)),
    ):
        content = with_tables(path, text)
        if content == path.read_text(encoding="utf-8"):
            continue
        outdated += 1
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs`.")
        else:
            path.write_text(content, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")
    if check:
        return int(outdated > 0)
    save(draw_blocks())
    print("docs/images/blocks.png and .svg written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
