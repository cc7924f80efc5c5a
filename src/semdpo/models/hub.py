"""The model hub: what has been downloaded, and downloads of the rest; each failure is one sentence with its cure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from semdpo.errors import ModelError
from semdpo.models.loading import quiet


def fetch(repository: str, name: str, files: Sequence[str], skipped: Sequence[str]) -> Path:
    """The folder of a repository's files; missing files are downloaded.

    Args:
        repository: The repository, ``owner/name``.
        name: The name that the user wrote.
        files: The patterns of the files that are needed.
        skipped: The patterns of files that are not needed.

    Raises:
        ModelError: There is neither a connection nor a local copy, no such repository, no permission, or no space.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    what = f"model '{name}'" if name == repository else f"model '{name}' ({repository})"
    try:
        with quiet():
            return Path(snapshot_download(repository, allow_patterns=list(files), ignore_patterns=list(skipped)))
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


def cached(repository: str, files: Sequence[str], skipped: Sequence[str]) -> bool:
    """Whether a repository has been downloaded, found out without a connection."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            snapshot_download(
                repository, allow_patterns=list(files), ignore_patterns=list(skipped), local_files_only=True
            )
    except (OSError, ValueError):
        return False
    return True


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
