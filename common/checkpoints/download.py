"""Downloads published weights into the cache of the library that publishes them, and verifies the files."""

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
    """Return the path of a checkpoint's file; download the file unless the cache has a complete copy.

    timm's weights are downloaded from the Hugging Face Hub with huggingface_hub, its cache, its settings (`HF_HOME`,
    `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`) and its progress bar. Weights of keras.applications and torchvision are
    downloaded the way these libraries download them, into the same folder.

    Args:
        checkpoint: A `Checkpoint`.
        include_top: Whether the classifier is needed; keras.applications also publishes files without it.
        revision: Branch, tag or commit of a repository on the hub; None for the newest revision.

    Raises:
        ValueError: If a revision is given for weights that aren't on the hub.
        DownloadError: If the file can't be downloaded, or if the download is corrupt; the message gives the reason
            and says what to do.
    """
    if checkpoint.source == TIMM:
        return download_from_hub(checkpoint.repository, checkpoint.file, revision)
    if revision is not None:
        raise ArgumentError(
            f"{checkpoint.name}@{revision} is not allowed: only weights on the Hugging Face Hub have revisions, and "
            f"these come from {checkpoint.source}. Leave out '@{revision}'."
        )
    if checkpoint.source == KERAS:
        return _from_keras(checkpoint, include_top)
    return _from_torchvision(checkpoint)


def download_from_hub(repository, file, revision=None, token=None):
    """Return the local path of `file` from a repository on the Hugging Face Hub, after verifying its hash.

    The hub's client only compares file sizes. This function therefore hashes a cached file on every use; a corrupt file
    is removed and downloaded once more.
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
        except Exception as error:  # from the hub, its HTTP client or the file system
            absent = isinstance(error, hub.errors.EntryNotFoundError) and _status(error) == 404
            message = f"{file} of {repository} can't be downloaded: {reason(hub, error)}"
            raise DownloadError(message, absent=absent) from error
    raise DownloadError(
        f"{file} of {repository} was corrupt after two downloads: its hash differs from the hub's. Both copies were "
        "removed. Try again later, or append another revision to the name after an '@'."
    )


def hub_client():
    """Import and return huggingface_hub."""
    for module in ("constants", "errors", "file_download"):
        _library(f"huggingface_hub.{module}", "hub")
    return _library("huggingface_hub", "hub")


def discard(path: Path) -> None:
    """Remove a file from a cache, and the target of its symbolic link."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _announced_hash(hub, path, address, token):
    """Return the hash of a file on the hub, or None if it is unknown (offline, in a cache without symbolic links)."""
    blob = path.resolve()
    if blob.parent.name == "blobs":
        return blob.name
    try:
        return hub.get_hf_file_metadata(address, token=token).etag
    except Exception:  # The file exists, so a failing network must not prevent its use.
        return None


def _hash(path, digits):
    """Return the hash by which the hub identifies a file: SHA-256 for large files, Git's blob hash for small ones."""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove_leftovers(hub, repository):
    """Remove the partial downloads of killed processes; a running process holds the lock of its file."""
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
    """Return a sentence that says why the hub's client failed and what to do, from the error and its causes."""
    cache, endpoint = hub.constants.HF_HUB_CACHE, hub.constants.ENDPOINT
    chain = list(_causes(error))
    if any(isinstance(cause, hub.errors.OfflineModeIsEnabled) for cause in chain) or hub.constants.HF_HUB_OFFLINE:
        return f"offline mode is on (HF_HUB_OFFLINE), and {cache} has no complete copy. Go online to download it once."
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
        return "the repository is gated. Ask for access on its page, then log in with `hf auth login` or set HF_TOKEN."
    if is_a("RevisionNotFoundError"):
        return "the repository has no such revision. Pass one of its branches, tags or commits."
    if is_a("EntryNotFoundError") and status == 404 and not is_a("RepositoryNotFoundError"):
        return f"{endpoint} has no such file in that repository (404). Check the revision, or HF_ENDPOINT if it is set."
    if is_a("RepositoryNotFoundError") or status in (401, 403):
        return (
            f"{endpoint} has no such repository, or you have no access to it ({status}). If it is private, log in with "
            "`hf auth login` or set HF_TOKEN; if HF_TOKEN is set, check that it is valid."
        )
    if status == 429:
        return f"{endpoint} rejects too many requests (429). Wait some minutes, or set HF_TOKEN for a higher limit."
    if status >= 500:
        return f"{endpoint} has a server error ({status}). Try again later."
    return f"{endpoint} returned status {status}: {_first_line(chain[0])}"


def _system_reason(chain, folder):
    for cause in chain:
        number = getattr(cause, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of {folder} is full. Free some space, or set HF_HOME to a folder on another disk."
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{folder} is not writable. Set HF_HOME to a writable folder."
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
    """Download atomically to the folder in which keras.applications keeps its files."""
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
    return _fetch_once(target, fetch, "KERAS_HOME")


def _from_torchvision(checkpoint):
    """Download to the folder in which torchvision keeps its files; the file name contains the start of its hash."""
    torch_hub = _library("torch.hub", "torch")
    prefix = checkpoint.file.rpartition("-")[2].partition(".")[0]
    target = Path(torch_hub.get_dir()) / "checkpoints" / checkpoint.file

    def fetch(temporary):
        path = os.path.join(temporary, checkpoint.file)
        torch_hub.download_url_to_file(checkpoint.repository + checkpoint.file, path, prefix)
        return path

    if target.exists() and not _hash(target, 64).startswith(prefix):
        target.unlink()
    return _fetch_once(target, fetch, "TORCH_HOME")


def _fetch_once(target, fetch, setting):
    """Return `target`; if it doesn't exist, `fetch(folder)` downloads it to a temporary folder first.

    Other processes therefore never see a partial file. `setting` is the environment variable that sets the folder.
    """
    if target.exists():
        return target
    try:
        with folder_beside(target) as folder:
            os.replace(fetch(folder), target)
    except Exception as error:  # Keras raises plain Exceptions; PyTorch and the file system raise other types.
        cause = _system_reason(list(_causes(error)), target.parent)
        cause = cause.replace("HF_HOME", setting) if cause else f"{_first_line(error)}. Try again later."
        raise DownloadError(f"{target.name} can't be downloaded: {cause}") from error
    return target


def _library(module, extra):
    return import_library(module, extra, "Downloading published weights", DownloadError)
