"""Published weights as data: where a checkpoint is, how it was made, how to feed it, what it scores."""

import dataclasses

from mobilenet_common import conventions

IMAGENET_1K = "imagenet-1k"
IMAGENET_12K = "imagenet-12k"
IMAGENET_21K = "imagenet-21k"
CLASSES = {IMAGENET_1K: 1000, IMAGENET_12K: 11821, IMAGENET_21K: 11221}  # the last as the MIIL authors cleaned it

# Mean and standard deviation of each channel, for pixels in 0..1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # pixels in -1..1
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels in 0..1

TIMM, KERAS, TORCHVISION = "timm", "keras", "torchvision"
_TIMM_CITATION = "R. Wightman, PyTorch Image Models, 2019, doi:10.5281/zenodo.4414861"
_TORCHVISION_CITATION = "TorchVision maintainers and contributors, TorchVision: PyTorch's Computer Vision library, 2016"
_KERAS_CITATION = "F. Chollet and others, Keras, 2015"
_KERAS_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_TORCHVISION_ADDRESS = "https://download.pytorch.org/models/"


@dataclasses.dataclass(frozen=True)
class At:
    """How a checkpoint is evaluated at one size, and what it scores there on ImageNet-1k's validation set.

    Attributes:
        size: Height and width of the model's input.
        crop: Fraction of the resized image's shorter side that the input takes.
        top1, top5: Accuracy in percent, or None where the source gives none.
    """

    size: int
    crop: float
    top1: float | None = None
    top5: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One file of published weights.

    Attributes:
        name: Model and tag, such as `"mobilenetv4_conv_medium.e500_r256_in1k"`: timm's own name where it is timm's.
        variant: A name of the generation's `VARIANTS`.
        width: The `width_multiplier` that goes with it.
        source: Who publishes it and whose names its tensors have: `"timm"`, `"keras"` or `"torchvision"`.
        repository: On the Hugging Face Hub for timm's, else the address of the folder that holds the file.
        file: The file's name there.
        no_top_file: The same weights without the classifier, where they are a file of their own.
        md5: Hashes of `file` and `no_top_file`, where the source gives them.
        padding, norm_epsilon: Of the model that the weights were trained in.
        evaluations: An `At` for each size that it was made for, that of the training first.
        interpolation: How images are resized, `"bicubic"` or `"bilinear"`.
        mean, std: Of each channel, for pixels in 0..1.
        labels: The classes, a key of `CLASSES`.
        license: By its SPDX identifier.
        paper: The paper of the architecture.
        citation: Of those who published the weights.
        scores_from: Where the scores were published.
    """

    name: str
    variant: str
    width: float
    source: str
    repository: str
    file: str
    no_top_file: str | None = None
    md5: tuple[str, str] | None = None
    padding: str
    norm_epsilon: float
    evaluations: tuple[At, ...]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: str
    license: str
    paper: str
    citation: str
    scores_from: str

    @property
    def tag(self):
        """What is behind the dot of the name."""
        return self.name.partition(".")[2]

    @property
    def convention(self) -> conventions.Convention:
        """How the model of these weights pads and normalizes."""
        return conventions.Convention(self.padding, self.norm_epsilon)

    @property
    def num_classes(self):
        """Outputs of the classifier."""
        return CLASSES[self.labels]

    @property
    def input_size(self):
        """Height and width that it was trained for."""
        return self.evaluations[0].size

    @property
    def best(self):
        """The evaluation with the highest top-1, or None without scores."""
        scored = [evaluation for evaluation in self.evaluations if evaluation.top1 is not None]
        return max(scored, key=lambda evaluation: evaluation.top1 or 0.0, default=None)

    def evaluation(self, size):
        """Return the evaluation at `size`, or that of the training for any other size."""
        return next((evaluation for evaluation in self.evaluations if evaluation.size == size), self.evaluations[0])


def timm(name, variant, *evaluations, width=1.0, scale=IMAGENET, interpolation="bicubic", labels=IMAGENET_1K, **facts):
    """Return a checkpoint of timm's; `facts` are the paper, and what differs from what most of them share."""
    return Checkpoint(
        **{
            "name": name,
            "variant": variant,
            "width": width,
            "source": TIMM,
            "repository": f"timm/{name}",
            "file": "model.safetensors",
            **conventions.of_timm(name.partition(".")[0]).options,
            "evaluations": evaluations,
            "interpolation": interpolation,
            "mean": scale[0],
            "std": scale[1],
            "labels": labels,
            "license": "Apache-2.0",
            "citation": _TIMM_CITATION,
            "scores_from": "timm's results on ImageNet-1k",
            **facts,
        }
    )


def keras_application(name, variant, *evaluations, folder, file, no_top_file, scores_from, width=1.0, **facts):
    """Return a checkpoint of keras.applications; `folder` is that of its address."""
    return Checkpoint(
        **{
            "name": name,
            "variant": variant,
            "width": width,
            "source": KERAS,
            "repository": f"{_KERAS_ADDRESS}{folder}/",
            "file": file,
            "no_top_file": no_top_file,
            **conventions.TENSORFLOW.options,
            "evaluations": evaluations,
            "interpolation": "bilinear",
            "mean": HALF[0],
            "std": HALF[1],
            "labels": IMAGENET_1K,
            "license": "Apache-2.0",
            "citation": _KERAS_CITATION,
            "scores_from": scores_from,
            **facts,
        }
    )


def torchvision(name, variant, *evaluations, file, **facts):
    """Return a checkpoint of torchvision's; the end of `file` is the start of its SHA-256."""
    return Checkpoint(
        **{
            "name": name,
            "variant": variant,
            "width": 1.0,
            "source": TORCHVISION,
            "repository": _TORCHVISION_ADDRESS,
            "file": file,
            **conventions.of_torchvision(is_v3=name.startswith("mobilenetv3")).options,
            "evaluations": evaluations,
            "interpolation": "bilinear",
            "mean": IMAGENET[0],
            "std": IMAGENET[1],
            "labels": IMAGENET_1K,
            "license": "BSD-3-Clause",
            "citation": _TORCHVISION_CITATION,
            "scores_from": "torchvision's weights",
            **facts,
        }
    )


PUBLISHED = {}  # {name: Checkpoint} of every generation that is imported


def by_name(*tables):
    """Return `{name: Checkpoint}` of a generation's tables, which are added to `PUBLISHED`."""
    found = {checkpoint.name: checkpoint for table in tables for checkpoint in table}
    PUBLISHED.update(found)
    return found
