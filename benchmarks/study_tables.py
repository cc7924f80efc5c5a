"""The tables and plots of docs/results.md, from a finished study.

    python benchmarks/study_tables.py runs/study > tables.md

Intervals of means and differences generalise over prompts and training seeds (`statistics.crossed_interval`). The
p-values come from the paired t-test over prompts, whose values are means over seeds, with Holm's correction over the
scorers. The plots are those of `semdpo report runs/study/evaluation.csv`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from study_arms import SAMPLED

from semdpo.analysis.length_control import length_controlled
from semdpo.analysis.semantics import cosine_distance
from semdpo.analysis.statistics import crossed_interval, holm, min_max_average, paired_difference
from semdpo.cli.report import report_file
from semdpo.data.records import Candidate, Pair, Score
from semdpo.engine import store
from semdpo.reporting.formats import decimals, number, p_value, signed
from semdpo.reporting.labels import METHOD_LABELS, metric_label
from semdpo.tiny_world.facts import Comparison, compare, parse

FIDELITY, PREFERENCE = ["clip", "clip_b", "blip_itm"], ["hps", "pickscore", "image_reward"]
SCORERS, SEEN = [*FIDELITY, *PREFERENCE], {"clip", "image_reward"}
FACTS = ["wrong", "added", "popular", "sunset"]
BEHAVIOUR = [*FACTS, "distance", "drifted", "tokens", "repeats"]
COLUMNS = [*SCORERS, *BEHAVIOUR]
SHORT = ["clip_b", "blip_itm", "hps", "pickscore", "wrong", "added", "distance", "tokens"]
LABELS = METHOD_LABELS | {
    "dpo_same_settings": "DPO, Sem-DPO's settings",
    "dpo_rate_1": "DPO, rate 1e-5",
    "dpo_rate_2": "DPO, rate 3e-5",
    "dpo_rate_3": "DPO, rate 1e-4",
    "dpo_rate_4": "DPO, rate 3e-4",
    "sem_dpo_shuffled": "Sem-DPO, weights shuffled",
    "dpo_nll": "DPO with NLL",
    "sem_dpo_nll": "Sem-DPO with NLL",
    "sem_dpo_farther": "Sem-DPO, farther of the two",
    "sem_dpo_facts": "Sem-DPO, facts lost and added",
    "sem_dpo_styleless": "Sem-DPO, style words projected out",
}
HEADS = {
    "distance": "drift",
    "drifted": "share with drift ≥ 0.2",
    "wrong": "a fact wrong",
    "added": "adds content",
    "popular": "adds popular content",
    "sunset": "adds a sunset",
    "repeats": "repeats a phrase",
}
ORDER = (
    *("human", "sft", "dpo", "kto", "orpo", "beta_dpo", "additive", "sem_dpo"),
    *("dpo_same_settings", "dpo_rate_1", "dpo_rate_2", "dpo_rate_3", "dpo_rate_4", "sem_dpo_shuffled"),
    *("dpo_nll", "sem_dpo_nll", "sem_dpo_farther", "sem_dpo_facts", "sem_dpo_styleless"),
)
# What the plots show; the labelling scorer likes DPO most at its highest rate.
SHOWN = ("human", "sft", "dpo", "kto", "orpo", "beta_dpo", "additive", "sem_dpo", "dpo_rate_4")
UNTIMED = 120  # prompts that leave the time of day open, each rendered four times


@cache
def changes(prompt: str, rewrite: str) -> Comparison:
    """What a rewrite does with its prompt's facts."""
    return compare(parse(prompt), parse(rewrite))


def with_facts(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with what every rewrite loses, adds and repeats, as zeros and ones."""
    found = [changes(x, y) for x, y in zip(frame.prompt, frame.rewrite, strict=True)]
    extras = [[phrase.strip() for phrase in text.split(",")] for text in frame.rewrite]
    return frame.assign(
        wrong=[float(bool(f.wrong)) for f in found],
        added=[float(bool(f.added)) for f in found],
        popular=[float(bool(f.popular)) for f in found],
        sunset=[float("sunset" in f.popular) for f in found],
        repeats=[float(len(set(phrases)) < len(phrases)) for phrases in extras],
        drifted=(frame.distance >= 0.2).astype(float),
    )


def grid(frame: pd.DataFrame, method: str, column: str) -> np.ndarray:
    """A method's values, [prompts, seeds]."""
    part = frame[frame.method == method]
    return part.pivot_table(index="prompt_id", columns="train_seed", values=column, sort=True).to_numpy(np.float64)


def line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print("\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]), end="\n\n")


def head(column: str) -> str:
    return HEADS.get(column, metric_label(column)) + ("*" if column in SEEN else "")


def crossed(values: np.ndarray, *, sign: bool = False) -> str:
    """The mean of [prompts, seeds] with its interval, as text."""
    estimate = crossed_interval(values)
    places = decimals((estimate.high - estimate.low) / 2)
    mean, low, high = (number(x, places, sign=sign) for x in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def means(frame: pd.DataFrame, methods: Sequence[str]) -> None:
    """All methods: first what the scorers say, then what the rewrites do."""
    over_sets = frame.groupby(["source", "method"])[SCORERS].mean().groupby("method").mean()
    average = min_max_average(over_sets.loc[list(methods)])
    for columns in (SCORERS, BEHAVIOUR):
        rows = [[LABELS[method], *(crossed(grid(frame, method, c)) for c in columns)] for method in methods]
        heads = ["", *(head(column) for column in columns)]
        if columns is SCORERS:
            rows, heads = (
                [[*r, number(float(average[m]), 2)] for r, m in zip(rows, methods, strict=True)],
                [*heads, "average"],
            )
        table(heads, rows)


def difference(gap: np.ndarray, other: np.ndarray) -> str:
    """The mean difference with its interval, and its share of the other's mean, as text."""
    base = abs(other.mean())
    relative = f" ({number(100 * gap.mean() / base, 1, sign=True)}%)" if base > 0.02 else ""
    return crossed(gap, sign=True) + relative


def against(frame: pd.DataFrame, subject: str, others: Sequence[str], *, minus: bool = False) -> None:
    """A method minus each of the others, or, with ``minus``, each of the others minus the method."""
    rows = []
    for other in others:
        first, second = (other, subject) if minus else (subject, other)
        cells = [(grid(frame, first, c), grid(frame, second, c)) for c in SHORT]
        rows.append([LABELS[other], *(difference(a - b, b) for a, b in cells)])
    corner = f"− {LABELS[subject]}" if minus else f"{LABELS[subject]} −"
    table([corner, *(head(column) for column in SHORT)], rows)


def in_full(frame: pd.DataFrame, subject: str, other: str) -> None:
    """Two methods by all measures, with p-values and minimum detectable effects."""
    gaps = {c: grid(frame, subject, c) - grid(frame, other, c) for c in COLUMNS}
    tests = {c: paired_difference(d.mean(axis=1), np.zeros(len(d))) for c, d in gaps.items()}
    corrected = dict(zip(SCORERS, holm([tests[c].p_t for c in SCORERS]), strict=True))
    rows = []
    for column, d in gaps.items():
        agree = int((np.sign(d.mean(axis=0)) == np.sign(d.mean())).sum())
        detectable = tests[column].detectable
        rows.append(
            [head(column), difference(d, grid(frame, other, column)), f"{agree} of {d.shape[1]}",
             p_value(corrected.get(column, tests[column].p_t)), number(detectable, decimals(detectable))]
        )  # fmt: skip
    table([f"{LABELS[subject]} − {LABELS[other]}", "difference", "seeds of that sign", "p", "detectable"], rows)


def by_set(frame: pd.DataFrame, subject: str, other: str) -> None:
    rows = []
    for source, part in frame.groupby("source"):
        rows.append([source, *(crossed(grid(part, subject, c) - grid(part, other, c), sign=True) for c in SHORT)])
    table([f"{LABELS[subject]} − {LABELS[other]}", *(head(column) for column in SHORT)], rows)


def equal_length(frame: pd.DataFrame) -> None:
    cells = []
    for column in SCORERS:
        a, b = (grid(frame, method, column).mean(axis=1) for method in ("sem_dpo", "dpo"))
        x, y = (grid(frame, method, "tokens").mean(axis=1) for method in ("sem_dpo", "dpo"))
        win = length_controlled(a, b, x, y)
        shown = f"{100 * win.share:.0f}% [{100 * win.low:.0f}, {100 * win.high:.0f}]" if win else "–"
        won = (np.sign(a - b) + 1).mean() / 2  # a tie counts half, as it does at equal length
        cells.append(f"{100 * won:.0f}% / {shown}")
    table(["Sem-DPO against DPO", *(head(column) for column in SCORERS)], [["won / won at equal length", *cells]])


def labelled(run: Path) -> pd.DataFrame:
    """Candidates and scores: columns prompt, rewrite, score, and centred (the score minus its prompt's mean)."""
    candidates = {row.candidate_id: row for row in store.read_rows(run / "candidates", Candidate)}
    frame = pd.DataFrame(
        {"prompt": candidates[s.candidate_id].prompt, "rewrite": candidates[s.candidate_id].rewrite, "score": s.score}
        for s in store.read_rows(run / "label", Score)
        if s.scorer == "tiny:image-reward"
    )
    return frame.assign(centred=frame.score - frame.groupby("prompt").score.transform("mean"))


def correlation(a: pd.Series, b: pd.Series) -> str:
    """Pearson's r, as text; a dash where one of them never varies."""
    return number(a.corr(b), 2) if a.std() > 0 and b.std() > 0 else "–"


def world_shows(folder: Path, seeds: Sequence[int]) -> None:
    """What the labels reward: drift, content that nobody asked for, and wrong facts."""
    from semdpo.models.text_encoder import load_text_encoder

    encoder = load_text_encoder("tiny:clip")
    rows = []
    for seed in seeds:
        run = folder / f"seed-{seed}"
        frame = labelled(run)
        vectors = {column: encoder.encode(list(frame[column])).vectors for column in ("prompt", "rewrite")}
        frame["d"] = cosine_distance(vectors["prompt"], vectors["rewrite"])
        found = [changes(x, y) for x, y in zip(frame.prompt, frame.rewrite, strict=True)]
        frame["added"], frame["wrong"] = [len(f.added) for f in found], [len(f.wrong) for f in found]
        columns = ["d", "added", "wrong"]
        within = frame[columns] - frame.groupby("prompt")[columns].transform("mean")
        pairs = store.read_rows(run / "drift", Pair)
        farther = np.mean([(p.distance or 0) > (p.rejected_distance or 0) for p in pairs])
        chosen = [changes(p.prompt, p.chosen) for p in pairs]
        rejected = [changes(p.prompt, p.rejected) for p in pairs]
        shares = [
            f"{np.mean([bool(getattr(c, key)) for c in side]):.0%}"
            for key in ("added", "popular", "wrong")
            for side in (chosen, rejected)
        ]
        moved = np.mean([p.distance for p in pairs if p.distance is not None])
        rows.append(
            [seed, len(pairs), *(correlation(frame.centred, within[column]) for column in columns),
             f"{farther:.0%}", number(float(moved), 3), *shares]
        )  # fmt: skip
    table(
        ["seed", "pairs", "r(score, drift)", "r(score, content added)", "r(score, facts wrong)",
         "chosen drifts farther than rejected", "drift of the chosen", "chosen adds content", "rejected does",
         "chosen adds popular content", "rejected does", "chosen has a fact wrong", "rejected has"],
        rows,
    )  # fmt: skip


def untimed(prompt: str) -> bool:
    """Whether a prompt leaves the time of day open, so that a sunset contradicts no fact of the prompt."""
    return not parse(prompt).times


def sunsets(folder: Path, frame: pd.DataFrame, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """The planted weakness: do scorers prefer a sunset that no prompt asks for, do labels, do rewriters learn it?"""
    from semdpo.data.prompts import read_prompts
    from semdpo.models.renderer import load_renderer
    from semdpo.models.scorers.registry import load_scorer

    prompts = [prompt for prompt in read_prompts("tiny:tuning.jsonl") if untimed(prompt)][:UNTIMED]
    renderer = load_renderer("tiny:sd", steps=10, guidance=3.5, batch_size=32)
    rendered = {
        added: renderer.render([f"{prompt}{added}" for prompt in prompts], list(range(len(prompts))))
        for added in ("", " at sunset", " at night", " by day")
    }
    rows = []
    for name in ("image-reward", "hps", "pickscore", "clip-b", "blip-itm"):
        scorer = load_scorer(f"tiny:{name}")
        values = {added: scorer.score(images, prompts).values for added, images in rendered.items()}
        gaps = [paired_difference(values[added], values[""]) for added in (" at sunset", " at night", " by day")]
        rows.append([f"tiny:{name}", *(f"{signed(d)[0]} {signed(d)[1]}" for d in gaps)])
    table(["scorer", "unasked sunset − none", "unasked night − none", "unasked day − none"], rows)

    labels = pd.concat(labelled(folder / f"seed-{seed}") for seed in seeds)
    open_ = labels[[untimed(prompt) for prompt in labels.prompt]]
    adds = open_[["sunset" in changes(x, y).popular for x, y in zip(open_.prompt, open_.rewrite, strict=True)]]
    print(
        f"Of {len(open_)} candidates for prompts that leave the time open, {len(adds)} add a sunset; their score is "
        f"{number(adds.centred.mean(), 2, sign=True)} ± {number(adds.centred.sem(), 2)} (standard error) above their "
        f"prompt's mean, where scores have a standard deviation of {number(open_.centred.std(), 2)}.\n"
    )
    rest = frame[[untimed(prompt) for prompt in frame.prompt]]
    rows = [[LABELS[m], crossed(grid(rest, m, "sunset"))] for m in methods if m != "human"]
    table([f"{rest.prompt_id.nunique()} prompts", "share of rewrites that add a sunset"], rows)


def settings(folder: Path) -> None:
    trials = pd.read_csv(folder / "trials.csv")
    rows = [
        [
            t.trial,
            number(t.clip, 3),
            number(t.image_reward, 2),
            "" if t.above_floor else "below",
            "**taken**" * t.picked,
        ]
        for t in trials.itertuples()
    ]
    table(["trial: objective, learning rate, strength", "CLIP", "ImageReward", "against SFT's CLIP", ""], rows)


def hours(folder: Path) -> None:
    spent: dict[str, float] = {}
    for path in folder.rglob("timing.json"):
        run = path.relative_to(folder).parts[0]
        spent[run] = spent.get(run, 0.0) + float(json.loads(path.read_text())["seconds"])
    table(["run", "minutes"], [[run, f"{seconds / 60:.0f}"] for run, seconds in sorted(spent.items())])


def examples(frame: pd.DataFrame, count: int = 10) -> None:
    """Random rewrites of Sem-DPO, to read."""
    part = frame[(frame.method == "sem_dpo") & (frame.train_seed == frame.train_seed.min())]
    rows = [
        [row.prompt, row.rewrite, "; ".join(changes(row.prompt, row.rewrite).wrong) or "–",
         "; ".join(changes(row.prompt, row.rewrite).added) or "–"]
        for row in part.sample(min(count, len(part)), random_state=0).itertuples()
    ]  # fmt: skip
    table(["prompt", "rewrite", "wrong", "added"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    folder = parser.parse_args().study
    everything = with_facts(pd.read_csv(folder / "evaluation.csv"))
    is_sampled = everything.method.str.endswith(SAMPLED)
    frame, sampled = everything[~is_sampled], everything[is_sampled | (everything.method == "human")]
    sampled = sampled.assign(method=sampled.method.str.removesuffix(SAMPLED))
    methods = [name for name in ORDER if name in set(frame.method)]
    twice = [name for name in methods if name in set(sampled.method)]
    seeds = sorted(int(seed) for seed in frame.train_seed.unique())
    rest = [name for name in methods if name != "sem_dpo"]
    sections = {
        "Tuning": lambda: settings(folder),
        "Means, greedy": lambda: means(frame, methods),
        "Means, sampled": lambda: means(sampled, twice),
        "Sem-DPO against the others, greedy": lambda: against(frame, "sem_dpo", rest),
        "Sem-DPO against the others, sampled": lambda: against(
            sampled, "sem_dpo", [m for m in twice if m != "sem_dpo"]
        ),
        "Sem-DPO and DPO, greedy": lambda: in_full(frame, "sem_dpo", "dpo"),
        "Sem-DPO and DPO, sampled": lambda: in_full(sampled, "sem_dpo", "dpo"),
        "Against the user's prompt": lambda: against(frame, "human", methods[1:], minus=True),
        "Against SFT, greedy": lambda: against(frame, "sft", methods[2:], minus=True),
        "Against SFT, sampled": lambda: against(sampled, "sft", twice[2:], minus=True),
        "The farther distance against DPO, greedy": lambda: in_full(frame, "sem_dpo_farther", "dpo"),
        "The farther distance against DPO, sampled": lambda: in_full(sampled, "sem_dpo_farther", "dpo"),
        "Set by set, greedy": lambda: by_set(frame, "sem_dpo", "dpo"),
        "Set by set, sampled": lambda: by_set(sampled, "sem_dpo", "dpo"),
        "Equal length": lambda: equal_length(frame),
        "What the world can show": lambda: world_shows(folder, seeds),
        "An unasked sunset": lambda: sunsets(folder, frame, methods, seeds),
        "Ten rewrites": lambda: examples(frame),
        "Cost": lambda: hours(folder),
    }
    for title, write in sections.items():
        print(f"## {title}\n")
        write()
    for name, part in (("report", frame), ("report-sampled", sampled)):
        report(part, folder / name)


def report(frame: pd.DataFrame, out: Path) -> None:
    """The report, with its plots, of the methods that a plot has room for."""
    shown = frame[frame.method.isin(SHOWN)].replace({"method": {"dpo_rate_4": "dpo_liked"}})
    shown.drop(columns=[*FACTS, "drifted", "repeats"]).to_csv(f"{out}.csv", index=False)
    own = {"title": "All objectives on the tiny world", "subject": "sem_dpo", "baseline": "dpo"}
    report_file(f"{out}.csv", out, FIDELITY, PREFERENCE, sorted(SEEN), **own)


if __name__ == "__main__":
    main()
