"""ModelScope's own client, asked for a repository's list of files and for the files; its errors in words.

The client resumes what was cut, checks sizes and the sums that the hub states, and honours MODELSCOPE_CACHE,
MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN. `modelscope_hub` is what `modelscope.hub` hands everything to, and does
not bring torch. Knows no model: a repository, patterns and a folder come in.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import logging
import os
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from gen.errors import DownloadFailed, HubUnreachable
from gen.pull.known import Repository
from gen.pull.store import Entry, Progress

PAUSE_SECONDS = 3.0  # before a pull that broke is tried once more
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger(__name__)


def prepare_client(environment: MutableMapping[str, str]) -> None:
    """Set what the client reads when it is first imported, and keep it silent, unless the operator has set it.

    It gives a file an hour, retries included: too little for 24 GB over less than 55 Mbit/s.
    """
    environment.setdefault("MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT", str(14 * 86400))
    said = logging.getLogger("modelscope_hub")
    if "MODELSCOPE_LOG_LEVEL" not in environment and not said.handlers:
        # Not by that variable: modelscope itself reads a number there, and would break in a process begun by this one.
        said.addHandler(logging.NullHandler())
        said.propagate = False


def list_files(repository: Repository) -> list[Entry]:
    """What the hub has of it, with sizes and sums; raise HubUnreachable or DownloadFailed."""
    from modelscope_hub import HubApi

    with _worded(repository.name):
        api = HubApi()
        endpoint = api.resolve_endpoint_for_read(repository.name)
        found = HubApi(endpoint=endpoint).list_repo_files(repository.name, "model")
    files = [file for file in found if not file.is_dir and is_wanted(file.path, repository.patterns)]
    for file in files:
        _check_path(file.path, repository.name)
    missing = {file.path for file in repository.files if "/" not in file.path} - {file.path for file in files}
    if missing:
        raise DownloadFailed(
            f"The hub's {repository.name} has no {min(missing)} any more: Kiln does not know its new name."
        )
    return [
        Entry(path=file.path, bytes=file.size, sha256=(file.sha256 or "").lower(), source=repository.name)
        for file in files
    ]


def fetch(
    repository: str, paths: Sequence[str], *, cache: Path, progress: Progress, sleep: Callable[[float], None]
) -> Path:
    """Bring these files here, what is whole already not again; the folder that they are in.

    Once more after a pause if the network broke it. Raise DownloadFailed; what was fetched stays, and is gone on with.
    """
    from modelscope_hub.errors import FileIntegrityError, HubError

    for attempt in (1, 2):
        try:
            return _snapshot(repository, paths, cache=cache, progress=progress)
        except HubError as error:
            causes = list(getattr(error, "failed_files", {}).values()) or [error]
            broken = error.retryable and not any(isinstance(cause, FileIntegrityError) for cause in causes)
            if attempt == 2 or not broken:
                with _worded(repository):
                    raise
            _log.debug("the pull broke, and is tried once more", exc_info=True)
            sleep(PAUSE_SECONDS)
    raise AssertionError("the second attempt returns or raises")


def cached(repository: str, cache: Path) -> Path | None:
    """The folder that the client keeps it in, if there is one; asks no network."""
    from modelscope_hub.compat import snapshot_download
    from modelscope_hub.errors import CacheError

    try:
        return Path(snapshot_download(repository, cache_dir=str(cache), local_files_only=True))
    except CacheError:
        return None


def _snapshot(repository: str, paths: Sequence[str], *, cache: Path, progress: Progress) -> Path:
    from modelscope_hub import ProgressCallback
    from modelscope_hub.compat import snapshot_download

    class Told(ProgressCallback):
        def update(self, size: int) -> None:
            progress(self.filename, size)

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its own bars, one a file
        folder = snapshot_download(
            repository,
            cache_dir=str(cache),
            allow_patterns=[_literal(path) for path in paths],
            max_workers=2,
            progress_callbacks=[Told],
        )
    return Path(folder)


def _literal(path: str) -> str:
    """The pattern that fits this path alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def is_wanted(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path of a repository is among what is taken of it."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _check_path(path: str, repository: str) -> None:
    """A hub's word is no reason to write outside the folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not path.isprintable():
        raise DownloadFailed(
            f"The hub's {repository} names a file outside its folder: {path[:80]!r}. Nothing was fetched."
        )


@contextmanager
def _worded(repository: str) -> Iterator[None]:
    """Translate what the client raises."""
    from modelscope_hub.errors import HubError
    from requests import RequestException

    try:
        yield
    except (HubError, RequestException, OSError) as error:
        _log.debug("the client failed", exc_info=True)
        failed = getattr(error, "failed_files", {})
        for path, cause in failed.items():
            raise _reason(cause, f"{repository}: {path}") from error
        raise _reason(error, repository) from error


def _reason(error: BaseException, what: str) -> DownloadFailed:
    from modelscope_hub import errors

    if isinstance(error, errors.FileIntegrityError):
        return DownloadFailed(
            f"{what} came with another size or checksum than the hub states, each time. Nothing of it was kept; "
            "try again later, or from another network."
        )
    if isinstance(error, errors.AuthenticationError | errors.PermissionDeniedError):
        return DownloadFailed(
            f"The hub does not give out {what} (HTTP 401 or 403). Look at the repository's page: it may want a login "
            "and its terms accepted; then set MODELSCOPE_API_TOKEN."
        )
    if isinstance(error, errors.NotExistError):
        return DownloadFailed(f"The hub has no {what} (HTTP 404). Is MODELSCOPE_ENDPOINT right?")
    if isinstance(error, errors.ServerError | errors.RateLimitError):
        return DownloadFailed(f"The hub is in trouble over {what}. What came is kept: pull again later.")
    if isinstance(error, OSError) and error.errno in _FULL:
        return DownloadFailed(f"The disk is full: {what} is not whole. Make room and pull again: what came is kept.")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return DownloadFailed(
            f"{what} cannot be written here: {error.strerror}. Set MODELSCOPE_CACHE to another folder."
        )
    if isinstance(error, errors.NetworkError | ConnectionError | TimeoutError):
        return HubUnreachable(f"The hub cannot be reached, or the connection broke, over {what}. What came is kept.")
    return DownloadFailed(f"{what} could not be fetched: {str(error).splitlines()[0]}. What came is kept.")
