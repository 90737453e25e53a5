"""The classes of calibration images, read from the names of their folders or from a file."""

import collections
from pathlib import Path

from mobilenet_common.errors import ArgumentError, printable, unknown_name
from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_runtime.examples.folders import class_folders
from mobilenet_runtime.examples.manifests import csv_lines

FOLDERS = "folders"


def read_labels(source, images, class_names, outputs, origins=None):
    """Return the class index of each image.

    Args:
        source: `"folders"` to use the name of each image's class folder, or the path of a file with one line
            `image,class` per image. Paths of images in the file are relative to the file or to the working folder.
        images: Paths of the images.
        class_names: Class names of the model, or None if it has none.
        outputs: Number of classes of the model.
        origins: `{image: folder or pattern that matched it}`; None if each image was named by its own path.

    Raises:
        ValueError: If an image has no class, or a class that the model doesn't have.
    """
    if source == FOLDERS:
        labels = _by_folders(origins or {image: image for image in images}, class_names)
    else:
        labels = _listed(Path(source), images)
    indices = _class_indices(set(labels.values()), class_names, outputs, source)
    return [indices[labels[image]] for image in images]


def _by_folders(origins, class_names):
    """Return `{image: class name}` from the folders between each image and its origin.

    If the model has no class with the folder's name, but one with the origin's name, the origin is the class folder.
    """
    labels = {}
    for image, name in class_folders(origins).items():
        name, origin_name = printable(name), printable(Path(origins[image]).absolute().name)
        is_origin = class_names is not None and name not in class_names and origin_name in class_names
        labels[image] = origin_name if is_origin else name
    return labels


def _listed(file, images):
    """Return `{image: class}` for the images, from a file with lines `image,class`."""
    if not file.is_file():
        raise ArgumentError(f"--labels={file} is not a file: name a file with lines image,class, or {FOLDERS!r}.")
    listed = {}
    for _, row in csv_lines(file):
        if len(row) != 2:
            raise ArgumentError(
                f"{file} has a line with {len(row)} fields, {','.join(row)!r}: each line must be image,class."
            )
        name, label = row
        listed[printable((file.parent / name).resolve())] = label
        listed.setdefault(printable(Path(name).resolve()), label)
    labels = {}
    for image in images:
        path = printable(Path(image).resolve())  # the form in which a UTF-8 file can name the path
        if path not in listed:
            raise ArgumentError(
                f"{image} has no class in {file}: add a line for it, or leave the image out of --calibrate."
            )
        labels[image] = listed[path]
    return labels


def _class_indices(labels, class_names, outputs, source):
    """Return `{label: class index}`."""
    if class_names is not None:
        known = {name: number for number, name in enumerate(class_names)}
    else:
        known = _imagenet(outputs)
        if source == FOLDERS and not labels <= known.keys():
            return _in_sorted_order(labels, outputs)
    indices = {}
    for label in sorted(labels):
        if label in known:
            indices[label] = known[label]
        elif source != FOLDERS and label.isascii() and label.isdigit() and int(label) < outputs:
            indices[label] = int(label)
        elif known:
            raise unknown_name("--labels", label, known)
        else:
            raise ArgumentError(
                f"--labels={source} names the class {label!r}, but the model has no class names: give numbers from "
                f"0 to {outputs - 1}."
            )
    return indices


def _in_sorted_order(labels, outputs):
    if len(labels) != outputs:
        raise ArgumentError(
            f"--labels={FOLDERS} found {len(labels)} class folders, but the model has {outputs} classes without names: "
            "provide one folder per class, or name a file with lines image,class."
        )
    return {label: number for number, label in enumerate(sorted(labels))}


def _imagenet(outputs):
    """Return `{synset or name: class index}` for a model with ImageNet's 1000 classes, or with a background class too.

    The result is empty for any other number of outputs.
    """
    classes = imagenet_classes()
    first = outputs - len(classes)
    if first not in (0, 1):
        return {}
    # Two classes are called crane. This name is left out, because it is ambiguous.
    counts = collections.Counter(name for _, name in classes)
    names = {name: number for number, (_, name) in enumerate(classes, first) if counts[name] == 1}
    return names | {synset: number for number, (synset, _) in enumerate(classes, first)}
