"""The model hub: what has been downloaded, and fetching what has not; every failure is one sentence with its cure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from semdpo.errors import ModelError
from semdpo.models.loading import quiet


def fetch(repository: str, name: str, files: Sequence[str], skipped: Sequence[str]) -> Path:
    """The folder of a repository's files, complete.

    Args:
        repository: ``owner/name``.
        name: what the user wrote.
        files: patterns of those that are wanted.
        skipped: patterns of those that are not.

    Raises:
        ModelError: there is no connection and no copy, no such repository, no permission, or no room on the disk.
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
    """Whether a repository has been downloaded; the hub is not asked."""
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
    """Whether the hub would give a repository to this user."""
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with quiet():
            auth_check(repository)
    except GatedRepoError:
        return "gated"
    except RepositoryNotFoundError:
        return "absent"
    except Exception:  # what a lost connection is called depends on the library that the hub's own talks with
        return "unreachable"
    return "there"


def cache_folder() -> Path:
    """Where downloads go."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def licence(repository: str) -> str | None:
    """The licence that a data set of the hub names; None where it names none, or the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        with quiet():
            card = HfApi().dataset_info(repository, timeout=5).card_data
    except Exception:  # see ask
        return None
    found = None if card is None else card.get("license")
    return found if isinstance(found, str) and found != "unknown" else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(" .") if lines else type(error).__name__
