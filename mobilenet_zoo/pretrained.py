"""Save models to folders or repositories on the Hugging Face Hub, with a model card, and load them."""

import dataclasses
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mobilenet_common.checkpoints import LAYOUTS, StateDict, load_into, state_dict, write
from mobilenet_common.checkpoints.download import download_from_hub, hub_client, reason
from mobilenet_common.checkpoints.files import as_array
from mobilenet_common.checkpoints.image_facts import header_of
from mobilenet_common.errors import UPDATE_HINT, ArgumentError, CheckpointError, DownloadError, integer, printable
from mobilenet_common.facts import Facts, facts_of, remember
from mobilenet_common.foreign import repository_of, without_hub
from mobilenet_common.nesting import as_functional
from mobilenet_common.types import PathLike
from mobilenet_common.writing import folder_beside, replace_all
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.cards import model_card
from mobilenet_zoo.model_preprocessing import preprocessing, use_transform
from mobilenet_zoo.names import is_repository, registry, unknown_model
from mobilenet_zoo.registry import WEIGHTS, create_model

CONFIG, WEIGHTS_H5, TENSORS, FACTS = "config.json", "model.weights.h5", "model.safetensors", "mobilenet.json"
_FORMAT = 1
_MAX_JSON_BYTES = 1 << 24


def save_pretrained(
    model: keras.Model,
    folder: PathLike,
    *,
    class_names: Sequence[str] | None = None,
    transform: Preprocessing | None = None,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
    description: str | None = None,
) -> Path:
    """Save a model to a folder, with everything that you need to use it.

    The folder contains Keras's own files (`config.json`, `metadata.json`, `model.weights.h5`); the same weights as
    `model.safetensors`, with timm's tensor names if timm has the model; `mobilenet.json` with the preprocessing, class
    names and other facts about the model; and `README.md`, a model card. The optimizer's state isn't saved. A
    repository on the Hugging Face Hub with these files can be loaded with `from_pretrained`, and, after
    `import mobilenet_zoo`, with `keras.saving.load_model("hf://user/name")`.

    Args:
        model: A functional or `Sequential` model of this library, or a model that contains one. It can be fine-tuned or
            fused.
        folder: Path of the folder. It is created if it doesn't exist; existing files with the same names are replaced
            only after all new files are completely written.
        class_names: One name for each output; None for the names that the model was loaded with.
        transform: The `Preprocessing` with which the model was evaluated; None for `preprocessing(model)`.
        dataset: Name or description of the training data, for the model card.
        metrics: Evaluation results for the model card, `{name: number}`, such as `{"top-1 accuracy": 0.93}`.
        license: License identifier for the model card, such as `"apache-2.0"`; None for the license of the published
            weights that the model was initialized with.
        description: A paragraph of text for the model card.

    Returns:
        The `pathlib.Path` of the folder.

    Raises:
        ValueError: An argument doesn't fit the model, or the model is neither functional nor a built `Sequential`.
    """
    as_functional(model, "save_pretrained")  # Raises an error for models that can't be rebuilt from their config.
    known = facts_of(model)
    if class_names is None and known is not None:
        class_names = known.class_names
    _check_names(model, class_names)
    class_names = class_names and [printable(name) for name in class_names]
    metrics = {str(name): float(value) for name, value in (metrics or {}).items()}
    has_transform = transform is not None
    transform = preprocessing(model) if transform is None else transform
    base = known.base if known else None
    layout, tensors = _tensors(model)
    facts = _facts_record(model, transform, class_names, base)
    facts |= {"layout": layout, "dataset": dataset, "metrics": metrics}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_beside(folder / FACTS) as part:
        uncompiled = keras.models.clone_model(model)  # A clone has no optimizer, so its state isn't saved.
        uncompiled.set_weights(model.get_weights())
        if has_transform:
            use_transform(uncompiled, transform, base)
        uncompiled.save(part / "model.keras")
        with zipfile.ZipFile(part / "model.keras") as archive:
            archive.extractall(part, [name for name in archive.namelist() if not name.startswith("assets")])
        (part / "model.keras").unlink()
        write(part / TENSORS, tensors, {"format": "pt", "layout": layout, **header_of(uncompiled)})
        _write_json(part / FACTS, facts)
        card = model_card(model, facts, license or _license(base), description)
        (part / "README.md").write_text(card, encoding="utf-8")
        files = sorted(part.iterdir())
        replace_all(files, [folder / file.name for file in files])
    return folder


def push_to_hub(
    model: keras.Model,
    repository: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    message: str | None = None,
    **described: Any,
) -> str:
    """Upload a model to a repository on the Hugging Face Hub, with the files that `save_pretrained` writes.

    The repository is created if it doesn't exist.

    Args:
        model: A model, as for `save_pretrained`.
        repository: Name of the repository, `"user/name"`.
        private: Whether a new repository is private; None for the owner's default.
        token: Access token of an account with write permission; None for the token from `hf auth login` or `HF_TOKEN`.
        branch: Name of the branch, which is created if it doesn't exist; None for the main branch.
        message: Commit message; None for a default message.
        **described: Arguments of `save_pretrained` that describe the model: `class_names`, `transform`, `dataset`,
            `metrics`, `license` and `description`.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: An argument doesn't fit the model.
        DownloadError: The Hub can't be reached or refuses the upload; the message gives the reason.
    """
    hub = hub_client()
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, Path(temporary) / "model", **described)
        api = hub.HfApi(token=token, library_name="mobilenet-zoo")
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(repository, branch=branch, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=branch,
                commit_message=message or f"Save {model.name}",
            )
        except Exception as error:  # The Hub client also raises errors of its HTTP client and of the file system.
            raise DownloadError(f"{repository} can't be written to: {reason(hub, error)}") from error
    return commit.commit_url


def from_pretrained(
    name_or_folder: PathLike, *, revision: str | None = None, token: str | bool | None = None, **options: Any
) -> keras.Model:
    """Load published weights, or a model saved with `save_pretrained`, with `push_to_hub`, or by Keras to the Hub.

    The hashes of files from the Hub are checked, as for published weights. No code from the files is executed.

    Args:
        name_or_folder: A folder; a repository `"user/name"`, optionally with the prefix `hf://` or timm's `hf-hub:`; or
            a name from `list_models(pretrained=True)`, optionally with the prefix `timm/`. You can append a revision to
            the name of a repository or of published weights: `"user/name@v2"`.
        revision: A branch, tag or commit of the repository.
        token: Access token for a private repository; None for the token from `hf auth login` or `HF_TOKEN`.
        **options: Arguments of `create_model`, allowed only for published weights.

    Returns:
        A `keras.Model` that is not compiled. `preprocessing` returns its preprocessing, and `class_names_of` its class
        names.

    Raises:
        ValueError: `name_or_folder` is not a folder, a repository or the name of published weights, two different
            revisions are passed, or options are passed for anything other than published weights.
        CheckpointError: Files are missing or damaged, or don't belong together.
        DownloadError: The Hub can't be reached or has no such repository.
    """
    text = repository_of(os.fspath(name_or_folder))
    is_folder = Path(text).is_dir()
    if not is_folder:
        text, _, suffix = text.partition("@")
        if suffix and revision not in (None, suffix):
            raise ArgumentError(
                f"revision={revision!r} contradicts the revision in {text}@{suffix}: pass only one of them."
            )
        revision = revision or suffix or None
    published = without_hub(text)
    if published in WEIGHTS and not is_folder:
        return create_model(published + (f"@{revision}" if revision else ""), **options)
    if published in registry() and not is_folder:
        tagged = [name for name in WEIGHTS if name.startswith(f"{published}.")]
        raise ArgumentError(
            f"name_or_folder={text!r} is a model name without weights: "
            + (f"add a tag, such as {tagged[0]!r}, or " if tagged else "")
            + "build it with mobilenet_zoo.create_model."
        )
    if options:
        raise ArgumentError(
            f"{', '.join(options)}: allowed only for published weights; {text} is loaded as it was saved."
        )
    if is_folder:
        return _load(text, lambda file: Path(text) / file)
    if not is_repository(text):
        raise unknown_model("name_or_folder", text)
    try:
        return _load(text, lambda file: download_from_hub(text, file, revision, token))
    except DownloadError as error:
        if not Path(text).parent.is_dir():
            raise
        # A folder with a misspelled name looks like a repository.
        raise DownloadError(
            f"{text} is not a folder, and loading it as a repository failed: {error}", absent=error.absent
        ) from error


def class_names_of(model: keras.Model) -> list[str] | None:
    """Return the class names that a model was saved with, or None."""
    facts = facts_of(model)
    return list(facts.class_names) if facts and facts.class_names else None


def _load(source, find):
    """Load a model from the files whose paths `find(file_name)` returns. Error messages name `source`."""
    facts = _optional(find, FACTS)
    record = _read_json(facts) if facts else None
    config = _read_json(find(CONFIG))
    try:
        config.pop("compile_config", None)
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # Constructors can raise any error if the configuration is damaged.
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{source} can't be loaded: its {CONFIG} doesn't describe a model ({line}).") from error
    if not isinstance(model, keras.Model):
        raise CheckpointError(
            f"{source} can't be loaded: its {CONFIG} describes a {type(model).__name__}, not a keras.Model."
        )
    tensors = _optional(find, TENSORS) if record else None
    if record is not None and tensors is not None:
        load_into(model, StateDict.open(tensors, record.get("layout")))
    else:
        try:
            model.load_weights(find(WEIGHTS_H5))
        except (OSError, ValueError, KeyError) as error:
            line = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"{source} can't be loaded: its {WEIGHTS_H5} doesn't fit the model ({line})."
            ) from error
    return remember(model, _facts(record, source, model)) if record else model


def _optional(find, file):
    """Return the path of a file, or None if it doesn't exist."""
    try:
        path = Path(find(file))
    except DownloadError as error:
        if not error.absent:
            raise
        return None
    return path if path.is_file() else None


def _tensors(model):
    """Return the name of the first layout that covers all variables, and the tensors under that layout's names."""
    for layout in ("timm", "compact"):
        try:
            return layout, state_dict(model, layout)
        except ArgumentError:  # The library of this layout has no such model.
            continue
    return "native", {entry.name: _array(entry.variable) for entry in LAYOUTS["native"].entries(model)}


def _facts_record(model, transform, class_names, base):
    facts = dataclasses.asdict(transform)
    del facts["data_format"]
    return {
        "format": _FORMAT,
        "model": model.name,
        "base": base,
        "class_names": None if class_names is None else list(map(str, class_names)),
        "preprocessing": {name: list(fact) if isinstance(fact, tuple) else fact for name, fact in facts.items()},
    }


def _facts(record, source, model):
    """Return the `Facts` from a `mobilenet.json`, completed with the facts in the model's configuration."""
    try:
        if integer("format", record["format"], 1) > _FORMAT:
            raise CheckpointError(f"{source} was saved by a newer mobilenet-zoo: {UPDATE_HINT}.")
        config = record["preprocessing"]
        known = facts_of(model) or Facts()
        # The record of a model that normalizes images itself has no mean and std.
        mean, std = (getattr(known, key) if config[key] is None else config[key] for key in ("mean", "std"))
        names = record["class_names"]
        overrides = {"mean": mean, "std": std, "base": record["base"], "assumed": known.assumed}
        facts = Facts.from_config({**config, **overrides})
        return dataclasses.replace(facts, class_names=None if names is None else tuple(map(str, names)))
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} can't be loaded: its {FACTS} is damaged ({error}).") from error


def _check_names(model, class_names):
    outputs = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
    if class_names is not None and len(class_names) != outputs:
        raise ArgumentError(f"class_names has {len(class_names)} names, but {model.name} has {outputs} outputs.")


def _license(base):
    return WEIGHTS[base].license.lower() if base in WEIGHTS else None


def _array(variable):
    return np.ascontiguousarray(as_array(keras.ops.convert_to_numpy(variable)))


def _write_json(path, record):
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path):
    path = Path(path)
    if not path.is_file():
        subfolder = path.parent / "model"  # A training run saves its model there.
        hint = f" Did you mean {subfolder}?" if (subfolder / path.name).is_file() else ""
        raise CheckpointError(f"{path} does not exist: {path.parent} was not saved by save_pretrained or Keras.{hint}")
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ArgumentError(f"it is larger than {_MAX_JSON_BYTES >> 20} MiB")
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # Includes JSONDecodeError and UnicodeDecodeError.
        raise CheckpointError(f"{path} can't be read: {error}.") from error
