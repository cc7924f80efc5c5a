"""A study's folder: plan, seal, secret and images; written whole or not at all, and refused when changed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from semdpo import disk
from semdpo.engine import fingerprint
from semdpo.engine.store import digest
from semdpo.errors import DataError, StoreError
from semdpo.study.design import Plan
from semdpo.texts import given_twice

PLAN, SEAL, SECRET, IMAGES, VOTES = "plan.json", "plan.sha256", "secret", "images", "votes.sqlite"
KEY = "key.jsonl"  # what the public names of an export stand for
SECRET_BYTES = 32
_OF_VOTES = (VOTES, f"{VOTES}-wal", f"{VOTES}-shm")
_PLAN = TypeAdapter(Plan)


@dataclass(frozen=True, slots=True)
class Study:
    """A study that was read from its folder.

    Attributes:
        folder: where it lies.
        plan: the plan; private, because it names the methods.
        secret: 32 random bytes, from which links and ids are made. They are no part of the plan.
    """

    folder: Path
    plan: Plan
    secret: bytes


def plan_bytes(plan: Plan) -> bytes:
    """The plan as JSON: equal plans have equal bytes. Questions keep their order, so keys are not sorted."""
    return (json.dumps(asdict(plan), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def image_path(folder: Path, sha256: str) -> Path:
    """The file of an image in a study's folder."""
    return folder / IMAGES / f"{sha256}.png"


# ------------------------------------------------------------------------------------------------- writing


def refuse_started(folder: Path) -> None:
    """Refuses a folder that a new plan may not replace: only a plan without votes may be replaced.

    Raises:
        StoreError: it holds votes, or anything that no plan made.
    """
    disk.refuse_unwritable(folder, folder=True)
    disk.refuse_foreign(folder)
    if not folder.exists():
        return
    if (folder / VOTES).exists() and _votes(folder / VOTES) != 0:
        raise StoreError(f"{folder} holds the votes of a study that has begun; choose another folder with --out")
    known = {disk.MARK, PLAN, SEAL, SECRET, IMAGES, KEY, *_OF_VOTES}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    if others:
        raise StoreError(
            f"{folder / others[0]} is no part of a plan and would be lost; move it, or choose another folder with --out"
        )


def _votes(path: Path) -> int | None:
    """The number of votes in a study's file of votes; None where they cannot be counted."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            return int(base.execute("SELECT count(*) FROM votes").fetchone()[0])
    except sqlite3.Error:
        return None


def write_study(folder: Path, plan: Plan, images: Mapping[str, bytes]) -> None:
    """Writes a study's folder, with a new secret. A plan without votes that is there is replaced.

    Args:
        folder: the folder.
        plan: the plan.
        images: SHA-256 → PNG, of all images of the plan.

    Raises:
        StoreError: the folder holds votes or files of others, or cannot be written. Nothing is changed then.
    """
    refuse_started(folder)
    data, made = plan_bytes(plan), folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
    try:
        disk.mark(made)
        for sha256, image in images.items():
            disk.write_bytes(image_path(made, sha256), image)
        disk.write_bytes(made / PLAN, data)
        disk.write_bytes(made / SEAL, f"{digest(data)}\n".encode())
        _write_secret(made / SECRET)
        disk.sync(made)
        refuse_started(folder)  # again: writing takes time, in which a vote may have arrived
        disk.remove(folder)
        disk.rename(made, folder)
    except OSError as error:
        raise disk.unwritable(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_secret(path: Path) -> None:
    """Writes a new secret into a file that only its owner can ever read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(f"{secrets.token_hex(SECRET_BYTES)}\n".encode())


# ------------------------------------------------------------------------------------------------- reading


def read_study(folder: Path) -> Study:
    """Reads a study's folder, and checks that plan and images are those that were fixed.

    Raises:
        DataError: the folder holds no study; its plan or an image has changed or is missing; or another version of
            semdpo wrote it. The message names the file.
    """
    data, seal = _read(folder, PLAN), _read(folder, SEAL).decode("ascii", "replace").strip()
    if digest(data) != seal:
        raise DataError(
            f"{folder / PLAN} has changed since it was fixed (its SHA-256 is not the one in {SEAL}); restore the file, "
            "or plan a new study"
        )
    try:
        plan = _PLAN.validate_json(data, strict=True)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise _unknown(folder, f"{where}: {error.errors()[0]['msg']}") from error
    if plan_bytes(plan) != data:
        raise _unknown(folder, "it has other keys or another form")
    _refuse_inconsistent(plan, folder)
    for sha256 in dict.fromkeys(image.sha256 for image in plan.images):
        path = image_path(folder, sha256)
        if not disk.is_file(path):
            raise DataError(f"{path} is missing; restore the study's folder, or plan a new study")
        if fingerprint.file(path) != sha256:
            raise DataError(f"{path} has changed since the plan was fixed; restore it, or plan a new study")
    return Study(folder, plan, _secret(folder))


def _read(folder: Path, name: str) -> bytes:
    try:
        return disk.read(folder / name)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no whole study, because {name} is missing; restore it, or make a study with "
            "`semdpo study plan RUN --out STUDY`"
        ) from error
    except OSError as error:
        raise DataError(f"{folder / name} cannot be read ({error.strerror}); correct its permissions") from error


def _secret(folder: Path) -> bytes:
    try:
        secret = bytes.fromhex(_read(folder, SECRET).decode())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise DataError(f"{folder / SECRET} is damaged; restore it, because the raters' links depend on it")
    return secret


def _unknown(folder: Path, fault: str) -> DataError:
    return DataError(
        f"{folder / PLAN} is no plan of this version of semdpo ({fault}); read it with the one that wrote it"
    )


def _refuse_inconsistent(plan: Plan, folder: Path) -> None:
    """Refuses a plan whose parts do not fit each other."""
    images = {image.name: image for image in plan.images}
    names = [trial.name for trial in plan.trials]
    if twice := given_twice([*names, *images]) or given_twice(image.name for image in plan.images):
        raise _unknown(folder, f"two things have the name {twice}")
    comparisons = {trial.name: trial for trial in plan.trials if trial.kind == "comparison"}
    for trial in plan.trials:
        first = comparisons.get(trial.repeats or "")
        if not (
            {trial.left, trial.right} <= images.keys()
            and trial.prompt_id in plan.prompts
            and 0 <= trial.rater < plan.raters
            and (trial.kind == "repeat") == (trial.repeats is not None)
            and (trial.repeats is None or (first is not None and first.rater == trial.rater))
        ):
            raise _unknown(folder, f"trial {trial.name} names what is not there")
