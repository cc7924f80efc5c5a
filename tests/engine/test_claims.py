"""Claims on shards: one holder at a time, and one follower of a dead process."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from semdpo.engine import claims
from semdpo.engine.claims import SILENCE, Claims
from semdpo.errors import ConfigError


def _dead(run: Path, held: Claims) -> None:
    """Makes the process of some claims a silent one."""
    (sign,) = (run / claims.FOLDER).glob(f"{held._name}.alive")
    os.utime(sign, (0, 0))
    held._over.set()


def test_a_shard_has_one_holder(tmp_path: Path) -> None:
    with Claims(tmp_path, 1, 2) as first, Claims(tmp_path, 2, 2) as second:
        assert first.take("label", 3)
        assert not first.take("label", 3), "a process does not make a shard twice at once"
        assert not second.take("label", 3)
        assert second.take("label", 4)
        assert second.take("evaluate/sft/images", 3)
        first.release("label", 3)
        assert second.take("label", 3)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_dead_process_has_one_follower(tmp_path: Path) -> None:
    with Claims(tmp_path, 1, 2) as dead, Claims(tmp_path, 2, 2) as one:
        assert dead.take("sft", 0)
        assert not one.take("sft", 0)
        assert not dead.has_lost("sft", 0)
        _dead(tmp_path, dead)
        others = [Claims(tmp_path, 1, 2) for _ in range(8)]
        for each in others:
            each.__enter__()
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda each: each.take("sft", 0), others))
        assert won.count(True) == 1
        assert dead.has_lost("sft", 0)
        winner = others[won.index(True)]
        assert not winner.has_lost("sft", 0)
        _dead(tmp_path, winner)
        assert one.take("sft", 0), "also the follower of a follower"
        assert winner.has_lost("sft", 0)
        for each in others:
            each.__exit__(None, None, None)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_process_without_a_sign_is_dead(tmp_path: Path) -> None:
    place = tmp_path / claims.FOLDER / "label"
    place.mkdir(parents=True)
    (place / "0").write_text("somebody")
    (place / "1").write_text("")  # killed before it wrote its name
    (place / "2").write_text("")
    os.utime(place / "1", (0, 0))
    with Claims(tmp_path, 1, 1) as own:
        assert own.take("label", 0)
        assert own.take("label", 1)
        assert not own.take("label", 2), "its holder may be writing its name now"


def test_any_number_of_processes_may_die_at_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is taken away again and again; its name is as long as those of clusters."""
    monkeypatch.setattr(socket, "gethostname", lambda: "training-7c9f8d6b5d-x2k9z.nodes.example.org")
    with Claims(tmp_path, 1, 1) as first:
        last = first
        for _ in range(12):
            assert last.take("train/sem_dpo", 0)
            _dead(tmp_path, last)
            last = Claims(tmp_path, 1, 1)
            last.__enter__()
        assert last.take("train/sem_dpo", 0)
        assert first.has_lost("train/sem_dpo", 0)
        assert not last.has_lost("train/sem_dpo", 0)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a/b", b"\0", b"n" * 300, b"some=body"])
def test_a_damaged_claim_lapses_by_its_own_age(content: bytes, tmp_path: Path) -> None:
    with Claims(tmp_path, 1, 2) as first, Claims(tmp_path, 2, 2) as second:
        assert first.take("sft", 0)
        claim = tmp_path / claims.FOLDER / "sft/0"
        claim.write_bytes(content)
        assert not second.take("sft", 0)
        os.utime(claim, (0, 0))
        assert second.take("sft", 0)
        assert first.has_lost("sft", 0), "a model is not written twice"


def test_a_process_that_lives_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SILENCE, "1")
    with Claims(tmp_path, 1, 2) as first, Claims(tmp_path, 2, 2) as second:
        assert first.take("label", 0)
        time.sleep(1.5)
        assert not second.take("label", 0)


@pytest.mark.parametrize(("part", "order"), [(1, [0, 2, 5, 9]), (2, [5, 9, 0, 2]), (3, [9, 0, 2, 5])])
def test_each_process_begins_at_its_own_part(tmp_path: Path, part: int, order: list[int]) -> None:
    assert Claims(tmp_path, part, 3).in_order([0, 2, 5, 9], 10) == order


@pytest.mark.parametrize("given", ["0", "-3", "nan", "inf", "soon", "1e9"])
def test_a_silence_that_makes_no_sense(tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SILENCE, given)
    with pytest.raises(ConfigError, match=f"{SILENCE} is '{given}'; it must be a number of seconds"):
        Claims(tmp_path, 1, 1)
