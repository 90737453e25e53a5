"""Records of published weights: where a file is, which model it fits, how to prepare images, and its accuracy."""

import dataclasses

from mobilenet_common import conventions

IMAGENET_1K = "imagenet-1k"
IMAGENET_12K = "imagenet-12k"
IMAGENET_21K = "imagenet-21k"
CLASSES = {IMAGENET_1K: 1000, IMAGENET_12K: 11821, IMAGENET_21K: 11221}  # 21k as cleaned by MIIL

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
    """The evaluation of a checkpoint at one image size, on the validation set of ImageNet-1k.

    Attributes:
        size: Height and width of the model's input.
        crop: Fraction of the resized image's shorter side that the center crop keeps.
        top1, top5: Accuracy in percent, or None if the source doesn't publish it.
    """

    size: int
    crop: float
    top1: float | None = None
    top5: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One file of published weights.

    Attributes:
        name: Model and tag, such as `"mobilenetv4_conv_medium.e500_r256_in1k"`; timm's own name for timm's weights.
        variant: A name of the generation's `VARIANTS`.
        width: The `width_multiplier` of the variant that the weights fit.
        source: Library that publishes the weights and names the tensors: `"timm"`, `"keras"` or `"torchvision"`.
        repository: Repository on the Hugging Face Hub for timm's weights, else the URL of the folder with the file.
        file: Name of the file in the repository or folder.
        no_top_file: Name of the file with the same weights without the classifier, or None if there is none.
        md5: MD5 hashes of `file` and `no_top_file`, or None if the source doesn't publish them.
        padding, norm_epsilon: Padding and epsilon of the model that the weights were trained in.
        evaluations: An `At` for each recommended image size, starting with the training size.
        interpolation: Interpolation for resizing images, `"bicubic"` or `"bilinear"`.
        mean, std: Mean and standard deviation of each channel, for pixels in 0..1.
        labels: Set of classes, a key of `CLASSES`.
        license: SPDX identifier of the license.
        paper: Paper of the architecture.
        citation: Citation of the publisher of the weights.
        scores_from: Where the accuracy was published.
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
        """Tag of the weights, the part of the name after the dot."""
        return self.name.partition(".")[2]

    @property
    def convention(self) -> conventions.Convention:
        """Padding and epsilon of the weights' model, as a `Convention`."""
        return conventions.Convention(self.padding, self.norm_epsilon)

    @property
    def num_classes(self):
        """Number of classes."""
        return CLASSES[self.labels]

    @property
    def input_size(self):
        """Height and width of the training images."""
        return self.evaluations[0].size

    @property
    def best(self):
        """The evaluation with the highest top-1 accuracy, or None if no accuracy is known."""
        scored = [evaluation for evaluation in self.evaluations if evaluation.top1 is not None]
        return max(scored, key=lambda evaluation: evaluation.top1 or 0.0, default=None)

    def evaluation(self, size):
        """Return the evaluation at `size`, or the one at the training size if there is none."""
        return next((evaluation for evaluation in self.evaluations if evaluation.size == size), self.evaluations[0])


def timm(name, variant, *evaluations, width=1.0, scale=IMAGENET, interpolation="bicubic", labels=IMAGENET_1K, **facts):
    """Return the `Checkpoint` of weights from timm.

    `facts` are further attributes of `Checkpoint`: `paper`, and those that differ from timm's usual values.
    """
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
    """Return the `Checkpoint` of weights from keras.applications; `folder` is the last part of the download URL."""
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
    """Return the `Checkpoint` of weights from torchvision; `file` contains the start of the file's SHA-256 hash."""
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


PUBLISHED = {}  # {name: Checkpoint} of the generations imported so far


def by_name(*tables):
    """Return the `{name: Checkpoint}` of a generation's tables, and add them to `PUBLISHED`."""
    checkpoints = {checkpoint.name: checkpoint for table in tables for checkpoint in table}
    PUBLISHED.update(checkpoints)
    return checkpoints
