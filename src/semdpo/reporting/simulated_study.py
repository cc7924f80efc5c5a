"""A study with the tiny world's simulated raters, for a run's report.

It is planned, sealed, answered and analysed by the code of a study with people. Its folder, with the secret, is
temporary: the report keeps the plan and the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from markupsafe import Markup

from semdpo import disk
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError, DataError
from semdpo.reporting.formats import p_value
from semdpo.reporting.page import template
from semdpo.reporting.study_page import PAGE, StudyReport, percent, study_files, verdict
from semdpo.reporting.study_sources import of_study
from semdpo.study.design import MATCH, QUESTIONS
from semdpo.study.plan import PLAN, read_study, write_study
from semdpo.study.planning import StudySettings, make_plan
from semdpo.study.tiny_votes import vote

RATERS, PROMPTS = 9, 20  # as many as in the paper's study
ASKED = (MATCH, "prefer")
SEED = 0
FOLDER = "study"  # in the report's folder


@dataclass(frozen=True, slots=True)
class SimulatedStudy:
    """A finished study with simulated raters.

    Attributes:
        report: what its page shows.
        plan: the bytes of its plan, whose SHA-256 the page names.
    """

    report: StudyReport
    plan: bytes


def simulated_study(run: Run, methods: Sequence[str], prompts: int) -> SimulatedStudy | str:
    """Lets simulated raters compare two methods of a run.

    Args:
        run: a run of the tiny world whose evaluation is finished.
        methods: the two methods.
        prompts: the number of its held-out prompts, of which up to ``PROMPTS`` are drawn.

    Returns:
        The study, the same for the same run; or, in a sentence, why the run's images cannot be compared, because a
        report has more to show than its study.

    Raises:
        StoreError: the temporary folder cannot be written.
    """
    settings = StudySettings(
        methods=methods,
        raters=RATERS,
        prompts=min(PROMPTS, prompts),
        questions={name: QUESTIONS[name] for name in ASKED},
        seed=SEED,
        simulated=True,
    )
    with TemporaryDirectory(prefix="semdpo-study-") as place:
        folder = Path(place) / "study"
        try:
            write_study(folder, *make_plan(run, settings))
            vote(read_study(folder), SEED)
            return SimulatedStudy(of_study(folder), disk.read(folder / PLAN))
        except (ConfigError, DataError) as error:
            return str(error)


def published(study: SimulatedStudy | str) -> tuple[str, dict[str, bytes]]:
    """What the report shows of a study.

    Args:
        study: the study, or why there is none.

    Returns:
        The HTML of the section of the report's page, and the files beside the page: path relative to the report's
        folder → content.
    """
    shown = template("simulated_study.html.j2", percent=percent, p=p_value)
    if isinstance(study, str):
        return shown.render(missing=study), {}
    files = {f"{FOLDER}/{name}": content for name, content in study_files(study.report).items()}
    results = study.report.results
    (primary,) = results.primary  # two methods make one pair
    section = shown.render(
        missing=None,
        report=study.report,
        results=results,
        primary=primary,
        verdict=verdict(primary, results),
        plot=Markup(files[f"{FOLDER}/plots/rates_0.svg"].decode()),
        checks=[sum(counts) for counts in zip(*results.attention.values(), strict=True)],
        level=f"{results.analysis.level:.0%}",
        page=f"{FOLDER}/{PAGE}",
    )
    return section, files | {f"{FOLDER}/{PLAN}": study.plan}
