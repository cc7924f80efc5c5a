"""How often the intervals of a study hold the truth, and how often its tests find a difference that is not there.

    python benchmarks/study_coverage.py
    python benchmarks/study_coverage.py --studies 500 --sizes 9x20

Every study is simulated: the log odds of a vote for the first method are effect + rater + prompt + side, with normal
raters and prompts, and a bias to the left. The truth is the share of such votes over all raters, prompts and sides. A
row is one size of study (``x half``: every rater sees half of the prompts) with one effect and one spread of raters
and prompts. ``two-way`` is the study's own interval; the bootstrap and the mixed model are reported beside it. Where
the effect is 0, a second table has the share of studies whose p-value is below 0.05, of Wilcoxon's tests and the
mixed model for the first 100 studies of a row. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from typing import Any

import numpy as np
from scipy import special

from semdpo.study.analysis import mixed
from semdpo.study.analysis.bootstrap import bootstrap
from semdpo.study.analysis.groups import groups
from semdpo.study.analysis.rates import Array, Rates
from semdpo.study.analysis.totals import counted
from semdpo.study.analysis.two_way import two_way

SIZES = ("9x20", "57x5", "12x40", "20x20half")
EFFECTS = (0.0, 0.8, 2.0)  # log odds
SPREADS = ((0.5, 0.5), (0.3, 0.8), (0.0, 0.0))  # standard deviations of raters and prompts, log odds
SLOW = 100  # studies of a row that get the mixed model and Wilcoxon's tests, which take most of the time
SIDE = 0.3  # log odds that the left side adds


def truth(effect: float, spread: tuple[float, float]) -> float:
    """The share of votes for the first method over all raters, prompts and sides."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    odds = effect + np.hypot(*spread) * points
    shares = (special.expit(odds + SIDE) + special.expit(odds - SIDE)) / 2
    return float(weights @ shares / weights.sum())


def study(
    size: str, effect: float, spread: tuple[float, float], rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """The votes of one study: for the first method, all votes, and whether it was on the left; each [raters, prompts].

    Every rater has the first method on the left in half of the comparisons.
    """
    raters, prompts = map(int, size.removesuffix("half").split("x"))
    left = (np.arange(raters)[:, None] + np.arange(prompts)) % 2 == 0
    counts = np.ones((raters, prompts))
    if size.endswith("half"):  # two prompts side by side, on the left and on the right, or neither
        pairs = np.array([rng.permutation(prompts // 2) < prompts // 4 for _ in range(raters)])
        counts = np.repeat(pairs, 2, axis=1).astype(float)
    odds = effect + rng.normal(0, spread[0], (raters, 1)) + rng.normal(0, spread[1], (1, prompts))
    chosen = rng.random((raters, prompts)) < special.expit(odds + np.where(left, SIDE, -SIDE))
    return chosen * counts, counts, left


def measure(
    size: str, effect: float, spread: tuple[float, float], studies: int, resamples: int, seed: int
) -> dict[str, Any]:
    """The share of studies whose intervals hold the truth, and of those whose p-values are below 0.05, by name."""
    rng, target = np.random.default_rng(seed), truth(effect, spread)
    held: dict[str, list[bool]] = {"two_way": [], "bootstrap": [], "mixed": [], "wilson": []}
    found: dict[str, list[bool]] = {name: [] for name in ("two_way", "mixed", "raters", "prompts", "votes")}
    widths = []
    for number in range(studies):
        sums, counts, left = study(size, effect, spread, rng)
        table = Rates(*(tuple(f"{i:03d}" for i in range(n)) for n in sums.shape), sums, counts)
        at = np.nonzero(counts)
        both, drawn, count = (
            two_way(table),
            bootstrap(table, count=resamples, seed=number),
            counted(int(sums.sum()), int((counts - sums).sum())),
        )
        widths.append(both.high - both.low)
        for name, each in (("two_way", both), ("bootstrap", drawn), ("wilson", count)):
            held[name].append(each.low <= target <= each.high)
        p_values = {"two_way": both.p, "votes": count.p}
        if effect == 0 and number < SLOW:
            p_values |= {by: groups(table, by).p_wilcoxon for by in ("raters", "prompts")}
        fit = mixed.fit(sums[at], left[at], *at) if number < SLOW else ""
        if not isinstance(fit, str):  # otherwise the page says why there are no numbers
            held["mixed"].append(fit.low <= target <= fit.high)
            p_values["mixed"] = fit.p
        for name, p in p_values.items():
            found[name].append(p < 0.05)
    return {
        "size": size,
        "effect": effect,
        "spread": spread,
        "truth": target,
        "width": float(np.mean(widths)),
        "covered": {name: float(np.mean(each)) for name, each in held.items()},
        "found": {name: float(np.mean(each)) for name, each in found.items() if each},
        "unfitted": min(studies, SLOW) - len(held["mixed"]),
    }


def show_coverage(each: dict[str, Any]) -> None:
    c, (raters, prompts) = each["covered"], each["spread"]
    unfitted = f"  no mixed model in {each['unfitted']}" if each["unfitted"] else ""
    print(
        f"{each['size']:<10} {each['effect']:>6} {raters:>6} {prompts:>7} {each['truth']:>6.3f} {c['two_way']:>8.1%} "
        f"{each['width']:>6.2f} {c['bootstrap']:>10.1%} {c['mixed']:>6.1%} {c['wilson']:>7.1%}{unfitted}",
        flush=True,
    )


def show_false_positives(results: list[dict[str, Any]]) -> None:
    print("\nFalse positives where there is no difference, p < 0.05")
    print(f"{'size':<10} {'raters':>6} {'prompts':>7}  two-way  mixed  Wilcoxon: raters  prompts  binomial: votes")
    for each in (each for each in results if each["effect"] == 0):
        f, (raters, prompts) = each["found"], each["spread"]
        print(
            f"{each['size']:<10} {raters:>6} {prompts:>7} {f['two_way']:>8.1%} {f['mixed']:>6.1%} "
            f"{f['raters']:>17.1%} {f['prompts']:>8.1%} {f['votes']:>16.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="RATERSxPROMPTS[half]")
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies for each row")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = []
    print("Coverage of 95% intervals")
    print("size       effect raters prompts  truth  two-way  width  bootstrap  mixed  wilson")
    for place, (size, effect, spread) in enumerate(product(options.sizes, EFFECTS, SPREADS)):
        results.append(measure(size, effect, spread, options.studies, options.resamples, 1000 * options.seed + place))
        show_coverage(results[-1])
    show_false_positives(results)
    print(json.dumps({"studies": options.studies, "seed": options.seed, "rows": results}))


if __name__ == "__main__":
    main()
