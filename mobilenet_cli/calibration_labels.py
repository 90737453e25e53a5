"""The classes of images on disk, by the folders that they lie in or by a list."""

import collections
from pathlib import Path

from mobilenet_common.errors import ArgumentError, printable, unknown_name
from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_runtime.examples.folders import class_folders
from mobilenet_runtime.examples.manifests import csv_lines

FOLDERS = "folders"


def read_labels(source, images, class_names, outputs, places=None):
    """Return the class of each image, as a number.

    Args:
        source: `"folders"`: an image's class is the name of its class folder. Else a file with a line
            `image,class` for each, its images named from where it lies or from the working folder.
        images: Paths.
        class_names: The model's, or None.
        outputs: How many classes the model tells apart.
        places: `{image: the folder or pattern that it was found by}`; None for images that were named themselves.

    Raises:
        ValueError: An image has no class, or one that the model doesn't have.
    """
    if source == FOLDERS:
        given = _by_folders(places or {image: image for image in images}, class_names)
    else:
        given = _listed(Path(source), images)
    numbers = _numbers(set(given.values()), class_names, outputs, source)
    return [numbers[given[image]] for image in images]


def _by_folders(places, class_names):
    """Return `{image: its class}` by the folders between it and its place, which may itself be a class folder."""
    found = {}
    for image, name in class_folders(places).items():
        name, own = printable(name), printable(Path(places[image]).absolute().name)
        is_own = class_names is not None and name not in class_names and own in class_names
        found[image] = own if is_own else name
    return found


def _listed(file, images):
    """Return `{image: its class}` as a file says."""
    if not file.is_file():
        raise ArgumentError(f"--labels={file} is not a file: name one with lines image,class, or {FOLDERS!r}.")
    found = {}
    for _, row in csv_lines(file):
        if len(row) != 2:
            raise ArgumentError(f"{file} has a line of {len(row)} fields, {','.join(row)!r}: it must be image,class.")
        name, label = row
        found[printable((file.parent / name).resolve())] = label
        found.setdefault(printable(Path(name).resolve()), label)
    given = {}
    for image in images:
        place = printable(Path(image).resolve())  # as a file in UTF-8 can name it
        if place not in found:
            raise ArgumentError(f"{image} has no class in {file}: add a line, or leave the image out of --calibrate.")
        given[image] = found[place]
    return given


def _numbers(labels, class_names, outputs, source):
    """Return `{label: number of the class}`."""
    if class_names is not None:
        known = {name: number for number, name in enumerate(class_names)}
    else:
        known = _imagenet(outputs)
        if source == FOLDERS and not labels <= known.keys():
            return _sorted(labels, outputs)
    found = {}
    for label in sorted(labels):
        if label in known:
            found[label] = known[label]
        elif source != FOLDERS and label.isascii() and label.isdigit() and int(label) < outputs:
            found[label] = int(label)
        elif known:
            raise unknown_name("--labels", label, known)
        else:
            raise ArgumentError(
                f"--labels={source} names the class {label!r}, but the model's have no names: give numbers from 0 to "
                f"{outputs - 1}."
            )
    return found


def _sorted(labels, outputs):
    if len(labels) != outputs:
        raise ArgumentError(
            f"--labels={FOLDERS} found {len(labels)} folders, but the model tells {outputs} classes apart and has no "
            "names for them: give a folder for each, or a file."
        )
    return {label: number for number, label in enumerate(sorted(labels))}


def _imagenet(outputs):
    """Return synsets and names of ImageNet's classes for a model with as many, with or without a background class."""
    classes = imagenet_classes()
    first = outputs - len(classes)
    if first not in (0, 1):
        return {}
    counts = collections.Counter(name for _, name in classes)  # two are called crane
    names = {name: number for number, (_, name) in enumerate(classes, first) if counts[name] == 1}
    return names | {synset: number for number, (synset, _) in enumerate(classes, first)}
