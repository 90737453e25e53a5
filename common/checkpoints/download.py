"""Fetches files of models into the cache of the library that publishes them, and checks what arrived."""

import errno
import hashlib
import os
from pathlib import Path

import keras

from mobilenet_common.catalog import KERAS, TIMM
from mobilenet_common.errors import ArgumentError, DownloadError
from mobilenet_common.libraries import import_library
from mobilenet_common.writing import folder_beside


def download(checkpoint, include_top=True, revision=None):
    """Return the path of a checkpoint's file, downloaded unless the cache has it whole.

    timm's come from the Hugging Face Hub by huggingface_hub, with its cache, its settings (`HF_HOME`, `HF_ENDPOINT`,
    `HF_TOKEN`, `HF_HUB_OFFLINE`) and its progress bar; the others as keras.applications and torchvision fetch theirs.

    Args:
        checkpoint: A `Checkpoint`.
        include_top: Whether the classifier is needed; keras.applications has files without it.
        revision: A branch, tag or commit of a repository on the hub; None for its newest.

    Raises:
        ValueError: A revision of something that isn't on the hub.
        DownloadError: The file can't be had, or arrived broken twice; the message says why and what to do.
    """
    if checkpoint.source == TIMM:
        return download_from_hub(checkpoint.repository, checkpoint.file, revision)
    if revision is not None:
        raise ArgumentError(
            f"{checkpoint.name}@{revision}: only weights on the Hugging Face Hub have revisions, and these are "
            f"{checkpoint.source}'s. Leave out '@{revision}'."
        )
    if checkpoint.source == KERAS:
        return _from_keras(checkpoint, include_top)
    return _from_torchvision(checkpoint)


def download_from_hub(repository, file, revision=None, token=None):
    """Return the path of `file` in a repository on the Hugging Face Hub, whole by the hash that the hub announced.

    The hub's client compares sizes only. A file in its cache is therefore hashed at every use; a broken one is
    removed and fetched once more.
    """
    hub = hub_client()
    _remove_leftovers(hub, repository)
    for _ in range(2):
        try:
            options = {"revision": revision, "token": token, "library_name": "mobilenet-zoo"}
            path = Path(hub.hf_hub_download(repository, file, **options))
            expected = _announced_hash(hub, path, hub.hf_hub_url(repository, file, revision=revision), token)
            if expected is None or _hash(path, len(expected)) == expected:
                return path
            discard(path)
        except Exception as error:  # of the hub's, of its HTTP client's, or of the file system
            absent = isinstance(error, hub.errors.EntryNotFoundError) and _status(error) == 404
            message = f"{file} of {repository} can't be had: {reason(hub, error)}"
            raise DownloadError(message, absent=absent) from error
    raise DownloadError(
        f"{file} of {repository} arrived broken twice: its hash is not the one that the hub announces. Nothing of it "
        "was kept. Try again later, or name another revision behind an '@'."
    )


def hub_client():
    """Import and return huggingface_hub."""
    for module in ("constants", "errors", "file_download"):
        _library(f"huggingface_hub.{module}", "hub")
    return _library("huggingface_hub", "hub")


def discard(path: Path) -> None:
    """Remove a file from a cache, and what its link leads to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _announced_hash(hub, path, address, token):
    """Return the hash of a file on the hub, or None where it can't be known: offline, in a cache without links."""
    blob = path.resolve()
    if blob.parent.name == "blobs":
        return blob.name
    try:
        return hub.get_hf_file_metadata(address, token=token).etag
    except Exception:  # the file is there, so that nothing else needs the network
        return None


def _hash(path, digits):
    """Return what the hub calls a file by: the SHA-256 of a large one, the hash that Git gives a small one."""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove_leftovers(hub, repository):
    """Remove what a process that was killed had of a download; one that still runs holds the lock of its file."""
    import filelock

    cache = Path(hub.constants.HF_HUB_CACHE)
    folder = hub.file_download.repo_folder_name(repo_id=repository, repo_type="model")
    for part in (cache / folder / "blobs").glob("*.incomplete"):
        lock = cache / ".locks" / folder / f"{part.name.partition('.')[0]}.lock"
        try:
            with filelock.FileLock(lock, timeout=0):
                part.unlink(missing_ok=True)
        except (filelock.Timeout, OSError):
            continue


def reason(hub, error):
    """Return why the hub's client failed and what to do, from the error and its causes."""
    cache, endpoint = hub.constants.HF_HUB_CACHE, hub.constants.ENDPOINT
    chain = list(_causes(error))
    if any(isinstance(cause, hub.errors.OfflineModeIsEnabled) for cause in chain) or hub.constants.HF_HUB_OFFLINE:
        return f"offline mode is on (HF_HUB_OFFLINE) and it is not whole in {cache}. Go online once to fetch it."
    statuses = [status for cause in chain if (status := _status(cause))]
    if statuses:
        return _status_reason(hub, chain, statuses[0], endpoint)
    return _system_reason(chain, cache) or (
        f"{endpoint} can't be reached ({_first_line(chain[-1])}). Check the connection and try again, or set "
        "HF_ENDPOINT to a mirror."
    )


def _status_reason(hub, chain, status, endpoint):
    def is_a(name):
        return any(isinstance(cause, getattr(hub.errors, name)) for cause in chain)

    if is_a("GatedRepoError"):
        return "its repository is gated. Ask for access on its page, then log in by `hf auth login` or set HF_TOKEN."
    if is_a("RevisionNotFoundError"):
        return "its repository has no such revision. Name a branch, a tag or a commit that it has."
    if is_a("EntryNotFoundError") and status == 404 and not is_a("RepositoryNotFoundError"):
        return f"{endpoint} has no such file in that repository (404). Check the revision, or HF_ENDPOINT if it is set."
    if is_a("RepositoryNotFoundError") or status in (401, 403):
        return (
            f"{endpoint} knows no such repository, or doesn't show it to you ({status}). If it is private, log in by "
            "`hf auth login` or set HF_TOKEN; if HF_TOKEN is set, check that it is valid."
        )
    if status == 429:
        return f"{endpoint} turns away too many requests (429). Wait some minutes; with HF_TOKEN set it allows more."
    if status >= 500:
        return f"{endpoint} is failing ({status}). Try again later."
    return f"{endpoint} answered {status}: {_first_line(chain[0])}"


def _system_reason(chain, folder):
    for cause in chain:
        number = getattr(cause, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of {folder} is full. Make room, or set HF_HOME to a folder on another one."
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{folder} can't be written to. Set HF_HOME to a folder that can."
    return None


def _causes(error):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error):
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _from_keras(checkpoint, include_top):
    """Download as keras.applications does, to where it keeps its files, but whole or not at all."""
    index = 0 if include_top else 1
    file = (checkpoint.file, checkpoint.no_top_file)[index]
    md5 = checkpoint.md5[index] if checkpoint.md5 else None
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    target = Path(home) / "models" / file

    def fetch(temporary):
        return keras.utils.get_file(
            file, checkpoint.repository + file, cache_subdir=str(temporary), file_hash=md5, hash_algorithm="auto"
        )

    if target.exists() and md5 and hashlib.md5(target.read_bytes()).hexdigest() != md5:
        target.unlink()
    return _whole(target, fetch, "KERAS_HOME")


def _from_torchvision(checkpoint):
    """Download as torchvision does, to where it keeps its files; the name ends with the start of the SHA-256."""
    torch_hub = _library("torch.hub", "torch")
    prefix = checkpoint.file.rpartition("-")[2].partition(".")[0]
    target = Path(torch_hub.get_dir()) / "checkpoints" / checkpoint.file

    def fetch(temporary):
        path = os.path.join(temporary, checkpoint.file)
        torch_hub.download_url_to_file(checkpoint.repository + checkpoint.file, path, prefix)
        return path

    if target.exists() and not _hash(target, 64).startswith(prefix):
        target.unlink()
    return _whole(target, fetch, "TORCH_HOME")


def _whole(target, fetch, setting):
    """Return `target`, which `fetch(folder)` puts into a folder of its own first: no other process sees half of it."""
    if target.exists():
        return target
    try:
        with folder_beside(target) as folder:
            os.replace(fetch(folder), target)
    except Exception as error:  # Keras raises plain Exceptions, PyTorch and the file system their own
        why = _system_reason(list(_causes(error)), target.parent)
        why = why.replace("HF_HOME", setting) if why else f"{_first_line(error)}. Try again later."
        raise DownloadError(f"{target.name} can't be had: {why}") from error
    return target


def _library(module, extra):
    return import_library(module, extra, "Downloading published weights", DownloadError)
