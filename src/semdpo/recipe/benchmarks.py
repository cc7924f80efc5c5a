"""Settings of benchmarks: published sets of prompts on which a run's methods are also compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, field_validator

from semdpo.errors import did_you_mean
from semdpo.recipe.atoms import AtomsConfig
from semdpo.recipe.base import Positive, Seed, Settings, Text

# Name → its data set on the hub; None where it is published as files only. semdpo.data.benchmarks has the rest.
KNOWN: Final[Mapping[str, str | None]] = {
    "partiprompts": "hub:nateraw/parti-prompts",
    "drawbench": "hub:Jialuo21/DrawBench:test",
    "geneval": None,
    "geneval2": None,
    "t2i-compbench": "hub:limingcv/T2I-CompBench:test",
    "dpg-bench": None,
}


class BenchmarkConfig(Settings):
    """A benchmark: all methods rewrite its prompts, and their images are scored by the scorers of ``evaluate``.

    Attributes:
        file: the file or folder as it is published, or ``hub:OWNER/NAME[:SPLIT]``; None takes the hub's, where it is
            there.
        limit: the number of prompts, chosen by the hash of their words; None takes all.
        image_seeds: the image seeds; None takes those of ``evaluate``.
    """

    file: Text | None = None
    limit: Positive | None = None
    image_seeds: list[Seed] | None = Field(default=None, min_length=1)

    @field_validator("image_seeds")
    @classmethod
    def _distinct(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and len(set(seeds)) != len(seeds):
            raise ValueError("every image seed may appear only once")
        return seeds


def checked(benchmarks: dict[str, BenchmarkConfig]) -> dict[str, BenchmarkConfig]:
    """Refuses unknown names, and benchmarks whose file is needed and not named.

    Raises:
        ValueError: there is one; the message gives the cure.
    """
    for name, config in benchmarks.items():
        if name not in KNOWN:
            raise ValueError(f"there is no benchmark '{name}'{did_you_mean(name, KNOWN)}")
        if config.file is None and KNOWN[name] is None:
            raise ValueError(
                f"{name} is published as files only; download them (docs/howto/benchmarks.md says from where), and set "
                f"benchmarks.{name}.file, or give --benchmark {name}=FILE"
            )
    return benchmarks


Benchmarks = Annotated[dict[str, BenchmarkConfig], AfterValidator(checked)]


def source_of(name: str, config: BenchmarkConfig) -> str:
    """The file, folder or data set of the hub that has a benchmark's prompts."""
    return str(config.file or KNOWN[name])


def own_atoms(name: str, config: BenchmarkConfig, atoms: AtomsConfig | None) -> AtomsConfig | None:
    """The atoms that a benchmark brings: GenEval 2's file has them; None where it has none, or nobody answers them.

    Args:
        name: the benchmark's name.
        config: its settings.
        atoms: the recipe's section of atoms, whose model answers.
    """
    source = source_of(name, config)
    if atoms is None or atoms.model is None or name != "geneval2" or not source.lower().endswith(".jsonl"):
        return None
    return AtomsConfig(maker="file", file=source, model=atoms.model, mean=atoms.mean, without="leave_out")


def without_empty(written: dict[str, Any]) -> dict[str, Any]:
    """A recipe's settings without the section ``benchmarks`` where it is empty, as recipes were written before."""
    return {key: value for key, value in written.items() if key != "benchmarks" or value}
