"""Read manifests, which list paths and labels: CSV files with a header, or JSON Lines files."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator

from mobilenet_common.errors import ArgumentError
from mobilenet_common.types import PathLike
from mobilenet_runtime.examples.parts import WHOLE, Part, part_name

ENDINGS = (".csv", ".jsonl", ".ndjson")
_SHOWN = 5


def read(manifest):
    """Read a manifest. The paths in it are relative to the folder that contains it.

    Args:
        manifest: `pathlib.Path` of a `.csv`, `.jsonl` or `.ndjson` file.

    Returns:
        A tuple `({name: Part}, None)`, because a manifest has no list of class names.

    Raises:
        ValueError: If a line is invalid (the message gives its line number), or if images don't exist (the message
            says how many, and lists the first few).
    """
    rows = _csv_rows if manifest.suffix.lower() == ".csv" else _json_rows
    parts, lines, missing = {}, {}, []
    for line, row in rows(manifest):
        path, label, split = (_field(manifest, line, row, name) for name in ("path", "label", "split"))
        path = os.path.join(manifest.parent, str(path))
        if not os.path.isfile(path):
            missing.append((line, path))
        part = part_name(split) if split else WHOLE
        parts.setdefault(part, ([], []))
        lines.setdefault(part, []).append(line)
        for column, value in zip(parts[part], (path, label), strict=True):
            column.append(value)
    if missing:
        first = ", ".join(f"{path} (line {line})" for line, path in missing[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        total = sum(map(len, lines.values()))
        raise ArgumentError(f"{manifest}: {len(missing)} of {total} images do not exist: {first}{more}")
    if WHOLE in parts and len(parts) > 1:
        raise ArgumentError(f"{manifest}, line {lines[WHOLE][0]}: split is missing, though other lines have one.")
    return {
        part: Part(paths, labels, lambda i, part=part: f"{manifest}, line {lines[part][i]}")
        for part, (paths, labels) in parts.items()
    }, None


@contextlib.contextmanager
def _open_text(path):
    """Open a UTF-8 text file, with or without a byte order mark."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not a UTF-8 text file: {error}.") from None


def csv_lines(path: PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yield `(line number, cells)` for each non-empty line of a CSV file. Cells are stripped of whitespace.

    Raises:
        ValueError: If the file is not UTF-8 text or not valid CSV.
    """
    with _open_text(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if any(cells):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise ArgumentError(f"{path}, line {reader.line_num}: {error}.") from None


def _csv_rows(manifest):
    header = None
    for line, cells in csv_lines(manifest):
        if header is None:
            header = cells
            if not {"path", "label"} <= set(header):
                raise ArgumentError(
                    f"{manifest}, line {line}: {','.join(cells)!r} is not a header. The header must name the columns "
                    "path and label, and can also name split: path,label,split."
                )
            continue
        if len(cells) != len(header):
            raise ArgumentError(
                f"{manifest}, line {line}: expected {len(header)} cells ({','.join(header)}), got {len(cells)}. "
                "Put cells that contain commas in double quotes."
            )
        yield line, dict(zip(header, cells, strict=True))


def _json_rows(manifest):
    with _open_text(manifest) as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise ArgumentError(f"{manifest}, line {line}: this is not valid JSON: {error}.") from None
            if not isinstance(row, dict):
                raise ArgumentError(
                    f'{manifest}, line {line}: each line must look like {{"path": "a.jpg", "label": "cat"}}.'
                )
            yield line, row


def _field(manifest, line, row, name):
    value = row.get(name)
    if name == "label":
        if value is None or value == "":
            raise ArgumentError(f"{manifest}, line {line}: label is missing.")
        return value
    if name == "split" and value in (None, ""):
        return None
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{manifest}, line {line}: {name} must be a non-empty string, got {value!r}.")
    return value
