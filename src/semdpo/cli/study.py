"""``semdpo study``: plans a blinded comparison by people, computes its power, and makes pairs of its votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semdpo import disk
from semdpo.cli import output
from semdpo.cli.options import number
from semdpo.errors import ConfigError, DataError, did_you_mean
from semdpo.progress import bar, say, show

if TYPE_CHECKING:
    from semdpo.study.design import Analysis, Plan, Power
    from semdpo.study.planning import StudySettings
    from semdpo.study.power import Assumptions

MATCH = "match"
MOST_RATERS = 1000

Raters = Annotated[int, typer.Option(help="Number of raters.")]
PerRater = Annotated[
    int | None, typer.Option("--prompts-per-rater", help="Number of prompts of one rater; by default, all.")
]
Test = Annotated[
    str, typer.Option(help="The test that decides is over both raters and prompts, or over raters, prompts or votes.")
]
Level = Annotated[float, typer.Option(help="Level of the intervals; the test's is 1 - level.")]
Effect = Annotated[float, typer.Option(help="For the power: the share of votes for the better method.")]
RaterSd = Annotated[float, typer.Option(help="For the power: the standard deviation of raters, in logits.")]
PromptSd = Annotated[float, typer.Option(help="For the power: the standard deviation of prompts, in logits.")]
Seed = Annotated[int, typer.Option(help="The seed of all draws.")]


def plan(
    run: Annotated[str, typer.Argument(help="A run's folder, with a finished evaluation.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The study's folder.")],
    method: Annotated[
        list[str] | None, typer.Option(help="A method to compare; repeatable. By default, the report's first two.")
    ] = None,
    raters: Raters = 9,
    prompts: Annotated[int | None, typer.Option(help="Number of prompts, drawn; by default, all.")] = None,
    prompts_per_rater: PerRater = None,
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=WORDS]", help="match, prefer, artefacts, or one in your words; repeatable."),
    ] = None,
    tie: Annotated[str | None, typer.Option(help="The words of a third answer, such as 'cannot tell'.")] = None,
    repeats: Annotated[float, typer.Option(help="Share of comparisons that are shown again, sides swapped.")] = 0.1,
    attention: Annotated[
        int | None, typer.Option(help="Attention checks of a rater; by default, 7% of the comparisons.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What raters read at the top.")] = None,
    consent: Annotated[str | None, typer.Option(help="What raters agree to before they begin.")] = None,
    primary: Annotated[str | None, typer.Option(help="The question that decides; by default, the first.")] = None,
    test: Test = "both",
    level: Level = 0.95,
    max_attention_failures: Annotated[
        float, typer.Option(help="Exclude raters who fail a larger share of the attention checks.")
    ] = 0.34,
    min_consistency: Annotated[
        float, typer.Option(help="Exclude raters who repeat a smaller share of their answers.")
    ] = 0.0,
    min_seconds: Annotated[float, typer.Option(help="Exclude raters whose median answer takes less time.")] = 0.0,
    effect: Effect = 0.65,
    rater_sd: RaterSd = 0.5,
    prompt_sd: PromptSd = 1.0,
    seed: Seed = 0,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The raters are simulated; every page says so.")
    ] = False,
) -> None:
    """Plan a study of a run's images: who compares what, and how votes are analysed, fixed before the first vote."""
    number("--repeats", repeats, 0, 0.5)
    for option, share in (("--max-attention-failures", max_attention_failures), ("--min-consistency", min_consistency)):
        number(option, share, 0, 1)
    number("--min-seconds", min_seconds, 0)
    for option, count, least in (("--prompts", prompts, 1), ("--attention", attention, 0)):
        if count is not None:
            number(option, count, least)
    analysis, assumptions = _tested(raters, prompts_per_rater, test, level, effect, rater_sd, prompt_sd, seed)
    from dataclasses import replace

    from semdpo.study import planning
    from semdpo.study.design import Exclusion

    questions = _questions(question or [MATCH])
    settings = planning.StudySettings(
        methods=method or (),
        raters=raters,
        prompts=prompts,
        prompts_per_rater=prompts_per_rater,
        questions=questions,
        tie=tie,
        repeats=repeats,
        attention=attention,
        title=planning.TITLE if title is None else title,
        consent=planning.CONSENT if consent is None else consent,
        seed=seed,
        exclusion=Exclusion(max_attention_failures, min_consistency, min_seconds),
        analysis=replace(analysis, primary=primary or next(iter(questions))),
        assumptions=assumptions,
        simulated=simulated,
    )
    plan_study(run, out, settings)


def plan_study(run: str, out: Path, settings: StudySettings) -> Plan:
    """Plans a study of a run and writes its folder.

    Args:
        run: The run's folder.
        out: The study's folder; a plan without votes that is there is replaced.
        settings: What the study is to be.

    Raises:
        SemdpoError: A setting, the run or the folder cannot be used; nothing is written.
    """
    if (elsewhere := disk.address(run)) is not None:
        raise DataError(f"{elsewhere} {disk.COPY_FIRST}")
    from semdpo import pipeline
    from semdpo.engine.providers import own_models
    from semdpo.engine.stage import Run
    from semdpo.study import plan as files
    from semdpo.study import planning

    planning.refuse_unfit(settings)
    output.refuse_inputs(out, [run])
    files.refuse_started(out)
    folder = Path(run)
    with bar("planning the study"):
        made = planning.make_plan(Run(folder, pipeline.recipe_of(folder), own_models()), settings)
        files.write_study(out, *made)
    show(_as_text(made.plan))
    say(f"study: {out}; keep it private, because it names the methods")
    return made.plan


def _questions(given: list[str]) -> dict[str, str]:
    """Question's name → its words."""
    import re

    from semdpo.study.design import QUESTIONS

    found: dict[str, str] = {}
    for each in given:
        name, _, words = each.partition("=")
        if name in found:
            raise ConfigError(f"the question '{name}' is given twice; give it once")
        if not words and name not in QUESTIONS:
            raise ConfigError(f"there is no question '{name}'{did_you_mean(name, QUESTIONS)}; or write {name}=WORDS")
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
            raise ConfigError(f"'{name}' cannot be a question's name; use small letters, digits, - and _")
        found[name] = words or QUESTIONS[name]
    return found


def _as_text(plan: Plan) -> str:
    """What was planned."""
    kinds = Counter(trial.kind for trial in plan.trials)
    pairs = len(plan.methods) * (len(plan.methods) - 1) // 2
    raters = "simulated raters" if plan.simulated else "raters"
    lines = [
        f"{' against '.join(plan.methods)}: {pairs} {'pair' if pairs == 1 else 'pairs'} of methods, "
        f"{len(plan.prompts)} prompts, {plan.raters} {raters}",
        f"{kinds['comparison']} comparisons, {kinds['repeat']} repeats, {kinds['attention']} attention checks; "
        f"questions: {', '.join(plan.questions)}",
    ]
    for reason, number_out in Counter(each.reason for each in plan.left_out).items():
        lines.append(f"comparisons left out: {number_out} ({reason})")
    if plan.resized is not None:
        lines.append(f"the images had different sizes: {plan.resized}")
    return "\n".join([*lines, *([power_text(plan.power, plan.analysis)] if plan.power else [])])


def power_text(found: Power, analysis: Analysis) -> str:
    """What a study can find, as a sentence."""
    return (
        f"power {found.power:.0%} to find {found.effect:.0%} of votes for one method (test over {analysis.test}, level "
        f"{1 - analysis.level:.3g}; raters' sd {found.rater_sd:g}, prompts' sd {found.prompt_sd:g} logits); without a "
        f"difference it finds one in {found.false_positives:.1%} of {found.simulations:,} simulated studies"
    )


def power(
    raters: Raters = 9,
    prompts: Annotated[int, typer.Option(help="Number of prompts.")] = 20,
    prompts_per_rater: PerRater = None,
    test: Test = "both",
    level: Level = 0.95,
    effect: Effect = 0.65,
    rater_sd: RaterSd = 0.5,
    prompt_sd: PromptSd = 1.0,
    seed: Seed = 0,
) -> None:
    """Compute how often a study finds a difference between two methods. No run is needed."""
    number("--prompts", prompts, 1)
    analysis, assumptions = _tested(raters, prompts_per_rater, test, level, effect, rater_sd, prompt_sd, seed)
    each = prompts if prompts_per_rater is None else prompts_per_rater
    if each > prompts:
        raise ConfigError(f"--prompts-per-rater is {each}, but there are {prompts} prompts; give fewer")
    from semdpo.study.power import power as simulated_power

    found = simulated_power(raters, prompts, each, analysis, assumptions)
    show(f"{raters} raters × {each} of {prompts} prompts: {power_text(found, analysis)}")


def _tested(
    raters: int,
    per_rater: int | None,
    test: str,
    level: float,
    effect: float,
    rater_sd: float,
    prompt_sd: float,
    seed: int,
) -> tuple[Analysis, Assumptions]:
    """The analysis, and what its power is computed for, from options that ``plan`` and ``power`` share.

    Raises:
        ConfigError: One is out of range.
    """
    number("--raters", raters, 1, MOST_RATERS)
    if per_rater is not None:
        number("--prompts-per-rater", per_rater, 1)
    number("--level", level, 0.5, 0.9999)
    number("--effect", effect, 0.5, 0.999)
    number("--rater-sd", rater_sd, 0, 10)
    number("--prompt-sd", prompt_sd, 0, 10)
    number("--seed", seed, 0, 2**63 - 1)
    from semdpo.study.power import TESTS, Assumptions

    known = {str(name): name for name in TESTS}
    if test not in known:
        raise ConfigError(f"--test is '{test}'{did_you_mean(test, known)}")
    from semdpo.study.design import Analysis

    return Analysis(test=known[test], level=level, seed=seed), Assumptions(effect, rater_sd, prompt_sd)


def pairs(
    study: Annotated[Path, typer.Argument(help="The study's folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of pairs: csv, tsv, jsonl or parquet.")],
    question: Annotated[str | None, typer.Option(help="Whose votes count; by default, the plan's primary.")] = None,
) -> None:
    """Turn votes into preference pairs for weigh and train: a prompt, the better rewrite and the worse one."""
    disk.refuse_unwritable(out)
    output.refuse_inputs(out, [study])
    from semdpo.data.pairs import write_pairs
    from semdpo.data.writers import check_suffix
    from semdpo.study.blinding import study_id
    from semdpo.study.judgements import exclude, judgements
    from semdpo.study.pairs import pairs_of_study
    from semdpo.study.plan import read_study
    from semdpo.study.votes import read_votes

    check_suffix(out)
    planned = read_study(study)
    plan = planned.plan
    kept = exclude(judgements(plan, read_votes(study, study_id(planned))), plan.exclusion)
    found = pairs_of_study(plan, kept.judgements, question or plan.analysis.primary)
    extra: dict[str, Sequence[Any]] = {
        "votes": found.votes,
        "chosen_method": [better for better, _ in found.methods],
        "rejected_method": [worse for _, worse in found.methods],
        "simulated": [plan.simulated] * len(found.pairs),
    }
    existed = out.exists()
    write_pairs(out, found.pairs, extra)
    say(f"replaced {out}" if existed else f"wrote {out}")
    raters = "simulated raters" if plan.simulated else "raters"
    show(
        f"{len(found.pairs)} pairs; left out: {found.ties} without a majority, {found.same} votes on two images of one "
        f"rewrite; excluded {raters}: {len(kept.reasons)}"
    )
    for rater, reason in kept.reasons.items():
        say(f"rater {rater} is excluded: {reason}")
