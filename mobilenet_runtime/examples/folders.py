"""A folder of class folders, perhaps with train/ and validation/ or test/ above them."""

from mobilenet_common.errors import printable
from mobilenet_runtime.examples.parts import TEST, TRAIN, VALIDATION, WHOLE, Part, part_name
from mobilenet_runtime.reading import find_pictures, is_ignored


def read(folder):
    """`({part: Part}, class names)` of a folder.

    Raises:
        ValueError: There are no class folders, or one of them has no picture.
    """
    inside = _folders(folder)
    parts = {part_name(path.name): path for path in inside}
    if TRAIN in parts and parts.keys() <= {TRAIN, VALIDATION, TEST} and _folders(parts[TRAIN]):
        if len(parts) < len(inside):
            raise ValueError(f"{folder} has two folders for one part: {', '.join(path.name for path in inside)}.")
        found = {name: _classes(path) for name, path in parts.items()}
        return found, tuple(sorted(set(found[TRAIN].labels)))
    part = _classes(folder)
    return {WHOLE: part}, tuple(sorted(set(part.labels)))


def _classes(folder):
    paths, labels, empty = [], [], []
    for path in _folders(folder):
        pictures = find_pictures([path])
        paths += pictures
        labels += [printable(path.name)] * len(pictures)
        if not pictures:
            empty.append(path.name)
    if not paths:
        raise ValueError(
            f"{folder} has no class folders with pictures in them. It must have a folder for each class, such as "
            f"{folder}/cat and {folder}/dog."
        )
    if empty:
        raise ValueError(f"{folder} has class folders without a picture: {', '.join(empty)}. Fill or remove them.")
    return Part(paths, labels, paths.__getitem__)


def _folders(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name))
