"""The model card of a saved model: what it is, what it was trained on, how it scored, how to use it."""

import json

from mobilenet_zoo.classifiers import is_classifier
from mobilenet_zoo.registry import WEIGHTS

_TASKS = {True: "image-classification", False: "image-feature-extraction"}


def model_card(model, facts, license, description):
    """Return the text of a model card, with the header that the Hugging Face Hub reads.

    Args:
        model: The model.
        facts: The record in `mobilenet.json`.
        license: Its identifier, or None.
        description: A paragraph, or None.
    """
    has_classes = facts["class_names"] is not None or is_classifier(model)
    return "\n".join(
        [
            *_header(facts, license, has_classes),
            f"# {model.name}",
            "",
            *([description, ""] if description else []),
            *_about(model, facts),
            *_scores(facts),
            *_use(has_classes),
            *_images(facts["preprocessing"]),
            *_classes(facts["class_names"]),
        ]
    )


def _header(facts, license, has_classes):
    """Return YAML, of which JSON's strings and lists are a part."""
    lines = ["---", "library_name: keras", f"pipeline_tag: {_TASKS[has_classes]}", "tags: [mobilenet, mobilenet-zoo]"]
    if license:
        lines.append(f"license: {json.dumps(license)}")
    if facts["base"]:
        lines.append(f"base_model: {json.dumps(_address(facts['base']))}")
    return [*lines, "---", ""]


def _address(base):
    """Return the repository of published weights where there is one, else their name."""
    checkpoint = WEIGHTS.get(base)
    return checkpoint.repository if checkpoint and checkpoint.source == "timm" else base


def _about(model, facts):
    lines = [f"- Parameters: {model.count_params():,}"]
    if facts["base"]:
        lines.append(f"- Started from: {facts['base']}")
    if facts["dataset"]:
        lines.append(f"- Trained on: {facts['dataset']}")
    return [*lines, ""]


def _scores(facts):
    if not facts["metrics"]:
        return []
    rows = [f"| {name} | {value:g} |" for name, value in facts["metrics"].items()]
    return ["## Scores", "", "| | |", "|---|---|", *rows, ""]


def _use(has_classes):
    lines = [
        "## Use",
        "",
        "```python",
        "import mobilenet_zoo",
        "",
        'model = mobilenet_zoo.from_pretrained("the folder or repository that holds this file")',
        'images = mobilenet_zoo.preprocessing(model)(["image.jpg"])',
    ]
    if has_classes:
        lines += [
            "answers = model.predict(images)",
            "mobilenet_zoo.decode_predictions(answers, class_names=mobilenet_zoo.class_names_of(model))",
        ]
    else:
        lines.append("features = model.predict(images)")
    return [*lines, "```", ""]


def _images(transform):
    rows, columns = transform["size"]
    scaled = "left in 0..255, which the model normalizes itself"
    if transform["mean"] is not None:
        scaled = f"scaled to 0..1, normalized by mean {transform['mean']} and deviation {transform['std']}"
    return [
        "## Images",
        "",
        f"{rows} × {columns} pixels: resized ({transform['interpolation']}) until the crop takes "
        f"{transform['crop']:g} of them, cropped in the center, {scaled}.",
        "",
    ]


def _classes(names):
    return ["## Classes", "", ", ".join(names), ""] if names else []
