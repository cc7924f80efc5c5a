"""The study of docs/results.md and its tables, in miniature, so that they cannot rot."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from semdpo import pipeline

ROOT = Path(__file__).parents[1]
SMALL = [
    *("prompts.limit=16", "sft.steps=10", "sft.batch_size=8", "candidates.n=3", "train.epochs=1", "train.batch_size=8"),
    *("label.renderer.steps=1", "evaluate.renderer.steps=1"),
]


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_study_and_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")  # which the study sets for its process otherwise
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    study = _benchmark("study")
    arms = sys.modules["study_arms"]
    for module in (study, arms):
        monkeypatch.setattr(module, "RATES", (1e-3,))
    few = {  # two trials of an arm in the pipeline and of one outside it, one of each other arm
        arm: (key, values if arm in ("dpo", "sem_dpo_facts") else values[:1])
        for arm, (key, values) in arms.STRENGTHS.items()
    }
    monkeypatch.setattr(arms, "STRENGTHS", few)
    monkeypatch.setattr(study, "PROMPTS", 3)
    # A report of 30 methods takes most of the test's time; tests/reporting has its own.
    monkeypatch.setattr(pipeline, "_write_report", lambda _stages, _run: None)
    small = [word for each in SMALL for word in ("--set", each)]
    monkeypatch.setattr(sys, "argv", ["study.py", "--out", str(tmp_path), "--seeds", "1", "2", "--jobs", "1", *small])
    study.main()
    picked = json.loads((tmp_path / "tuned.json").read_text())
    objectives = {"dpo", "kto", "orpo", "beta_dpo", "additive", "sem_dpo"}
    variants = {"dpo_nll", "sem_dpo_nll", "sem_dpo_farther", "sem_dpo_facts", "sem_dpo_styleless"}
    assert picked.keys() == objectives | variants
    trials = pd.read_csv(tmp_path / "trials.csv")
    assert len(trials) == 13
    assert trials.picked.sum() == 11
    frames = [frame for _, frame in pd.read_csv(tmp_path / "evaluation.csv").groupby("train_seed")]
    both = objectives | {"sft", "dpo_same_settings", "sem_dpo_shuffled"}
    both |= {"sem_dpo_farther", "sem_dpo_facts", "sem_dpo_styleless"}
    sampled = {f"{name}_sampled" for name in both}
    greedy = objectives | {"human", "sft", "dpo_same_settings", "sem_dpo_shuffled"}
    for frame in frames:
        assert set(frame.method) == greedy | variants | sampled
        assert len(frame) == frame.method.nunique() * 9
    tuned_on = {
        row["prompt_id"]
        for row in pd.read_parquet(tmp_path / "tuning/dpo/prompts/part-00000.parquet").to_dict("records")
    }
    assert not tuned_on & set(frames[0].prompt_id), "nothing is tuned on what is reported on"

    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["study_tables.py", str(tmp_path)])
    tables = _benchmark("study_tables")
    monkeypatch.setattr(tables, "UNTIMED", 8)
    tables.main()
    said = capsys.readouterr().out
    for title in (
        "Tuning",
        "Means, greedy",
        "Means, sampled",
        "Sem-DPO against the others, greedy",
        "Sem-DPO and DPO, sampled",
        "Against the user's prompt",
        "Against SFT, greedy",
        "The farther distance against DPO, greedy",
        "Set by set, sampled",
        "Equal length",
        "What the world can show",
        "Cost",
    ):
        assert f"\n## {title}\n" in f"\n{said}"
    assert "Sem-DPO, weights shuffled" in said
    assert "nan" not in said
    in_full = said.split("\n## Sem-DPO and DPO, greedy\n")[1]
    row = next(line for line in in_full.splitlines() if line.startswith("| ImageReward*"))
    means = [frame.groupby("method")["image_reward"].mean() for frame in frames]
    expected = sum(each["sem_dpo"] - each["dpo"] for each in means) / 2
    assert float(row.split("|")[2].split("[")[0].replace("−", "-")) == pytest.approx(expected, abs=0.06)
    assert (tmp_path / "report/index.html").is_file()
