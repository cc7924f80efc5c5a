"""No stage reads a whole other stage at once, or a file more often the more files there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semdpo import pipeline
from semdpo.engine import fingerprint, parquet, store
from semdpo.stages import prompts
from semdpo.stages.flow import flow
from tests.stand_ins import models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")
SETTINGS = (
    *("candidates.shard_size=16", "label.shard_size=4", "evaluate.shard_size=4", "prompts.limit=null"),
    *(
        "evaluate.also={}",
        "evaluate.metrics={clip: tiny:clip, image_reward: tiny:image-reward}",
        "evaluate.image_seeds=[0]",
    ),
    *(
        "report.fidelity=[clip]",
        "report.preference=[image_reward]",
        "report.baseline=sft",
        "train.methods={sem_dpo: {name: sem_dpo, alpha: 4.0}}",
    ),
)
WHOLE = ("train/",)  # a training needs all pairs at once


class Watch:
    """Counts how often each file of a run is read, and which folders are read as a whole."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.read, self.hashed, self.whole = Counter[Path](), Counter[Path](), list[str]()
        for module, name in ((parquet, "read_file"), (parquet, "read_column"), (store, "read_file")):
            patch.setattr(module, name, self._counting(getattr(module, name), self.read))
        patch.setattr(fingerprint, "file", self._counting(fingerprint.file, self.hashed))
        read_rows = store.read_rows
        patch.setattr(store, "read_rows", lambda *given: self.whole.append(given[0].name) or read_rows(*given))

    @staticmethod
    def _counting(function: Callable[..., Any], counter: Counter[Path]) -> Callable[..., Any]:
        def counted(path: Path, *given: Any, **named: Any) -> Any:
            counter[path] += 1
            return function(path, *given, **named)

        return counted


def _counts(folder: Path, size: int, patch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """For each stage of a run of some size: the most often that one file is read, and hashed."""
    folder.mkdir()
    (folder / "ask.txt").write_text("\n".join(f"a thing {k}" for k in range(size)))
    (folder / "held.txt").write_text("\n".join(f"another {k}" for k in range(size // 4)))
    recipe, found = recipe_of(folder, *SETTINGS), {}
    for stage in flow(recipe):
        with patch.context() as watching:
            watch = Watch(watching)
            pipeline.run(recipe, folder / "run", only=stage.name, models=models())
        assert not watch.whole or stage.name.startswith(WHOLE), f"{stage.name} reads all rows of {watch.whole}"
        found[stage.name] = max(watch.read.values(), default=0), max(watch.hashed.values(), default=0)
    return found


def test_reads_of_a_file_do_not_grow_with_the_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "ROWS", 16)
    few, many = _counts(tmp_path / "few", 32, monkeypatch), _counts(tmp_path / "many", 64, monkeypatch)
    assert len(list((tmp_path / "many/run/label").glob("part-*"))) == 16
    assert many == few
    assert max(reads for reads, _ in many.values()) <= 3
    assert max(hashes for _, hashes in many.values()) <= 24  # by the checks before a stage, and when it is read


def test_the_prompts_are_the_same_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(tmp_path)
    for name, rows in (("one", 4096), ("several", 8)):
        monkeypatch.setattr(prompts, "ROWS", rows)
        pipeline.run(recipe, tmp_path / name, only="prompts", models=models())
    one, several = (store.manifest(tmp_path / name / "prompts") for name in ("one", "several"))
    assert [len(manifest["files"]) for manifest in (one, several)] == [1, 4]
    assert one["counts"] == several["counts"] == {"rows": 26, "train": 20, "test": 6}
