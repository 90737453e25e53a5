"""A model of one's own as a folder or a repository on the Hugging Face Hub: saved whole, found again, explained."""

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
_MOST_BYTES = 1 << 24  # of a file that only describes


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
    """Save a model, with all that one needs to use it, as a folder.

    The folder holds Keras's own files (`config.json`, `metadata.json`, `model.weights.h5`), the same weights as
    `model.safetensors`, by timm's names where timm has such a model, `mobilenet.json` with what belongs to the model
    beside its layers, and `README.md`, a model card. The optimizer's state isn't saved. As a repository on the Hugging
    Face Hub it loads by `from_pretrained`, and, after `import mobilenet_zoo`, by
    `keras.saving.load_model("hf://user/name")`.

    Args:
        model: A functional or `Sequential` model of this library or around one of it, fine-tuned or fused or as it was
            built.
        folder: Made if it isn't there; files of the same names are replaced when the new ones are whole.
        class_names: A name for each output; None for those that the model was loaded with.
        transform: A `Preprocessing` that the model was evaluated with; None for `preprocessing(model)`.
        dataset: What it was trained on, for the card.
        metrics: `{name: number}`, what it scored, for the card: `{"top-1 accuracy": 0.93}`.
        license: An identifier such as `"apache-2.0"`, for the card; None for that of the weights it started from.
        description: A paragraph for the card.

    Returns:
        The folder's `pathlib.Path`.

    Raises:
        ValueError: An argument doesn't fit the model.
    """
    as_functional(model, "save_pretrained")  # raises for what can't be built again
    known = facts_of(model)
    if class_names is None and known is not None:
        class_names = known.class_names
    _check_names(model, class_names)
    class_names = class_names and [printable(name) for name in class_names]
    metrics = {str(name): float(value) for name, value in (metrics or {}).items()}
    is_own_transform = transform is not None
    transform = preprocessing(model) if transform is None else transform
    base = known.base if known else None
    layout, tensors = _tensors(model)
    facts = _facts_record(model, transform, class_names, base)
    facts |= {"layout": layout, "dataset": dataset, "metrics": metrics}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_beside(folder / FACTS) as part:
        plain = keras.models.clone_model(model)  # without the optimizer
        plain.set_weights(model.get_weights())
        if is_own_transform:
            use_transform(plain, transform, base)
        plain.save(part / "model.keras")
        with zipfile.ZipFile(part / "model.keras") as archive:
            archive.extractall(part, [name for name in archive.namelist() if not name.startswith("assets")])
        (part / "model.keras").unlink()
        write(part / TENSORS, tensors, {"format": "pt", "layout": layout, **header_of(plain)})
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
    """Save a model as `save_pretrained` does, into a repository on the Hugging Face Hub, which is made if need be.

    Args:
        model: As for `save_pretrained`.
        repository: `"user/name"`.
        private: Whether a new repository is private; None for the owner's default.
        token: Of an account that may write there; None for the one that `hf auth login` or `HF_TOKEN` gave.
        branch: None for the main one.
        message: Of the commit.
        **described: The arguments of `save_pretrained` that describe the model.

    Returns:
        The address of the commit.

    Raises:
        DownloadError: The hub can't be reached or refuses; the message says why.
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
        except Exception as error:  # of the hub's, of its HTTP client's, or of the file system
            raise DownloadError(f"{repository} can't be written to: {reason(hub, error)}") from error
    return commit.commit_url


def from_pretrained(
    name_or_folder: PathLike, *, revision: str | None = None, token: str | bool | None = None, **options: Any
) -> keras.Model:
    """Load what `save_pretrained` or `push_to_hub` saved, what Keras saved to the hub, or published weights.

    Files from the hub are checked as published weights are. Nothing that is in a file is run.

    Args:
        name_or_folder: A folder; a repository, `"user/name"`, with or without `hf://` or timm's `hf-hub:` before it;
            or a name of `list_models(pretrained=True)`, also as `"timm/…"`. A revision may follow the name of a
            repository or of published weights: `"user/name@v2"`.
        revision: A branch, tag or commit of the repository.
        token: For a private repository; None for the one that `hf auth login` or `HF_TOKEN` gave.
        **options: Arguments of `create_model`, for published weights only.

    Returns:
        A `keras.Model`, not compiled. `preprocessing` knows how to feed it, and `class_names_of` what its classes are
        called.

    Raises:
        ValueError: Neither a folder nor a repository's name, two revisions, or options for a model that is loaded
            whole.
        CheckpointError: Files are missing or damaged, or don't fit each other.
        DownloadError: The hub can't be reached or has no such repository.
    """
    text = repository_of(os.fspath(name_or_folder))
    is_folder = Path(text).is_dir()
    if not is_folder:
        text, _, at = text.partition("@")
        if at and revision not in (None, at):
            raise ArgumentError(f"revision={revision!r} is not the one in {text}@{at}: give one of them.")
        revision = revision or at or None
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
            f"{', '.join(options)}: options are for published weights; {text} is loaded as it was saved."
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
        # A folder whose name is misspelled looks like a repository.
        raise DownloadError(f"{text} is not a folder, and as a repository: {error}", absent=error.absent) from error


def class_names_of(model: keras.Model) -> list[str] | None:
    """Return the names of a model's outputs, as it was saved with them, or None."""
    facts = facts_of(model)
    return list(facts.class_names) if facts and facts.class_names else None


def _load(source, find):
    """Return the model whose files `find(name)` gives the paths of."""
    facts = _optional(find, FACTS)
    record = _read_json(facts) if facts else None
    config = _read_json(find(CONFIG))
    try:
        config.pop("compile_config", None)
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # whatever the constructors of a damaged configuration raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{source} can't be loaded: its {CONFIG} describes no model ({line}).") from error
    if not isinstance(model, keras.Model):
        raise CheckpointError(f"{source} can't be loaded: its {CONFIG} describes a {type(model).__name__}.")
    tensors = _optional(find, TENSORS) if record else None
    if record is not None and tensors is not None:
        load_into(model, StateDict.open(tensors, record.get("layout")))
    else:
        try:
            model.load_weights(find(WEIGHTS_H5))
        except (OSError, ValueError, KeyError) as error:
            line = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{source} can't be loaded: its {WEIGHTS_H5} doesn't fit ({line}).") from error
    return remember(model, _facts(record, source, model)) if record else model


def _optional(find, file):
    try:
        path = Path(find(file))
    except DownloadError as error:
        if not error.absent:
            raise
        return None
    return path if path.is_file() else None


def _tensors(model):
    """Return the layout that has names for all of the model's variables, and the tensors by those names."""
    for layout in ("timm", "compact"):
        try:
            return layout, state_dict(model, layout)
        except ArgumentError:  # it has no such model
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
    """Return the `Facts` in a `mobilenet.json`; the model's own are in its configuration, unless it is an older one."""
    try:
        if integer("format", record["format"], 1) > _FORMAT:
            raise CheckpointError(f"{source} was saved by a newer mobilenet-zoo: {UPDATE_HINT}.")
        given = record["preprocessing"]
        inside = facts_of(model) or Facts()  # of a model that normalizes inside
        mean, std = (getattr(inside, key) if given[key] is None else given[key] for key in ("mean", "std"))
        names = record["class_names"]
        own = {"mean": mean, "std": std, "base": record["base"], "assumed": inside.assumed}
        facts = Facts.from_config({**given, **own})
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
        inside = path.parent / "model"  # of a training run
        hint = f" Did you mean {inside}?" if (inside / path.name).is_file() else ""
        raise CheckpointError(f"{path} is not there: {path.parent} was not saved by save_pretrained or Keras.{hint}")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ArgumentError("it is too large")
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's and UTF-8's errors are such
        raise CheckpointError(f"{path} can't be read: {error}.") from error
