"""The objects under one address of an object storage, by fsspec: listed, read, put and removed.

A put is atomic. There is no rename and no lock. What a storage raises becomes one sentence that names the cure.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from semdpo import disk, extras
from semdpo.errors import ConfigError, StoreError

PAUSES = (1.0, 4.0, 16.0)  # seconds between the tries of one request; the libraries below try again by themselves, too
# What is no object storage: a file there can be seen half written.
_FILES = ("file", "local", "ftp", "sftp", "ssh", "smb", "http", "https")
_UNFIT = re.compile(r"[?#*\[\]\\\s]|/\.{1,2}(/|$)")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|SIGNATURE|CREDENTIAL", re.IGNORECASE)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")


class Storage:
    """The objects under one address; their names are relative to it.

    Args:
        address: such as ``s3://bucket/my-run``.

    Raises:
        ConfigError: it is no address of an object storage, or the library for it is not installed.
    """

    def __init__(self, address: str) -> None:
        _refuse_unfit(address)
        self.address = address
        self._files, self._root = _opened(address)
        self._answered = False

    def names(self) -> dict[str, int]:
        """The objects' names and their sizes in bytes; names that would lead out of a folder are left out."""
        found: dict[str, Any] = self._asked(lambda: self._files.find(self._root, detail=True), absent={})
        prefix = f"{self._root.strip('/')}/"
        below = {name.lstrip("/"): int(info["size"] or 0) for name, info in found.items()}
        sizes = {name.removeprefix(prefix): size for name, size in below.items() if name.startswith(prefix)}
        return {name: size for name, size in sizes.items() if is_inside(name)}

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        data: bytes | None = self._asked(lambda: self._files.cat_file(self._path(name)), absent=None)
        return data

    def get(self, name: str, path: Path) -> bool:
        """Copies an object into a file; False where there is no such object.

        Args:
            name: the object's name.
            path: the file; it is replaced once all of the object is here.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name[:100]}.part")
        try:
            if self._asked(lambda: self._files.get_file(self._path(name), str(half)) or True, absent=False):
                half.replace(path)
                return True
            return False
        finally:
            half.unlink(missing_ok=True)

    def put(self, path: Path, name: str) -> None:
        """Copies a file into an object, which has the old bytes until all of the new ones are there."""
        self._asked(lambda: self._files.put_file(str(path), self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Writes an object."""
        self._asked(lambda: self._files.pipe_file(self._path(name), data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object unless there is one; False where there is one.

        A storage that cannot do both at once writes it in any case.
        """
        passing = (FileExistsError, NotImplementedError, TypeError)
        try:
            self._asked(lambda: self._files.pipe_file(self._path(name), data, mode="create"), passing=passing)
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError):
            self.write(name, data)
        except StoreError as error:
            if getattr(error.__cause__, "errno", None) != errno.ENOSYS:
                raise
            self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Removes an object, if it is there."""
        self._asked(lambda: self._files.rm_file(self._path(name)), absent=None)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _asked(self, ask: Callable[[], Any], passing: tuple[type[Exception], ...] = (), **absent: Any) -> Any:
        """What the storage answers; once it has answered, a request that fails is sent again after each pause.

        Args:
            ask: asks it.
            passing: the classes of errors that the caller handles.
            absent: the answer where there is no such object, as ``absent``.

        Raises:
            StoreError: it does not answer, or refuses; the message gives the reason.
        """
        for pause in (*(PAUSES if self._answered else ()), None):
            try:
                answer = ask()
                self._answered = True
                return answer
            except Exception as error:  # the libraries of storages have their own classes of errors
                if isinstance(error, passing):
                    raise
                if isinstance(error, FileNotFoundError) and absent:
                    return absent["absent"]
                if pause is None or _is_lasting(error):
                    raise self._explained(error) from error
                time.sleep(pause)
        raise AssertionError

    def _explained(self, error: Exception) -> StoreError:
        if disk.out_of_space(error):
            return disk.unwritable(disk.cache_folder(), error)
        if isinstance(error, FileNotFoundError):
            bucket = self._root.strip("/").split("/")[0]
            why = f"there is no '{bucket}'; make it with the storage's own tools, or correct the address"
        elif type(error).__name__ in _NO_CREDENTIALS:
            why = f"no credentials were found ({self._reason(error)}); set them as for the storage's own tools"
        elif isinstance(error, PermissionError):
            why = f"access was denied ({self._reason(error)}); use credentials that may list, read, write and remove"
        else:
            why = f"the storage cannot be used ({self._reason(error)}); check the address and the connection, then run"
            why += " the same command again without --fresh, which resumes"
        return StoreError(f"{self.address}: {why}")

    def _reason(self, error: Exception) -> str:
        """What an error says, in one line of at most 200 characters, without any secret."""
        text = " ".join(str(error).split()) or type(error).__name__
        secrets = [value for name, value in os.environ.items() if _SECRET.search(name)]
        secrets += [str(value) for name, value in self._files.storage_options.items() if _SECRET.search(name)]
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= 6:
                text = text.replace(secret, "…")
        return text if len(text) <= 200 else f"{text[:200]}…"


def _is_lasting(error: Exception) -> bool:
    """Whether the same request would fail again."""
    if isinstance(error, PermissionError | FileNotFoundError | NotImplementedError | TypeError | AttributeError):
        return True
    named = type(error).__name__ in (*_NO_CREDENTIALS, "ParamValidationError")
    return named or getattr(error, "errno", None) == errno.ENOSYS or disk.out_of_space(error)


def _refuse_unfit(address: str) -> None:
    scheme, rest = address.split("://", 1)
    user, at, _ = rest.rpartition("@")
    if at and ":" in user:
        raise ConfigError(
            f"the address {scheme}://… holds a password, which others could read; set credentials as for the storage's "
            "own tools"
        )
    if scheme in _FILES:
        raise ConfigError(
            f"{address} is no address of an object storage; give a folder of this machine, or an address such as "
            "s3://bucket/my-run"
        )
    if ":" in scheme or _UNFIT.search(f"/{rest}") or not rest.strip("/"):
        raise ConfigError(
            f"{address} is no address for a run; write it like s3://bucket/my-run, without spaces and ? # * [ ] \\"
        )


def _opened(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it."""
    import fsspec
    from fsspec.registry import known_implementations

    scheme = address.split("://", 1)[0]
    if scheme in ("s3", "s3a"):
        extras.require(s3=address)
    try:
        # Listings are never kept, for other machines write too.
        found: tuple[Any, str] = fsspec.core.url_to_fs(address, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        cure = known_implementations.get(scheme, {}).get("err") or f"install the package of fsspec for {scheme}://"
        raise ConfigError(f"{address} needs a package that is not installed: {cure}") from error
    except Exception as error:
        if scheme not in fsspec.available_protocols():
            raise ConfigError(f"{address}: {scheme}:// is no known storage; take s3://, gs:// or az://") from error
        kind = type(error).__name__  # its text may show credentials
        raise ConfigError(f"{address} cannot be opened ({kind}); check the address and the credentials") from error
    return found


def is_inside(name: str) -> bool:
    """Whether a name stays in the folder that it is relative to, and can be a file's name."""
    return (
        PurePosixPath(name).as_posix() == name
        and not name.startswith("/")
        and ".." not in name.split("/")
        and not ("\\" in name or "\0" in name or name == ".")
    )
