"""The model hub: what has been downloaded, and downloads of the rest; each failure is one sentence with its cure."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from semdpo.errors import ModelError
from semdpo.models.catalogue import WEIGHTS
from semdpo.models.loading import quiet

INDEX = ".safetensors.index.json"


def fetch(repository: str, name: str, files: Sequence[str], skipped: Sequence[str]) -> Path:
    """The folder of a repository's files; missing files are downloaded.

    Args:
        repository: The repository, ``owner/name``.
        name: The name that the user wrote.
        files: The patterns of the files that are needed.
        skipped: The patterns of files that are not needed.

    Raises:
        ModelError: There is neither a connection nor a whole local copy, no such repository, no permission, or no
            space; or the repository has no weights of these names.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    what = f"model '{name}'" if name == repository else f"model '{name}' ({repository})"
    try:
        with quiet():
            folder = Path(snapshot_download(repository, allow_patterns=list(files), ignore_patterns=list(skipped)))
    except GatedRepoError as error:
        raise ModelError(
            f"{what} is gated; accept its licence at https://huggingface.co/{repository}, then log in with "
            "`hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{what} is not on the hub, or is private; check the name, or log in with `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise ModelError(
            f"{what} has not been downloaded, and {why}; get it where there is a connection with "
            f"`hf download {repository}`, or give its folder, or put it under $SEMDPO_MODELS/{name}"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{what} could not be fetched ({_first_line(error)}); try `hf download {repository}`"
        ) from error
    if (lacking := _lacking(folder, files, skipped)) is not None:
        raise ModelError(
            f"{what} is here without all of its weights ({lacking}); get them where there is a connection with "
            f"`hf download {repository}`, or give its folder, or put it under $SEMDPO_MODELS/{name}"
        )
    return folder


def cached(repository: str, files: Sequence[str], skipped: Sequence[str]) -> bool:
    """Whether a repository has been downloaded, found out without a connection."""
    return downloaded(repository, files, skipped) is not None


def downloaded(repository: str, files: Sequence[str], skipped: Sequence[str]) -> Path | None:
    """The folder of a repository that has been downloaded, found without a connection; None where it has not."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            folder = snapshot_download(
                repository, allow_patterns=list(files), ignore_patterns=list(skipped), local_files_only=True
            )
    except (OSError, ValueError):
        return None
    return None if _lacking(Path(folder), files, skipped) is not None else Path(folder)


def _lacking(folder: Path, files: Sequence[str], skipped: Sequence[str]) -> str | None:
    """A file of weights that a repository's local copy lacks; None where it has all.

    Other programs may have fetched a model's tokenizer alone, or only some of the files that its weights are in. The
    library knows that of its own downloads only.
    """
    if not (wanted := [file for file in files if file.endswith(WEIGHTS)]):
        return None
    exact = [file for file in wanted if "*" not in file]
    if absent := next((file for file in exact if not (folder / file).is_file()), None):
        return absent
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if not any(name.endswith(WEIGHTS) for name in names):
        return wanted[0]
    listed = {part for name in names if name.endswith(INDEX) for part in _listed(folder / name, folder)}
    needed = (part for part in sorted(listed - set(names)) if any(fnmatch(part, file) for file in files))
    return next((part for part in needed if not any(fnmatch(part, file) for file in skipped)), None)


def _listed(index: Path, folder: Path) -> set[str]:
    """The files that an index of weights names, relative to a folder; none where it cannot be read."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return {(index.parent / name).relative_to(folder).as_posix() for name in names}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # reported where the model is loaded
        return set()


def ask(repository: str) -> Literal["there", "gated", "absent", "unreachable"]:
    """Whether this user can download a repository from the hub."""
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with quiet():
            auth_check(repository)
    except GatedRepoError:
        return "gated"
    except RepositoryNotFoundError:
        return "absent"
    except Exception:  # the class of a lost connection's error depends on the hub's HTTP library
        return "unreachable"
    return "there"


def cache_folder() -> Path:
    """The folder of downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def licence(repository: str) -> str | None:
    """The licence that a data set on the hub names; None if it names none, or the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        with quiet():
            card = HfApi().dataset_info(repository, timeout=5).card_data
    except Exception:  # see ask
        return None
    name = None if card is None else card.get("license")
    return name if isinstance(name, str) and name != "unknown" else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(" .") if lines else type(error).__name__
