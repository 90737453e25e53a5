"""Model cards: the `README.md` of a saved model, with its training data, metrics and usage."""

import json

from mobilenet_zoo.classifiers import is_classifier
from mobilenet_zoo.registry import WEIGHTS

# Hub task, by whether the model has classes
_TASKS = {True: "image-classification", False: "image-feature-extraction"}


def model_card(model, facts, license, description):
    """Return the text of a model card, with the YAML header that the Hugging Face Hub reads.

    Args:
        model: The `keras.Model` that the card describes.
        facts: The content of the model's `mobilenet.json`, as a dict.
        license: An identifier such as `"apache-2.0"`, or None.
        description: A paragraph of text, or None.
    """
    has_classes = facts["class_names"] is not None or is_classifier(model)
    return "\n".join(
        [
            *_header(facts, license, has_classes),
            f"# {model.name}",
            "",
            *([description, ""] if description else []),
            *_summary(model, facts),
            *_metrics(facts),
            *_usage(has_classes),
            *_images(facts["preprocessing"]),
            *_classes(facts["class_names"]),
        ]
    )


def _header(facts, license, has_classes):
    """Return the lines of the YAML header."""
    # JSON strings are valid YAML, so json.dumps quotes and escapes the values.
    lines = ["---", "library_name: keras", f"pipeline_tag: {_TASKS[has_classes]}", "tags: [mobilenet, mobilenet-zoo]"]
    if license:
        lines.append(f"license: {json.dumps(license)}")
    if facts["base"]:
        lines.append(f"base_model: {json.dumps(_base_model(facts['base']))}")
    return [*lines, "---", ""]


def _base_model(base):
    """Return the Hub repository of `base` if it names weights that timm publishes, else `base` itself."""
    checkpoint = WEIGHTS.get(base)
    return checkpoint.repository if checkpoint and checkpoint.source == "timm" else base


def _summary(model, facts):
    lines = [f"- Parameters: {model.count_params():,}"]
    if facts["base"]:
        lines.append(f"- Base weights: {facts['base']}")
    if facts["dataset"]:
        lines.append(f"- Trained on: {facts['dataset']}")
    return [*lines, ""]


def _metrics(facts):
    if not facts["metrics"]:
        return []
    rows = [f"| {name} | {value:g} |" for name, value in facts["metrics"].items()]
    return ["## Metrics", "", "| | |", "|---|---|", *rows, ""]


def _usage(has_classes):
    lines = [
        "## Usage",
        "",
        "```python",
        "import mobilenet_zoo",
        "",
        'model = mobilenet_zoo.from_pretrained("the folder or repository that contains this file")',
        'images = mobilenet_zoo.preprocessing(model)(["image.jpg"])',
    ]
    if has_classes:
        lines += [
            "predictions = model.predict(images)",
            "mobilenet_zoo.decode_predictions(predictions, class_names=mobilenet_zoo.class_names_of(model))",
        ]
    else:
        lines.append("features = model.predict(images)")
    return [*lines, "```", ""]


def _images(transform):
    rows, columns = transform["size"]
    normalization = "pixel values left in 0..255, because the model normalizes them itself"
    if transform["mean"] is not None:
        normalization = (
            f"scaled to 0..1, normalized with mean {transform['mean']} and standard deviation {transform['std']}"
        )
    return [
        "## Images",
        "",
        f"{rows} × {columns} pixels: resized ({transform['interpolation']}) so that the crop covers "
        f"{transform['crop']:g} of the shorter side, center-cropped, {normalization}.",
        "",
    ]


def _classes(names):
    return ["## Classes", "", ", ".join(names), ""] if names else []
