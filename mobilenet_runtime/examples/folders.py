"""A folder of class folders, perhaps with train/ and validation/ or test/ above them."""

import glob
import itertools
from pathlib import Path

from mobilenet_common.errors import ArgumentError, printable
from mobilenet_runtime.examples.parts import TEST, TRAIN, VALIDATION, WHOLE, Part, part_name
from mobilenet_runtime.reading import find_images, is_ignored


def read(folder):
    """Return `({part: Part}, class names)` of a folder.

    Raises:
        ValueError: There are no class folders, or one of them has no image.
    """
    inside, parts = _folders(folder), _part_folders(folder)
    if parts:
        if len(parts) < len(inside):
            raise ArgumentError(f"{folder} has two folders for one part: {', '.join(path.name for path in inside)}.")
        found = {name: _classes(path) for name, path in parts.items()}
        return found, tuple(sorted(set(found[TRAIN].labels)))
    part = _classes(folder)
    return {WHOLE: part}, tuple(sorted(set(part.labels)))


def class_folders(places):
    """Return `{path: name of the class folder}` of images, as `read` would have it.

    Args:
        places: `{path: place}`, where `find_images` found each image. Below a folder the class is the first folder,
            after a part such as train. An image that lies in the place itself, that a pattern without `**` found, or
            that was named itself, has the class of the folder that it lies in.
    """
    roots = {place: _root(place) for place in set(places.values())}
    divided = {place: bool(root and _part_folders(root)) for place, root in roots.items()}
    found = {}
    for path, place in places.items():
        folders, root = Path(path).absolute().parent.parts, roots[place]
        inside = folders[len(root.absolute().parts) :] if root else ()
        inside = inside[1:] if divided[place] and len(inside) > 1 else inside
        found[path] = inside[0] if inside else folders[-1]
    return found


def _root(place):
    """Return the folder from which the class folders of a place go down, or None."""
    place = Path(place)
    if place.is_dir():
        return place
    if "**" not in place.parts:
        return None
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), place.parts))


def _part_folders(folder):
    """Return `{part: folder}` if a folder is divided into train and validation or test, else an empty dict."""
    parts = {part_name(path.name): path for path in _folders(folder)}
    is_divided = TRAIN in parts and parts.keys() <= {TRAIN, VALIDATION, TEST} and _folders(parts[TRAIN])
    return parts if is_divided else {}


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
            f"{folder} has no class folders with images in them. It must have a folder for each class, such as "
            f"{folder}/cat and {folder}/dog."
        )
    if empty:
        raise ArgumentError(f"{folder} has class folders without an image: {', '.join(empty)}. Fill or remove them.")
    return Part(paths, labels, paths.__getitem__)


def _folders(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name))
