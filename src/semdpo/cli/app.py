"""The command line: every command is a thin call; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk, extras
from semdpo.cli.ending import NOBODY, finish, interruptible, typed_by_user
from semdpo.cli.given import named_as_options, number, refuse_without_effect
from semdpo.disk import is_dir
from semdpo.errors import ConfigError, DataError, StoreError
from semdpo.progress import quiet_libraries, share_the_processor
from semdpo.recipe import defaults

app = typer.Typer(
    help="Sem-DPO: tune a prompt rewriter for text-to-image models on preferences, weighted by meaning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
world = typer.Typer(help="The embedded tiny world: its models and pictures.", no_args_is_help=True)
app.add_typer(world, name="world")

DEMO = Path("runs/tiny/train/sem_dpo")
GOES_ON = "the same command goes on from here"
ANEW = "the same command without --fresh goes on from here"

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
]
Only = Annotated[str | None, typer.Option(help="Run one stage only, such as train or evaluate/dpo.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Make anew the stages that changed, and what follows from them.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; runs/NAME when not given.")]
PairsFile = Annotated[str, typer.Argument(help="Columns prompt, chosen, rejected: jsonl, csv, tsv or parquet.")]
RunFolder = Annotated[Path, typer.Argument(help="The run's folder, such as runs/tiny.")]


@app.command()
def demo(set_: Overrides = None, only: Only = None, fresh: Fresh = False, out: Out = None) -> None:
    """Run everything on the embedded tiny world and write a report; the same as: run tiny."""
    run("tiny", set_, only, fresh, out)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (tiny) or the path of a .yaml file.")],
    set_: Overrides = None,
    only: Only = None,
    fresh: Fresh = False,
    out: Out = None,
) -> None:
    """Run a recipe from prompts to report; started again, it goes on where it stopped."""
    if only == "report":
        refuse_without_effect({"--fresh": fresh}, "on the report, which is always written anew")
    with interruptible(lambda: "" if only == "report" else ANEW if fresh else GOES_ON):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        pipeline.run(loaded, out, only=only, fresh=fresh)


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name or path; the machine alone when not given.")
    ] = None,
    set_: Overrides = None,
    out: Out = None,
    measured: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Try each kind of work for 20 s.", show_default="measure"),
    ] = None,
) -> None:
    """Say what this machine has, what a recipe needs, what is missing and how to get it, and how long a run takes."""
    if recipe is None:
        option = "--measure" if measured else "--no-measure"
        refuse_without_effect({"--set": set_, option: measured is not None}, "without a recipe")
    from semdpo.cli.doctor import diagnose

    if not diagnose(recipe, set_ or [], out, measured is not False):
        raise typer.Exit(1)


@app.command()
def weigh(
    pairs: PairsFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write them: .jsonl, .csv, .tsv or .parquet.")],
    encoder: Annotated[str, typer.Option(help="Any CLIP or sentence-transformers model.")] = defaults.ENCODER,
    alpha: Annotated[float, typer.Option(help="For the summary: weights are exp(-alpha * distance).")] = defaults.ALPHA,
    batch_size: Annotated[int, typer.Option(help="Texts at a time.")] = defaults.TEXTS_AT_A_TIME,
) -> None:
    """Measure how far the chosen texts of preference pairs drift from their prompts."""
    number("--alpha", alpha, 0)
    number("--batch-size", batch_size, 1)
    from semdpo.cli.pairs import weigh_file

    weigh_file(pairs, out, encoder, alpha, batch_size)


@app.command()
def audit(
    pairs: PairsFile,
    encoder: Annotated[str, typer.Option(help="Measures distances where the pairs have none.")] = defaults.ENCODER,
    alpha: Annotated[float, typer.Option(help="Weights are exp(-alpha * distance).")] = defaults.ALPHA,
    evaluation: Annotated[str | None, typer.Option(help="Prompts that must not be trained on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK[=SHARE]", help="Exit with 1 when there are any, or more than this share."),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Say what preference pairs will teach: drift, duplicates, leaks, truncation, ties, length bias."""
    number("--alpha", alpha, 0)
    from semdpo.cli.audit import audit_file

    needed = typed_by_user(context, "encoder")
    if not audit_file(pairs, encoder, alpha, evaluation, html, json_, fail_on or [], encoder_named=needed):
        raise typer.Exit(1)


@app.command()
def train(
    pairs: PairsFile,
    model: Annotated[str, typer.Option(help="The rewriter to start from: a folder or a name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The trained rewriter's folder; must not exist.")],
    objective: Annotated[
        str, typer.Option(help="sft, dpo, sem_dpo, beta_dpo, kto, orpo or additive.")
    ] = defaults.OBJECTIVE,
    alpha: Annotated[
        str | None,
        typer.Option(help="Strength of sem_dpo's weight: a number or auto.", show_default=f"{defaults.ALPHA:g}"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another setting of the objective, such as --set nll_coef=0.1")
    ] = None,
    beta: Annotated[float, typer.Option(help="Strength of the tie to the reference.")] = defaults.BETA,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = defaults.LEARNING_RATE,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = defaults.EPOCHS,
    batch_size: Annotated[int, typer.Option(help="Pairs of one update.")] = defaults.BATCH_SIZE,
    micro_batch_size: Annotated[int | None, typer.Option(help="Pairs computed at once; all when not given.")] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of prompt and rewrite.")] = defaults.MAX_LENGTH,
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the updates in which the learning rate rises.")
    ] = defaults.WARMUP_RATIO,
    seed: Annotated[int, typer.Option(help="Of the order of pairs.")] = defaults.SEED,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = defaults.PRECISION,
    checkpoint_steps: Annotated[int, typer.Option(help="Updates between checkpoints.")] = defaults.CHECKPOINT_STEPS,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train adapters of this rank (alpha 32) instead of all weights.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="With {prompt} in it; the model's own when not given.")] = None,
    report_to: Annotated[list[str] | None, typer.Option(help="A tracker, such as tensorboard or wandb.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the reference's log-probabilities; $SEMDPO_CACHE or the user's cache when not given."
        ),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Train a rewriter on preference pairs; started again, it goes on from its last checkpoint."""
    shared = {
        "beta": beta,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "max_length": max_length,
        "warmup_ratio": warmup_ratio,
        "seed": seed,
        "precision": precision,
        "checkpoint_steps": checkpoint_steps,
        "lora": None if lora_rank is None else {"rank": lora_rank},
        "report_to": report_to or [],
    }
    typed = [name for name in ("beta", "learning_rate") if typed_by_user(context, name)]
    from semdpo.cli.goal import goal_of
    from semdpo.cli.pairs import train_file, where_it_goes_on

    goal = goal_of(objective, alpha, set_ or [], typed)
    from semdpo.training.memory import keep_freed_memory

    keep_freed_memory()
    with interruptible(lambda: where_it_goes_on(out)), named_as_options(*(each for each in shared if "_" in each)):
        train_file(pairs, model, out, goal, template, shared, cache)


@app.command()
def optimize(
    prompt: Annotated[str, typer.Argument(help="What the picture should show.")],
    model: Annotated[
        str | None, typer.Option(help="A trained rewriter; the demo's Sem-DPO model when not given.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Any CLIP or sentence-transformers model; the one that weighed the pairs when not given."),
    ] = None,
    max_distance: Annotated[float | None, typer.Option(help="Refuse rewrites that drift farther.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Budget of a rewrite; that of the longest one learnt when not given.")
    ] = None,
) -> None:
    """Rewrite a prompt, and say how far the rewrite drifts from it."""
    if max_distance is not None:
        number("--max-distance", max_distance, 0, 2)
    if max_new_tokens is not None:
        number("--max-new-tokens", max_new_tokens, 1)
    if not prompt.strip():
        raise DataError("the prompt is empty; say what the image should show")
    if model is None and not DEMO.is_dir():
        raise StoreError(f"there is no {DEMO} yet; run `semdpo demo` first, or give --model")
    from semdpo.cli.optimize import optimize_prompt

    with named_as_options("max_new_tokens", "max_distance"):
        optimize_prompt(prompt, DEMO if model is None else model, encoder, max_distance, max_new_tokens)


@app.command()
def evaluate(folder: RunFolder, fresh: Fresh = False) -> None:
    """Draw and judge the held-out prompts of a run with every method."""
    with interruptible(lambda: ANEW if fresh else GOES_ON):
        from semdpo import pipeline

        pipeline.run(pipeline.recipe_of(folder), folder, only="evaluate", fresh=fresh)


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (tiny) or the path of a .yaml file.")],
    set_: Overrides = None,
    fresh: Fresh = False,
    out: Out = None,
) -> None:
    """Train Sem-DPO at several alpha, compare them on tuning prompts, and say which one to take."""
    with interruptible(lambda: ANEW if fresh else GOES_ON):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        pipeline.sweep(loaded, out, fresh=fresh)


@app.command()
def report(
    what: Annotated[
        Path, typer.Argument(help="A run's folder, or a table of judged pictures: csv, tsv, jsonl, parquet.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Of a table's report: its folder.")] = None,
    fidelity: Annotated[list[str] | None, typer.Option(help="A table's metric: shows what was asked.")] = None,
    preference: Annotated[list[str] | None, typer.Option(help="A table's metric: people would like it.")] = None,
    seen: Annotated[list[str] | None, typer.Option(help="Metrics whose judges took part in training.")] = None,
    subject: Annotated[str, typer.Option(help="The method of a table that is compared ...")] = defaults.SUBJECT,
    baseline: Annotated[str, typer.Option(help="... with this one first.")] = defaults.BASELINE,
    title: Annotated[str, typer.Option(help="Of a table's report.")] = defaults.TITLE,
    context: typer.Context = NOBODY,
) -> None:
    """Write the report of a finished run again, or of a table that some other program made."""
    extras.require(report="the report")
    if is_dir(what):
        named = ("out", "fidelity", "preference", "seen", "subject", "baseline", "title")
        own = {f"--{name}": typed_by_user(context, name) for name in named}
        refuse_without_effect(own, "on a run's report, which its recipe describes")
        from semdpo import pipeline

        pipeline.run(pipeline.recipe_of(what), what, only="report")
        return
    if out is None or not (fidelity or preference):
        raise ConfigError(
            "the report of a table needs --out FOLDER and its metrics: --fidelity NAME, --preference NAME"
        )
    from semdpo.cli.report import report_file

    report_file(str(what), out, fidelity or [], preference or [], seen or [], subject, baseline, title)


@world.command("build")
def world_build(
    models: Annotated[list[str] | None, typer.Argument(help="Names; all when none is given.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The build folder.")] = Path("world-build"),
    jobs: Annotated[int, typer.Option(help="Models at a time.")] = 2,
    ship: Annotated[bool, typer.Option("--ship", help="Then copy all of them into the package.")] = False,
) -> None:
    """Train the tiny world's models from nothing; started again, it goes on where it stopped."""
    number("--jobs", jobs, 1)
    extras.require(render="building the tiny world")
    disk.refuse_unwritable(out, folder=True)
    with interruptible(lambda: GOES_ON):
        from semdpo.tiny_world_training import build

        build.build(models or [], out, jobs)
        if ship:
            build.ship(out)


@world.command("show")
def world_show(
    out: Annotated[Path, typer.Option("--out", "-o", help="A .png file.")] = Path("tiny-world.png"),
) -> None:
    """Draw a contact sheet: the painter's and tiny:sd's pictures for the same captions."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the sheet is a PNG; name it with .png")
    from semdpo.cli import output

    extras.require(render="the contact sheet")
    disk.refuse_unwritable(out)
    from semdpo.models.renderer import load_renderer
    from semdpo.tiny_world.show import contact_sheet

    output.write(out, contact_sheet(load_renderer("tiny:sd", guidance=3.5)))


@world.command("card")
def world_card() -> None:
    """Print how good each of the tiny world's models is."""
    from semdpo.tiny_world import card

    print(card.markdown(card.read()), end="")


def main() -> None:
    """Runs the command that was given; see ``ending``."""
    quiet_libraries()
    share_the_processor()
    finish(app)
