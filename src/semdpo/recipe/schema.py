"""The settings of a recipe: one frozen model per stage; unknown keys and values out of range are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_serializer, model_validator

from semdpo.recipe import defaults, trackers
from semdpo.recipe.atoms import ATOMS, AtomsConfig, refuse_misused
from semdpo.recipe.base import LearningRate, Name, Positive, Seed, Settings, Templated, Text
from semdpo.recipe.benchmarks import Benchmarks, without_empty
from semdpo.recipe.cluster import RayConfig
from semdpo.recipe.discovery import AnyObjective
from semdpo.recipe.endpoints import Asked, ModelName, is_url
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import (
    DecodingConfig,
    LoRAConfig,
    RendererConfig,
    RewriterConfig,
    RewriterSource,
    ScoringConfig,
)
from semdpo.recipe.pairs import DriftConfig, PairsConfig
from semdpo.recipe.prompts import PromptsConfig
from semdpo.recipe.render_budget import RenderBudgetConfig, refuse_unsuited
from semdpo.recipe.report import ReportConfig
from semdpo.recipe.rounds import LaterRound, RoundsConfig, later_rounds, refuse_taken_names, refuse_unknown_methods
from semdpo.recipe.sweep import SweepConfig
from semdpo.recipe.variants import Variant, variants

ADDED_SECTIONS = ("render_budget", "atoms", "rounds")  # a recipe without them is written without them
NOT_METRICS = {
    *("method", "prompt_id", "prompt", "source", "image_seed", "rewrite"),
    *("tokens", "distance", "truncated", "image", "drift", "drifted", "average", "images", "consistency"),
    *("repetition", "cliches", "facts_wrong", "content_added", "popular_added"),
}


class SFTConfig(Templated):
    """Supervised fine-tuning of the rewriter on (prompt, rewrite) pairs.

    Attributes:
        model: the language model to start from.
        file: a file with the columns prompt and rewrite.
        steps: the number of updates.
        batch_size: the number of pairs per update.
        micro_batch_size: the number of pairs that are computed at once; None takes all.
        learning_rate: the highest learning rate.
        max_length: the largest number of tokens of prompt and rewrite together; longer pairs are refused.
        precision: ``auto`` computes in bfloat16 where the machine has it natively, with weights in float32.
        seed: the seed of the pairs' order.
    """

    model: Text
    file: Text
    steps: Positive = 200
    batch_size: Positive = 32
    micro_batch_size: Positive | None = None
    learning_rate: LearningRate = 1e-3
    max_length: Positive = 96
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    seed: Seed = 0


class CandidatesConfig(DecodingConfig):
    """How candidates are sampled: ``n`` rewrites of every training prompt, ``shard_size`` prompts per file.

    Attributes:
        rewriter: the rewriter that writes them; None is this run's SFT model.
        user_prompt: whether the user's prompt, unchanged, is one more candidate of its own.
    """

    n: int = Field(default=4, ge=2)
    shard_size: Positive = 64
    rewriter: RewriterSource | None = None
    user_prompt: bool = False

    @model_validator(mode="after")
    def _what_a_server_takes(self) -> CandidatesConfig:
        if self.rewriter is not None and self.rewriter.is_remote:
            self.refuse_local_only()
        return self

    def of_results(self) -> dict[str, Any]:
        """The settings that candidates depend on."""
        other: dict[str, Any] = {} if self.rewriter is None else {"rewriter": self.rewriter.of_results()}
        other |= {"user_prompt": True} if self.user_prompt else {}
        return self.model_dump(mode="json", exclude={"rewriter", "user_prompt"}) | other

    @property
    def most(self) -> int:
        """The largest number of candidates of a prompt."""
        return self.n + self.user_prompt


class TrainConfig(Templated):
    """Preference training; all methods share all settings but their objective.

    Attributes:
        methods: name → objective.
        beta: β, how strongly the objectives hold the rewriter to the reference.
        learning_rate: the highest learning rate; it rises linearly to it, then falls linearly to 0.
        epochs: the number of passes over the pairs.
        batch_size: the number of pairs per update, of all processes together.
        micro_batch_size: the number of pairs that one process computes at once; None takes its whole share.
        max_length: the largest number of tokens of prompt and rewrite together; longer pairs are refused.
        warmup_ratio: the share of the updates in which the learning rate rises.
        seed: the seed of the pairs' order.
        precision: ``auto`` computes in bfloat16 where the machine has it natively, with weights in float32.
        checkpoint_steps: the number of updates between checkpoints; an interrupted training resumes at the last one.
        lora: the adapters' settings; None trains all weights.
        report_to: trackers of transformers' Trainer, such as tensorboard, wandb or mlflow.
    """

    methods: dict[Name, AnyObjective] = Field(min_length=1)
    beta: float = Field(default=defaults.BETA, gt=0)
    learning_rate: LearningRate = defaults.LEARNING_RATE
    epochs: Positive = defaults.EPOCHS
    batch_size: Positive = defaults.BATCH_SIZE
    micro_batch_size: Positive | None = None
    max_length: Positive = defaults.MAX_LENGTH
    warmup_ratio: float = Field(default=defaults.WARMUP_RATIO, ge=0, lt=1)
    seed: Seed = defaults.SEED
    precision: Literal["auto", "float32", "bfloat16"] = defaults.PRECISION
    checkpoint_steps: Positive = defaults.CHECKPOINT_STEPS
    lora: LoRAConfig | None = None
    report_to: list[Annotated[Text, AfterValidator(trackers.checked_name)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole_batches_where_needed(self) -> TrainConfig:
        for objective in self.methods.values():
            if objective.needs_whole_batch:
                if self.batch_size < 2:
                    raise ValueError(f"{objective.name} compares the pairs of a batch; set batch_size ≥ 2")
                if self.micro_batch_size is not None:
                    raise ValueError(f"{objective.name} needs its whole batch at once; remove micro_batch_size")
        return self

    @field_validator("methods")
    @classmethod
    def _free_names(cls, methods: dict[str, AnyObjective]) -> dict[str, AnyObjective]:
        if taken := {"human", "sft"} & methods.keys():
            raise ValueError(f"the names {sorted(taken)} mean the user's prompt and the SFT model; choose others")
        return methods


class EvaluateConfig(Settings):
    """Images of every method's rewrites of held-out prompts, scored against the user's prompt.

    Attributes:
        metrics: column name → scorer's name, or the URL of a server that ``scoring.endpoints`` has settings for.
        image_seeds: the image seeds; every rewrite is rendered once per seed.
        keep_images: the number of prompts whose images the report shows.
        renderer: the text-to-image model.
        rewrite: how SFT and the trained methods decode.
        also: name → a further decoding; each adds a method METHOD_NAME for SFT and for every trained method.
        rewriters: other rewriters to compare with: method's name → model, how it is asked, and its decoding.
        shard_size: the number of prompts per file.
        max_failed: the share of a shard's rewrites that may stay without an image, because it cannot be rendered; more
            stop the run. One of a shard always may, unless the share is 0.
    """

    metrics: dict[Name, ModelName] = Field(min_length=1)
    image_seeds: list[Seed] = Field(default=[0], min_length=1)
    keep_images: int = Field(default=8, ge=0)
    renderer: RendererConfig
    rewrite: DecodingConfig = DecodingConfig()
    also: dict[Name, DecodingConfig] = Field(default_factory=dict)
    rewriters: dict[Name, RewriterConfig] = Field(default_factory=dict)
    shard_size: Positive = 64
    max_failed: float = Field(default=0.01, ge=0, le=1)

    @field_validator("metrics")
    @classmethod
    def _free_columns(cls, metrics: dict[str, str]) -> dict[str, str]:
        if taken := NOT_METRICS & metrics.keys():
            raise ValueError(f"the names {sorted(taken)} are other columns of the results; choose others")
        return metrics

    @field_validator("image_seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("every image seed may appear only once")
        return seeds


class Recipe(Settings):
    """A whole experiment; ``run`` is the folder of its files, by default ``runs/<name>``.

    ``engine`` is who rewrites, renders and scores: this machine (``local``) or a Ray cluster (``ray``).
    """

    name: Name
    run: Text | None = None
    prompts: PromptsConfig
    sft: SFTConfig
    candidates: CandidatesConfig
    render_budget: RenderBudgetConfig | None = None
    atoms: AtomsConfig | None = None
    label: LabelConfig
    pairs: PairsConfig = PairsConfig()
    drift: DriftConfig
    scoring: ScoringConfig = ScoringConfig()
    train: TrainConfig
    rounds: RoundsConfig | None = None
    evaluate: EvaluateConfig
    benchmarks: Benchmarks = Field(default_factory=dict)
    report: ReportConfig
    sweep: SweepConfig | None = None
    engine: Literal["local", "ray"] = "local"
    ray: RayConfig = RayConfig()

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, handler: Any) -> dict[str, Any]:
        written: dict[str, Any] = without_empty(handler(self))
        return {key: value for key, value in written.items() if key not in ADDED_SECTIONS or value is not None}

    @model_validator(mode="after")
    def _atoms_are_there_where_they_are_used(self) -> Recipe:
        refuse_misused(
            self.atoms, self.label, self.drift.source, [*self.evaluate.metrics, *self.evaluate.metrics.values()]
        )
        if self.pairs.filters and self.label.fidelity is None:
            raise ValueError(
                "pairs.min_fidelity and pairs.faithful need scores; set label.fidelity to a fidelity scorer or atoms"
            )
        if self.drift.source == "scorer_agreement" and self.label.fidelity is None:
            raise ValueError("drift.source is scorer_agreement, which compares two scorers; set label.fidelity to one")
        if self.render_budget is not None and self.drift.source != "encoder":
            raise ValueError(
                "render_budget draws by the encoder's drift; set drift.source=encoder, or remove render_budget"
            )
        return self

    @model_validator(mode="after")
    def _the_budget_suits_every_method(self) -> Recipe:
        if self.render_budget is not None:
            refuse_unsuited(self.render_budget, self.train.methods)
            if self.candidates.user_prompt:
                raise ValueError(
                    "render_budget keeps every prompt whose own words are a candidate, so that it saves nothing; set "
                    "candidates.user_prompt=false, or remove render_budget"
                )
        return self

    @model_validator(mode="after")
    def _rounds_have_methods_and_names(self) -> Recipe:
        refuse_unknown_methods(self.rounds, self.train.methods)
        others = {"human", "sft", *self.train.methods, *self.variants, *self.evaluate.rewriters}
        refuse_taken_names(self.later_rounds, others)
        return self

    @model_validator(mode="after")
    def _servers_that_score_have_settings(self) -> Recipe:
        for key, name in self.judges.items():
            if is_url(name) and name not in self.scoring.endpoints:
                raise ValueError(
                    f"{key} is the server {name}; say which of its models to use with "
                    f"scoring.endpoints: {{'{name}': {{model_name: NAME}}}}"
                )
        return self

    @model_validator(mode="after")
    def _tuning_is_kept_apart(self) -> Recipe:
        if self.sweep is None:
            return self
        for key in (self.sweep.fidelity, self.sweep.preference):
            if key not in self.evaluate.metrics:
                raise ValueError(f"sweep names '{key}', which is not in evaluate.metrics; add it there")
        of_benchmarks = {seed for each in self.benchmarks.values() for seed in each.image_seeds or ()}
        if shared := set(self.sweep.image_seeds) & {*self.evaluate.image_seeds, *of_benchmarks}:
            raise ValueError(f"sweep.image_seeds has {sorted(shared)}, which the report shows; choose others")
        return self

    @model_validator(mode="after")
    def _every_metric_is_shown_once(self) -> Recipe:
        shown, known = [*self.report.fidelity, *self.report.preference], list(self.evaluate.metrics)
        if sorted(shown) != sorted(known):
            raise ValueError(
                f"report.fidelity and report.preference must name each of evaluate.metrics ({', '.join(known)}) once"
            )
        return self

    @model_validator(mode="after")
    def _the_report_names_methods(self) -> Recipe:
        compared = {"human", "sft", *self.train.methods, *self.evaluate.rewriters}
        named = {key: [getattr(self.report, key)] for key in {"subject", "baseline"} & self.report.model_fields_set}
        for key, names in (named | {"images": self.report.images}).items():
            methods = compared | self.secondary.keys() if key == "images" else compared
            if unknown := sorted(set(names) - methods):
                added = "a method of evaluate.also or of a later round, which no other is compared with"
                fault = added if unknown[0] in self.secondary else "not a method of this recipe"
                raise ValueError(
                    f"report.{key} names '{unknown[0]}', which is {fault}; choose one of {', '.join(sorted(methods))}"
                )
        return self

    @model_validator(mode="after")
    def _simulated_raters_can_judge(self) -> Recipe:
        renderer = self.evaluate.renderer.model
        if self.report.study is not None and not renderer.startswith("tiny:"):
            raise ValueError(
                f"report.study lets simulated raters judge images of the tiny world only, and evaluate.renderer.model "
                f"is '{renderer}'; set report.study=null"
            )
        if self.atoms is not None and self.atoms.model == "tiny:judge" and not renderer.startswith("tiny:"):
            raise ValueError(
                f"atoms.model is tiny:judge, which knows images of the tiny world only, and evaluate.renderer.model is "
                f"'{renderer}'; name an image-text-to-text model, or set atoms=null"
            )
        return self

    @model_validator(mode="after")
    def _every_method_has_its_own_name(self) -> Recipe:
        if taken := self.evaluate.rewriters.keys() & {"human", "sft", *self.train.methods}:
            raise ValueError(f"evaluate.rewriters has {sorted(taken)}, which are already methods; choose other names")
        if taken := self.variants.keys() & self.evaluate.rewriters.keys():
            raise ValueError(f"evaluate.rewriters has {sorted(taken)}, which evaluate.also makes; choose other names")
        return self

    @model_validator(mode="after")
    def _additive_has_its_fidelity(self) -> Recipe:
        if self.label.fidelity is None:
            for name, objective in self.train.methods.items():
                if objective.needs_fidelity:
                    raise ValueError(
                        f"train.methods.{name} is {objective.name}; set label.fidelity to a fidelity scorer"
                    )
        return self

    def model_of(self, scorer: str | None) -> str | None:
        """The model behind a scorer's name: for ``atoms``, the one that answers them."""
        return self.atoms.model if scorer == ATOMS and self.atoms is not None else scorer

    @property
    def variants(self) -> dict[str, Variant]:
        """The methods that ``evaluate.also`` adds."""
        return variants(["sft", *self.train.methods], self.evaluate.also)

    @property
    def later_rounds(self) -> list[LaterRound]:
        """The rounds after the first, in the order in which they are trained."""
        return later_rounds(self.rounds, self.train.methods)

    @property
    def secondary(self) -> dict[str, Variant]:
        """The methods that belong to another one: with a further decoding, or trained in a later round."""
        later = {
            each.name: Variant(each.method, f"round {each.number}", round=each.number) for each in self.later_rounds
        }
        return self.variants | later

    @property
    def other_rewriters(self) -> dict[str, RewriterSource]:
        """The rewriters that this run does not train: key in the recipe → rewriter."""
        first = self.candidates.rewriter
        others: dict[str, RewriterSource] = {} if first is None else {"candidates.rewriter": first}
        if self.atoms is not None and self.atoms.lm is not None:
            others["atoms.lm"] = self.atoms.lm
        return others | {f"evaluate.rewriters.{name}": each for name, each in self.evaluate.rewriters.items()}

    @property
    def scorers(self) -> dict[str, str]:
        """The scorers of images: key in the recipe → scorer's name."""
        names = {"label.scorer": self.label.scorer}
        names |= {} if self.label.fidelity is None else {"label.fidelity": self.label.fidelity}
        return names | {f"evaluate.metrics.{metric}": name for metric, name in self.evaluate.metrics.items()}

    @property
    def judges(self) -> dict[str, str]:
        """The scorers of images, and the model that answers atoms: key in the recipe → name or URL."""
        return self.scorers | ({} if self.atoms is None else self.atoms.answering)

    @property
    def servers(self) -> dict[str, Asked]:
        """The servers that are asked for rewrites, images, scores and answers: key in the recipe → server."""
        asked = {
            key: Asked(other.model, other.endpoint, f"{key}.endpoint")
            for key, other in self.other_rewriters.items()
            if other.endpoint is not None
        }
        for key, renderer in (("label.renderer", self.label.renderer), ("evaluate.renderer", self.evaluate.renderer)):
            if renderer.endpoint is not None:
                asked[key] = Asked(renderer.model, renderer.endpoint, f"{key}.endpoint", draws=True)
        for key, name in self.judges.items():
            if is_url(name):
                asked[key] = Asked(name, self.scoring.endpoints[name], f"scoring.endpoints.{name}")
        return asked

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return Path(self.run) if self.run else Path("runs") / self.name
