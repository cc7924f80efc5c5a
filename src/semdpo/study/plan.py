"""A study's folder: the plan that is fixed before the first vote, its hash, the secret and the images."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from semdpo import disk
from semdpo.errors import DataError
from semdpo.study.design import Plan

_PLAN = TypeAdapter(Plan)


@dataclass(frozen=True, slots=True)
class Study:
    """A study that was read from its folder.

    Attributes:
        folder: where it lies.
        plan: the plan; private, because it names the methods.
        secret: 32 random bytes, from which links and ids are made.
    """

    folder: Path
    plan: Plan
    secret: bytes


def write_study(folder: Path, plan: Plan, images: Mapping[str, bytes]) -> None:
    """Writes a study's folder.

    Args:
        folder: the folder, which is made.
        plan: the plan.
        images: SHA-256 → PNG.
    """
    data = json.dumps(asdict(plan), sort_keys=True, ensure_ascii=False, indent=1).encode()
    for name, image in images.items():
        disk.write_bytes(folder / "images" / f"{name}.png", image)
    disk.write_bytes(folder / "secret", secrets.token_hex(32).encode())
    (folder / "secret").chmod(0o600)
    disk.write_bytes(folder / "plan.sha256", hashlib.sha256(data).hexdigest().encode())
    disk.write_bytes(folder / "plan.json", data)


def read_study(folder: Path) -> Study:
    """Reads a study's folder.

    Raises:
        DataError: a file is missing, or the plan was changed after it was made.
    """
    try:
        data = disk.read(folder / "plan.json")
        known = disk.read(folder / "plan.sha256").decode().strip()
        secret = bytes.fromhex(disk.read(folder / "secret").decode().strip())
        plan = _PLAN.validate_json(data)
    except OSError as error:
        raise DataError(f"{folder} is no study ({error.strerror}); make one with `semdpo study plan`") from error
    except (ValueError, ValidationError) as error:
        raise DataError(f"{folder} holds a damaged study; restore it, or plan it again") from error
    if hashlib.sha256(data).hexdigest() != known:
        raise DataError(f"{folder / 'plan.json'} was changed after the study was planned; restore it")
    return Study(folder, plan, secret)
