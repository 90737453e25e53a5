"""Regenerate the generated files: the tables of variants, recipes and costs, and the image of the blocks.

Usage: python docs/build.py            writes docs/variants.md, docs/recipes.md, the README's table,
                                       mobilenet_zoo/figures.tsv and docs/images/blocks.{png,svg}
       python docs/build.py --check    writes nothing; exits 1 if a table is out of date
"""

import argparse
import re
import sys
from pathlib import Path

import blocks

import mobilenet_v1
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
import mobilenet_zoo
from mobilenet_zoo import figures
from mobilenet_zoo.registry import WEIGHTS, registry
from mobilenet_zoo.training.recipes import list_recipes, load_recipe
from mobilenet_zoo.training.recipes.recipe import parts

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"

GENERATIONS = (
    ("V1", "create_mobilenetv1", mobilenet_v1),
    ("V2", "create_mobilenetv2", mobilenet_v2),
    ("V3", "create_mobilenetv3", mobilenet_v3),
    ("V4", "create_mobilenetv4", mobilenet_v4),
)


def profiles():
    """Return `{(generation, variant): (profile at 224×224, profile at 64×64)}`, in the order of the tables."""
    profile_pairs = {}
    for generation, function, module in GENERATIONS:
        create = getattr(module, function)
        for variant in module.VARIANTS:
            model = create(variant, input_shape=(None, None, 3))
            full, small = (mobilenet_zoo.profile(model, (size, size, 3)) for size in (224, 64))
            profile_pairs[generation, variant] = (full, small)
    return profile_pairs


def is_compact(variant):
    """Return whether a variant belongs to the compact family, which is designed for small images."""
    return variant.startswith("compact_")


def table(header, rows):
    """Return a Markdown table. Columns whose header ends in `:` are right-aligned."""
    rule = ["---:" if name.endswith(":") else "---" for name in header]
    lines = [[name.rstrip(":") for name in header], rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def millions(count):
    """Return a count in millions: `827.6 M` for 827,649,984."""
    return f"{count / 1e6:,.1f} M"


def mebibytes(size):
    """Return a number of bytes in MiB, with two decimals."""
    return f"{size / 2**20:.2f} MiB"


def readme_table(profile_pairs):
    """Return the README's table: V1 to V4 at 224×224, then the compact family at 64×64."""
    published, compact = [], []
    for (generation, variant), (full, small) in profile_pairs.items():
        row = [generation, f'`"{variant}"`', f"`{full.model}`", f"{full.parameters:,}"]
        if is_compact(variant):
            compact.append([*row, millions(small.macs)])
        else:
            published.append([*row, millions(full.macs)])
    columns = ("generation", "variant", "name", "parameters:")
    return "\n\n".join(
        (
            table((*columns, "MACs at 224×224:"), published),
            "The compact family of V4 is designed for small images:",
            table((*columns, "MACs at 64×64:"), compact),
        )
    )


def variants_tables(profile_pairs):
    """Return the tables of docs/variants.md: one per generation, and one for the compact family."""
    sections = []
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
            for (variant_generation, variant), (full, _) in profile_pairs.items()
            if variant_generation == generation and not is_compact(variant)
        ]
        header = ("variant", "name", "parameters:", "statistics:", "MACs at 224×224:", "peak activations:")
        sections += [f"## {generation}: `{function}`", table(header, rows)]
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
        for (_, variant), (full, small) in profile_pairs.items()
        if is_compact(variant)
    ]
    header = ["variant", "name", "parameters:", "statistics:"]
    for size in ("64×64", "224×224"):
        header += [f"MACs at {size}:", f"peak activations at {size}:"]
    sections += ["## V4's compact family: `create_mobilenetv4`", table(header, rows)]
    return "\n\n".join(sections)


def recipes_tables():
    """Return the tables of docs/recipes.md: the recipes of the library, and all recipe fields."""
    recipe_rows = [[f"`{name}`", summary, load_recipe(name).source] for name, summary in list_recipes().items()]
    field_rows = []
    for path, field in parts():
        allowed = field.metadata["allowed"]
        nested = isinstance(allowed.kind, type)
        default = ("null" if allowed.null else "its defaults") if nested else _format_default(field.default)
        field_rows.append([f"`{path}`", field.metadata["sentence"], str(allowed), default])
    return "\n\n".join(
        (
            "## The recipes",
            table(("name", "what it is for", "source"), recipe_rows),
            "## Every field",
            table(("field", "what it does", "allowed", "default"), field_rows),
        )
    )


def _format_default(default):
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "null"}[default]
    return f"[{', '.join(f'{n:g}' for n in default)}]" if isinstance(default, tuple) else f"{default}"


def figures_table():
    """Return the content of mobilenet_zoo/figures.tsv."""

    def sizes_of(name):
        sizes = {name: (1000, [224])}
        for weights, checkpoint in WEIGHTS.items():
            if weights.partition(".")[0] == name:
                sizes[weights] = (checkpoint.num_classes, [at.size for at in checkpoint.evaluations])
        return sizes

    rows = [figures.HEADER, *figures.counted(registry(), sizes_of)]
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def with_tables(path, text):
    """Return the content of the file at `path` with `text` between its markers."""
    begin, end = "<!-- begin: docs/build.py -->", "<!-- end: docs/build.py -->"
    content = path.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        raise SystemExit(f"{path.relative_to(ROOT)} must contain the markers {begin} and {end} exactly once each.")
    pattern = re.compile(re.escape(begin) + ".*" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", content)


def main(arguments=None):
    """Write all files, or report outdated files with `--check`. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a table is out of date")
    check = parser.parse_args(arguments).check
    profile_pairs = profiles()
    outdated = 0
    readme, variants, recipes = ROOT / "README.md", ROOT / "docs" / "variants.md", ROOT / "docs" / "recipes.md"
    for path, content in (
        (readme, with_tables(readme, readme_table(profile_pairs))),
        (variants, with_tables(variants, variants_tables(profile_pairs))),
        (recipes, with_tables(recipes, recipes_tables())),
        (ROOT / "mobilenet_zoo" / figures.FILE, figures_table()),
    ):
        if path.exists() and content == path.read_text(encoding="utf-8"):
            continue
        outdated += 1
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs`.")
        else:
            path.write_text(content, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")
    if check:
        return int(outdated > 0)
    blocks.save(blocks.draw_blocks(), IMAGES)
    print("docs/images/blocks.png and .svg written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
