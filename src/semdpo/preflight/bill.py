"""Prints what a run will cost: hours, money and bytes, by stage and in all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from semdpo.preflight.downloads import missing_models
from semdpo.preflight.estimate import IMAGES, Span, Stage, passing_bytes
from semdpo.preflight.measuring import process_peak
from semdpo.recipe.rounds import work_of
from semdpo.recipe.schema import Recipe

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True, slots=True)
class Device:
    """What the probe computed on.

    Attributes:
        name: the device, for people.
        hours: the unit of its time, such as ``GPU-hours``.
        is_gpu: whether it is a GPU, whose memory was watched.
    """

    name: str
    hours: str
    is_gpu: bool


def device() -> Device:
    """The device that models compute on."""
    import torch

    if torch.cuda.is_available():
        return Device(f"one GPU ({torch.cuda.get_device_name(0)})", "GPU-hours", True)
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return Device(f"the CPU with {threads} thread{plural} (there is no GPU)", "CPU-hours", False)


def lines(
    recipe: Recipe, plan: Sequence[Stage], on: Device, *, workers: int = 1, price: float | None = None
) -> list[str]:
    """The lines to print.

    Args:
        recipe: the validated recipe.
        plan: the stages, from ``estimate.stages``.
        on: what they were measured on.
        workers: the number of processes that share the run, each on a device like this one.
        price: the money that an hour of the device costs; None prints none.
    """
    known = _known(plan)
    return [
        *_table(plan),
        "",
        *_aligned([*_time(plan, on, workers, price), *_space(recipe, known, on)]),
        *_left_out(plan),
    ]


def _known(plan: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in plan if stage.missing is None]


def _table(plan: Sequence[Stage]) -> list[str]:
    rows = [("stage", "time", "range", "on disk", "measured")]
    for stage in plan:
        if stage.missing is None:
            spent = stage.seconds
            rows.append((stage.name, duration(spent.mean), _range(spent), size(stage.size), stage.measured))
        else:
            rows.append((stage.name, "?", "", "", "not measured: see below"))
    known = _known(plan)
    whole = _sum(stage.seconds for stage in known)
    label = "in all" if len(known) == len(plan) else "these"
    rows.append((label, duration(whole.mean), _range(whole), size(sum(stage.size for stage in known)), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    shown = (
        (row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]), row[3].rjust(widths[3]), row[4])
        for row in rows
    )
    return [f"  {'  '.join(cells)}".rstrip() for cells in shown]


def _time(plan: Sequence[Stage], on: Device, workers: int, price: float | None) -> list[tuple[str, str]]:
    known = _known(plan)
    alone, busy = _sum(stage.seconds for stage in known), _sum(stage.device(workers) for stage in known)
    without = "" if len(known) == len(plan) else ", without what is not measured"
    rows, kept = [("time", f"{_spread(alone)} by one process{without}")], busy
    until = f" if all {workers} devices are kept until the end"
    if workers > 1:
        wall = _sum(stage.wall(workers) for stage in known)
        rows.append((f"{workers} processes", f"{_spread(wall)}, if each has a device like this one to itself"))
        kept = wall * workers
    more = f"; {hours(kept.mean)}{until}" if workers > 1 else ""
    rows.append((on.hours, f"{_spread(busy, hours)}{more}"))
    if price is not None:
        each = price / 3600
        more = f"; {money(kept.mean * each)}{until}" if workers > 1 else ""
        rows.append(("money", f"{_spread(busy * each, money)}, at {price:g} an hour{more}"))
    return rows


def _space(recipe: Recipe, known: Sequence[Stage], on: Device) -> list[tuple[str, str]]:
    models = sum(stage.size for stage in known if work_of(stage.name).startswith(("sft", "train/")))
    images = sum(stage.size for stage in known if stage.name.endswith(IMAGES))
    whole = sum(stage.size for stage in known)
    parts = f"models {size(models)}, images {size(images)}, other rows {size(whole - models - images)}"
    rows = [("disk", f"{size(whole)} kept: {parts}; and up to {size(passing_bytes(recipe))} more while it trains")]
    sizes = missing_models(recipe)
    fetched = sum(value or 0.0 for value in sizes.values())
    unknown = [name for name, value in sizes.items() if value is None]
    text = f"{fetched:.1f} GB for {len(sizes)} models" if sizes else "no models; all are here"
    rows.append(("downloads", text + (f", without {', '.join(unknown)}: their size is not known" if unknown else "")))
    if on.is_gpu:
        most = max(known, key=lambda stage: stage.memory, default=Stage("nothing"))
        rows.append(("GPU memory", f"{size(most.memory)} at most, in {most.name}"))
    if (peak := process_peak()) is not None:
        rows.append(("memory", f"{size(peak)} at most, of this process while it measured"))
    return rows


def _left_out(plan: Sequence[Stage]) -> list[str]:
    """One line for each reason why stages were not measured, with their names."""
    reasons: dict[str, list[str]] = {}
    for stage in plan:
        if stage.missing is not None:
            reasons.setdefault(stage.missing.reason, []).append(stage.name)
    return [f"  not measured: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _sum(spans: Iterable[Span]) -> Span:
    return sum(spans, Span())


def _spread(span: Span, shown: Callable[[float], str] | None = None) -> str:
    """A span in words, with its range where its ends differ when they are shown."""
    words = shown or duration
    mean, low, high = words(span.mean), words(span.low), words(span.high)
    return mean if low == high else f"{mean} ({low} to {high})"


def _range(span: Span) -> str:
    low, high = duration(span.low), duration(span.high)
    return "" if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """A time in words: ``0.4 s``, ``35 s``, ``3.8 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min" if seconds < 597 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def hours(seconds: float) -> str:
    """A number of hours."""
    return f"{seconds / 3600:.3g}"


def money(amount: float) -> str:
    """An amount of money, in whichever currency the price is."""
    return f"{amount:,.2f}"


def size(number: float) -> str:
    """A number of bytes in words: ``4.3 MB``."""
    for factor, unit in UNITS:
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f} B"
