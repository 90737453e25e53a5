"""The image of the blocks, docs/images/blocks.{png,svg}."""

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
        """Draw words centered on a point."""
        self.axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "color": color, **options})

    def panel(self, x, y, width, height, title, subtitle):
        """Draw a frame with a heading."""
        self._rounded(x, y, width, height, "#fafbfc", "#d5dae1", 8, zorder=1)
        self.text(x + width / 2, y + 18, title, 10, weight="bold")
        self.text(x + width / 2, y + 37, subtitle, 8, QUIET)

    def box(self, x, y, label, detail, kind, width=NARROW, height=HEIGHT):
        """Draw an operation, centered on a point."""
        self._rounded(x - width / 2, y - height / 2, width, height, *kind, 5)
        self.text(x, y - 8 if detail else y, label, 7.9)
        self.text(x, y + 8, detail, 6.9, QUIET)

    def swatch(self, x, y, kind):
        """Draw a sample of a kind's colors for the legend."""
        self._rounded(x, y - 7, 17, 14, *kind, 3)

    def line(self, *points):
        """Draw an arrow through points."""
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=QUIET, lw=1.1, zorder=2, solid_joinstyle="round")
        style = {"arrowstyle": "-|>", "color": QUIET, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
        self.axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=style, zorder=2)

    def node(self, x, y, sign):
        """Draw a round node that adds or multiplies."""
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
    """Draw boxes `(y, label, detail, kind, width, height)` one under the other, from input to output.

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
    """Draw the sum with the input, where there is a shortcut, and the output."""
    if shortcut is not None:
        canvas.line((x, last), (x, end - 9))
        side = x - shortcut
        canvas.line((x, entry + 14), (side, entry + 14), (side, end), (x - 9, end))
        canvas.node(x, end, "+")
        last = end + 9
    canvas.line((x, last), (x, end + 25))
    canvas.text(x, end + 33, "output", 7.5, QUIET)


def draw_blocks():
    """Return the blocks of the four generations as one image."""
    canvas = Canvas(900, 890)
    _draw_legend(canvas, 22)
    _draw_first_row(canvas, 44)
    _draw_universal(canvas, 436)
    _draw_attention(canvas, 436)
    canvas.text(
        450,
        868,
        "Narrow boxes: the block's own channels; wide boxes: expanded channels. BN: batch normalization. "
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
        "normalization": NORM,
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


def save(figure, folder):
    """Write the image into `folder` as PNG and SVG; the same image gives the same bytes."""
    from matplotlib import rc_context

    folder.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": "blocks", "svg.fonttype": "path"}):
        figure.savefig(folder / "blocks.svg", metadata={"Date": None})
    figure.savefig(folder / "blocks.png", dpi=200, metadata={"Software": None})
