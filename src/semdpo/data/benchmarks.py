"""Published sets of prompts by name: their sizes, where they come from, and whether a file holds just these prompts.

A set is known by the SHA-256 of its prompts, whatever the form and the order in which a file has them (see
``content_hash``). ``benchmark_prompts.json`` also has a short hash of every published prompt, from which one can tell
how many prompts of another file are published ones. The prompts themselves are not part of this package.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from semdpo.recipe.benchmarks import KNOWN

BYTES = 6  # of a prompt's short hash; two of 10,000 prompts share one with a probability of 2 in 10 million
_PROMPTS = Path(__file__).with_name("benchmark_prompts.json")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published set of prompts.

    Attributes:
        name: its name in recipes and on the command line.
        title: its name in tables.
        prompts: the number of its prompts.
        source: where it is published.
        licence: its licence, as its source names it.
        form: what a user gives, for messages.
        parts: what its categories are.
        sha256: the hash of its prompts, as ``content_hash`` computes it; None where the prompts could not be read.
        category: the columns that may name a prompt's category, in tables.
        folder: the pattern of the files of a folder, where the set is one; empty where it is one file.
    """

    name: str
    title: str
    prompts: int
    source: str
    licence: str
    form: str
    parts: str
    sha256: str | None
    category: tuple[str, ...] = ("Category", "category")
    folder: str = ""

    @property
    def hub(self) -> str | None:
        """The data set of the hub that is read where no file is named; None where there is none."""
        return KNOWN[self.name]


_ALL = (
    Benchmark(
        "partiprompts",
        "PartiPrompts",
        1632,
        "github.com/google-research/parti",
        "Apache 2.0",
        "its file PartiPrompts.tsv",
        "Category",
        "f7aeb2a823e62dde737b65935869b37a6d00fbec5996f6f78d69182afbf4fbce",
    ),
    Benchmark(
        "drawbench",
        "DrawBench",
        200,
        "imagen.research.google, a Google sheet",
        "not named",
        "its sheet as DrawBench.csv, with the columns Prompts and Category",
        "Category",
        "18cef96e28e1b3b6b529dc5b8ade0d7f55e65939797fd8af49ef702e9119c2a7",
    ),
    Benchmark(
        "geneval",
        "GenEval",
        553,
        "github.com/djghosh13/geneval",
        "MIT",
        "its file prompts/evaluation_metadata.jsonl",
        "tag",
        "ac4e5db774d347883eb8d56b945146e8ec297c3e1307bae68ed9065bc9dabdcd",
        category=("tag", "category"),
    ),
    Benchmark(
        "geneval2",
        "GenEval 2",
        800,
        "github.com/facebookresearch/GenEval2",
        "CC BY-NC 4.0",
        "its file geneval2_data.jsonl",
        "atom_count, the number of atoms",
        "21a688f3ae5499e5ac95290c025562e3e1f709e2c1536965880173754086e30c",
        category=("atom_count", "category"),
    ),
    Benchmark(
        "t2i-compbench",
        "T2I-CompBench++",
        2400,
        "github.com/Karine-Huang/T2I-CompBench",
        "MIT",
        "its folder examples/dataset, of which the eight files *_val.txt are read",
        "the files",
        "2d2074c436d6de6192c1d326ad54df6cba0c4e7d16506ce194a470edbeb58dc9",
        folder="*_val.txt",
    ),
    Benchmark(
        "dpg-bench",
        "DPG-Bench",
        1065,
        "github.com/TencentQQGYLab/ELLA",
        "Apache 2.0",
        "its folder dpg_bench/prompts, or dpg_bench.csv",
        "where the prompts were taken from, the beginning of the files' names",
        "402e0c256fa67a965a2f5d1129b1622b28615d97dfec5efba6cce2e17888eff6",
        category=("item_id", "category"),
        folder="*.txt",
    ),
)
BENCHMARKS = {each.name: each for each in _ALL}


@dataclass(frozen=True, slots=True)
class Likeness:
    """How the prompts that are evaluated compare with the published ones.

    Attributes:
        published: the number of published prompts.
        evaluated: the number of prompts that are evaluated.
        equal: how many published prompts are among these; None where the published prompts are not known.
        limited: whether the recipe asks for a part of the file only.
        same: whether the evaluated prompts are the published ones, all of them and no others.
    """

    published: int
    evaluated: int
    equal: int | None
    limited: bool
    same: bool

    def __str__(self) -> str:
        """A phrase for tables: ``not the published prompts: 1,630 of 1,632 equal, and 2 others``."""
        asked = ", as the recipe's limit asks" if self.limited else ""
        if self.equal is None:
            return f"{self.evaluated:,} prompts{asked}; nobody has checked whether they are the published ones"
        if self.same:
            return "the published prompts"
        others = self.evaluated - self.equal
        if not others:
            return f"not all of the published prompts: {self.equal:,} of {self.published:,}{asked}"
        rest = f"{others:,} other{'' if others == 1 else 's'}"
        return f"not the published prompts: {self.equal:,} of {self.published:,} equal, and {rest}{asked}"


def content_hash(prompts: Iterable[str]) -> str:
    """The SHA-256 of a set of prompts, the same for all forms and orders in which a file may have them.

    It is that of the prompts' UTF-8 in Unicode's form NFC, each run of blanks as one space and none at the ends, sorted
    by code points, each followed by a line feed. A prompt that occurs twice counts twice.
    """
    return hashlib.sha256("".join(f"{text}\n" for text in sorted(map(_plain, prompts))).encode()).hexdigest()


def likeness(name: str, prompts: Collection[str], *, limited: bool = False) -> Likeness:
    """Compares prompts with the published ones.

    Args:
        name: the benchmark's name.
        prompts: the prompts that are evaluated.
        limited: whether the recipe asked for a part of them only.
    """
    known, published = BENCHMARKS[name], _published(name)
    same = known.sha256 is not None and content_hash(prompts) == known.sha256
    # As a set, because a file may have a prompt twice, with other blanks.
    equal = len({_short(text) for text in prompts} & published) if published else None
    return Likeness(known.prompts, len(prompts), equal, limited, same)


def short_hashes(prompts: Iterable[str]) -> str:
    """The short hashes of prompts, sorted, in base64: an entry of ``benchmark_prompts.json``."""
    return base64.b64encode(b"".join(sorted(map(_short, prompts)))).decode()


@cache
def _published(name: str) -> frozenset[bytes]:
    written = json.loads(_PROMPTS.read_text(encoding="utf-8")).get(name, "")
    data = base64.b64decode(written)
    return frozenset(data[start : start + BYTES] for start in range(0, len(data), BYTES))


def _short(text: str) -> bytes:
    return hashlib.sha256(_plain(text).encode()).digest()[:BYTES]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
