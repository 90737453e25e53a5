"""Read image folders: one sub-folder per class, optionally below train/, validation/ and test/."""

import glob
import itertools
from pathlib import Path

from mobilenet_common.errors import ArgumentError, printable
from mobilenet_runtime.examples.parts import TEST, TRAIN, VALIDATION, WHOLE, Part, part_name
from mobilenet_runtime.reading import find_images, is_ignored


def read(folder):
    """Read an image folder.

    Args:
        folder: `pathlib.Path` of the folder.

    Returns:
        A tuple `({name: Part}, class names)`.

    Raises:
        ValueError: If there are no class folders, or if a class folder has no images.
    """
    subfolders, parts = _folders(folder), _part_folders(folder)
    if parts:
        if len(parts) < len(subfolders):
            names = ", ".join(path.name for path in subfolders)
            raise ArgumentError(f"{folder} has several folders for one split: {names}. Keep one folder for each split.")
        splits = {name: _classes(path) for name, path in parts.items()}
        return splits, tuple(sorted(set(splits[TRAIN].labels)))
    part = _classes(folder)
    return {WHOLE: part}, tuple(sorted(set(part.labels)))


def class_folders(origins):
    """Return the class folder of each image, `{path: folder name}`, with the same rules as `read`.

    The class of an image below a searched folder is the first folder on the way to the image, not counting a split such
    as train. The class is the image's parent folder if the image lies directly in the searched folder, was matched by a
    pattern without `**`, or was passed as a file.

    Args:
        origins: `{path: origin}`, where the origin is the folder, glob pattern or file through which `find_images`
            found the image.
    """
    roots = {origin: _root(origin) for origin in set(origins.values())}
    has_splits = {origin: bool(root and _part_folders(root)) for origin, root in roots.items()}
    names = {}
    for path, origin in origins.items():
        folders, root = Path(path).absolute().parent.parts, roots[origin]
        subfolders = folders[len(root.absolute().parts) :] if root else ()
        subfolders = subfolders[1:] if has_splits[origin] and len(subfolders) > 1 else subfolders
        names[path] = subfolders[0] if subfolders else folders[-1]
    return names


def _root(origin):
    """Return the folder whose sub-folders are searched for images of `origin`, or None if it searches none."""
    origin = Path(origin)
    if origin.is_dir():
        return origin
    if "**" not in origin.parts:
        return None
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), origin.parts))


def _part_folders(folder):
    """Return `{part: folder}` if a folder has train and perhaps validation and test folders, else an empty dict."""
    parts = {part_name(path.name): path for path in _folders(folder)}
    has_splits = TRAIN in parts and parts.keys() <= {TRAIN, VALIDATION, TEST} and _folders(parts[TRAIN])
    return parts if has_splits else {}


def _classes(folder):
    paths, labels, empty = [], [], []
    for path in _folders(folder):
        images = find_images([path])
        paths += images
        labels += [printable(path.name)] * len(images)
        if not images:
            empty.append(path.name)
    if not paths:
        raise ArgumentError(
            f"{folder} has no class folders with images. It must have one sub-folder per class, such as "
            f"{folder}/cat and {folder}/dog."
        )
    if empty:
        raise ArgumentError(f"{folder} has class folders without images: {', '.join(empty)}. Fill or remove them.")
    return Part(paths, labels, paths.__getitem__)


def _folders(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name))
