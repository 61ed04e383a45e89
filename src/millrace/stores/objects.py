"""Object storage as a store needs it: whole objects by name, made by one writer only, over any file system of fsspec.

`create` says who was first: S3's, Google's and Azure's storage refuse to make what is there (a condition of the request),
in a folder a hard link does. What may pass is tried again for a while (see `outages`). Knows nothing of keys and values;
see `remote`.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import secrets
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from millrace.run.errors import AnalysisFailed, MissingExtra, WrongQuestion
from millrace.run.urls import spoken
from millrace.stores.outages import patiently

T = TypeVar("T")
_EXTRAS = {
    "s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs"),
    "az": ("adlfs", "az"), "abfs": ("adlfs", "az"), "abfss": ("adlfs", "az"),
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3fs": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}}
}
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
_FINAL = {
    errno.EINVAL, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EMSGSIZE, errno.ENOTDIR,
    errno.EISDIR,
}  # fmt: skip
_MAY_PASS = (
    ("botocore.exceptions", ("HTTPClientError", "ConnectionError")),
    ("aiohttp", ("ClientError",)),
    ("azure.core.exceptions", ("ServiceRequestError", "ServiceResponseError")),
)
"""What libraries raise, besides OSError, when a server is out of reach."""
DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object: its size, and when it was made by the clock of those who keep it (seconds since 1970)."""

    size_bytes: int
    made_s: float


class Objects:
    """Objects below `url`. Names are relative, with "/" between parts. Thread-safe; not to be used after a fork."""

    def __init__(self, url: str, patience_s: float) -> None:
        self.url, self._patience_s = url, patience_s
        self._fs, root = _file_system(url)
        self._root = root.rstrip("/")
        self._is_folder = "file" in _protocols(self._fs)
        self._may_pass: tuple[type[Exception], ...] = (OSError, *_of_libraries())

    def read(self, name: str) -> bytes | None:
        """The object's bytes; None when there is none."""
        try:
            return self._call(lambda: bytes(self._fs.cat_file(self._at(name))))
        except FileNotFoundError:
            return None

    def download(self, name: str, path: str) -> bool:
        """The object into a file; False when there is none."""
        try:
            self._call(lambda: self._fs.get_file(self._at(name), path))
        except FileNotFoundError:
            return False
        return True

    def upload(self, path: str, name: str) -> None:
        """A file as an object, with a name that nobody else uses."""
        self._write(name, lambda at: self._fs.put_file(path, at), new=False)

    def create(self, name: str, data: bytes) -> bool:
        """Make the object, whole or not at all; False when another one has that name already."""
        try:
            self._write(name, lambda at: self._fs.pipe_file(at, data, mode="create"), new=True)
        except FileExistsError:
            return self.read(name) == data  # when the answer was lost on its way, it was this one
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._write(name, lambda at: self._fs.pipe_file(at, data), new=False)

    def delete(self, names: Iterable[str]) -> None:
        """Those that are there; it does no harm when they are gone."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._call(lambda name=name: self._fs.rm_file(self._at(name)))  # type: ignore[misc]

    def listed(self, folder: str) -> dict[str, Listed]:
        """What is below the folder, by name (with the folder); drafts of a folder, too."""

        def found() -> dict[str, Any]:
            self._fs.invalidate_cache()
            return dict(self._fs.find(self._at(folder), detail=True))

        try:
            infos = self._call(found)
        except FileNotFoundError:
            return {}
        cut = len(self._root) + 1
        return {path[cut:]: Listed(int(info["size"] or 0), _made_s(info)) for path, info in infos.items()}

    # -- within ----------------------------------------------------------------------------------------------------
    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _write(self, name: str, write: Callable[[str], object], new: bool) -> None:
        try:
            self._call(lambda: self._written(self._at(name), write, new))
        except FileNotFoundError as e:
            raise WrongQuestion(
                f"Nothing can be written to the store {spoken(self.url)}: it is not there ({e}). Make the bucket or "
                "container first."
            ) from e

    def _written(self, at: str, write: Callable[[str], object], new: bool) -> None:
        if not self._is_folder:
            write(at)  # object storage shows an object when it is whole
            return
        os.makedirs(os.path.dirname(at), exist_ok=True)
        draft = f"{at}.{secrets.token_hex(8)}{DRAFT}"
        try:
            write(draft)
            if new:
                os.link(draft, at)
            else:
                os.replace(draft, at)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)

    def _call(self, work: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return work()
            except PermissionError as e:
                raise WrongQuestion(
                    f"The store {spoken(self.url)} does not allow this ({e}). Look at the rights of the user, and at the "
                    "credentials that the environment gives."
                ) from e
            except (FileNotFoundError, FileExistsError) as e:
                raise _Answer(e) from e
            except OSError as e:
                if e.errno in _FINAL:
                    raise AnalysisFailed(
                        f"The store {spoken(self.url)} refused ({e}). What was finished is kept; put that right, and run "
                        "the same again."
                    ) from e
                raise

        try:
            return patiently(self.url, self._patience_s, self._may_pass, attempt)
        except _Answer as e:
            raise e.error from None


class _Answer(Exception):
    """Carries an answer that is a kind of OSError past those that may pass."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


def _file_system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    package, extra = _EXTRAS.get(scheme, ("fsspec", "remote"))
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url, skip_instance_cache=True, **_OPTIONS.get(package, {}))  # type: ignore[no-any-return]
    except ImportError as e:
        raise MissingExtra(package, extra, f"The store {spoken(url)}") from e
    except ValueError as e:
        raise WrongQuestion(
            f"{spoken(url)!r} is no url of a store: {e}. Stores are folders, s3://, gs://, az://, file://, redis://."
        ) from e


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _of_libraries() -> list[type[Exception]]:
    loaded = ((sys.modules.get(module), names) for module, names in _MAY_PASS)
    return [getattr(module, name) for module, names in loaded if module is not None for name in names]


def _made_s(info: dict[str, Any]) -> float:
    found = next((info[name] for name in _TIMES if info.get(name) is not None), 0.0)
    if isinstance(found, str):
        found = datetime.datetime.fromisoformat(found.replace("Z", "+00:00"))
    return found.timestamp() if isinstance(found, datetime.datetime) else float(found)
