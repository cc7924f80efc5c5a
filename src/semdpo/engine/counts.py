"""What a finished stage counted, in words: ``1,599 candidates of 1,602 rewrites, 3 duplicates left out``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from semdpo.recipe.rounds import work_of


def described(shown_name: str, counts: Mapping[str, int]) -> str:
    """One sentence about a stage's counts.

    Counts of 0 are left out, except for the result itself. A stage or a count that has no words of its own here is
    shown by its name.

    Args:
        shown_name: the stage's name, such as ``candidates`` or ``evaluate/…/clip``; see ``stage.shown_name``.
        counts: name → count, as in the stage's manifest, ``rows`` included.
    """
    left = _Counts(counts)
    in_words = _WORDS.get(_kind(shown_name))
    parts = [] if in_words is None else in_words(left)
    return ", ".join([*(part for part in parts if part), *left.others(zeros=in_words is None)])


class _Counts:
    """Counts that are taken one at a time; those that nothing took are shown by their names."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._left = dict(counts)

    def take(self, name: str) -> int:
        """A count, 0 where there is none, which is not left afterwards."""
        return self._left.pop(name, 0)

    def some(self, name: str, noun: str, after: str = "") -> str:
        """``3 duplicates left out``; empty where there are none."""
        count = self.take(name)
        return f"{_number(count, noun)} {after}".rstrip() if count else ""

    def others(self, *, zeros: bool) -> list[str]:
        """The counts that are left, by their names; counts of 0 only on demand."""
        return [f"{count:,} {name.replace('_', ' ')}" for name, count in self._left.items() if count or zeros]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _kind(shown_name: str) -> str:
    """The kind of a stage: its own name, or for a stage of the evaluation what it makes."""
    first, *rest = work_of(shown_name).split("/")
    if first == "sweep" and rest:
        return "tuning" if rest == ["prompts"] else _kind("/".join(rest))
    if first == "benchmarks" and len(rest) > 1:
        return {"prompts": "benchmark"}.get(rest[1]) or _kind("/".join(rest[1:]))
    if first == "evaluate" and rest:
        return {"images": "images", "consistency": "consistency", "atoms": "atom answers"}.get(rest[-1], "scores")
    return first


def _prompts(counts: _Counts) -> list[str]:
    counts.take("rows")
    return [
        f"{_number(counts.take('train'), 'prompt')} to train on and {counts.take('test'):,} held out",
        counts.some("also_held_out", "prompt", "left out of training (also held out)"),
        counts.some("in_two_sets", "held-out prompt", "left out (also in an earlier set)"),
    ]


def _tuning(counts: _Counts) -> list[str]:
    prompts = _number(counts.take("rows"), "tuning prompt")
    return [prompts, counts.some("used_elsewhere", "prompt", "left out (trained on or held out)")]


def _benchmark(counts: _Counts) -> list[str]:
    prompts, whole = counts.take("rows"), counts.take("in_file")
    return [
        _number(prompts, "prompt") + (f" of {whole:,}" if prompts < whole else ""),
        counts.some("duplicates", "repeated prompt", "left out"),
    ]


def _leaks(counts: _Counts) -> list[str]:
    counts.take("rows")
    prompts, leaked = counts.take("prompts"), counts.take("leaked")
    uses = {"trained": "training prompts", "sft": "SFT examples", "tuning": "tuning prompts"}
    found = [f"{count:,} among the {use}" for name, use in uses.items() if (count := counts.take(name))]
    if not leaked:
        return [f"none of {_number(prompts, 'prompt')} was used to make the rewriters"]
    return [f"WARNING: {leaked:,} of {_number(prompts, 'prompt')} leaked: {' and '.join(found)}"]


def _model(counts: _Counts) -> list[str]:
    return [f"a trained rewriter, and {_number(counts.take('rows'), 'point')} of its curves"]


def _candidates(counts: _Counts) -> list[str]:
    counts.take("rows")
    counts.take("tokens")
    candidates, duplicates, empty, own = (counts.take(name) for name in ("kept", "duplicates", "empty", "own"))
    left = _Counts({"duplicates": duplicates, "empty": empty})
    more = f" and {_number(own, 'prompt')} of users" if own else ""
    return [
        f"{_number(candidates, 'candidate')} of {_number(candidates - own + duplicates + empty, 'rewrite')}{more}",
        left.some("duplicates", "duplicate", "left out"),
        left.some("empty", "empty rewrite", "left out"),
        counts.some("truncated", "candidate", "truncated at the token budget"),
        counts.some("prompts_without", "prompt", "without a candidate"),
    ]


def _render_budget(counts: _Counts) -> list[str]:
    counts.take("rows")
    kept, left_out = counts.take("kept"), counts.take("prompts_left_out")
    images, saved = counts.take("images"), counts.take("images_left_out")
    return [
        f"{images:,} of {_number(images + saved, 'image')} to render",
        f"for {kept:,} of {_number(kept + left_out, 'prompt')}",
        counts.some("truncated", "candidate", "with a text longer than the encoder reads"),
    ]


def _label(counts: _Counts) -> list[str]:
    return [
        f"{_number(counts.take('rows'), 'score')} of images",
        counts.some("truncated", "candidate", "with a text longer than the renderer or the scorer reads"),
        counts.some("blackened", "image", "blackened by the safety checker"),
        counts.some("failed", "candidate", "that could not be rendered or scored"),
        counts.some("without_atoms", "candidate", "of prompts without atoms"),
    ]


def _pairs(counts: _Counts) -> list[str]:
    counts.take("rows")
    left_out = ("tied", "below_margin", "single", "blackened", "failed")
    names = ("kept", *left_out, "below_fidelity", "less_faithful", "without_atoms")
    taken = {name: counts.take(name) for name in names}
    left = _Counts(taken)
    return [
        f"{_number(left.take('kept'), 'pair')} of {_number(sum(taken.values()), 'prompt')}",
        left.some("tied", "prompt", "left out (equal scores)"),
        left.some("below_margin", "prompt", "left out (scores within the margin)"),
        left.some("single", "prompt", "left out (only one candidate)"),
        left.some("blackened", "prompt", "left out (images blackened by the safety checker)"),
        left.some("failed", "prompt", "left out (images that could not be rendered or scored)"),
        left.some("below_fidelity", "prompt", "left out (fidelity of the chosen image too low)"),
        left.some("less_faithful", "prompt", "left out (chosen image less faithful than the rejected one)"),
        left.some("without_atoms", "prompt", "left out (no atoms)"),
    ]


def _drift(counts: _Counts) -> list[str]:
    return [
        f"the drift of {_number(counts.take('rows'), 'pair')}",
        counts.some("truncated", "pair", "with a text longer than the encoder reads"),
    ]


def _atoms(counts: _Counts) -> list[str]:
    return [
        f"{_number(counts.take('rows'), 'atom')} of {_number(counts.take('prompts'), 'prompt')}",
        counts.some("prompts_without", "prompt", "without atoms"),
        counts.some("unread_clauses", "clause", "that the rules cannot read"),
        counts.some("refused", "answer", "refused"),
    ]


def _atom_answers(counts: _Counts) -> list[str]:
    return [
        f"{_number(counts.take('rows'), 'question')} about images",
        counts.some("images_without", "image", "of prompts without atoms"),
        counts.some("unanswered", "question", "that the server did not answer"),
    ]


def _losses(counts: _Counts) -> list[str]:
    return [f"the losses of {_number(counts.take('rows'), 'pair')}"]


def _images(counts: _Counts) -> list[str]:
    failed = counts.take("failed")
    return [
        f"{_number(counts.take('rows') - failed, 'image')} rendered",
        _Counts({"failed": failed}).some("failed", "image", "that could not be rendered"),
        counts.some("truncated", "image", "of a text longer than the renderer or the encoder reads"),
        counts.some("empty", "empty rewrite"),
        counts.some("rewrites_truncated", "rewrite", "truncated at the token budget"),
        counts.some("blackened", "image", "blackened by the safety checker"),
    ]


def _scores(counts: _Counts) -> list[str]:
    return [
        _number(counts.take("rows"), "score"),
        counts.some("truncated", "score", "of a text longer than the scorer reads"),
        counts.some("failed", "image", "for which the scorer had no score"),
    ]


def _consistency(counts: _Counts) -> list[str]:
    return [
        f"{_number(counts.take('rows'), 'image')} compared with the rewrites",
        counts.some("truncated", "rewrite", "longer than the scorer reads"),
    ]


_WORDS: Mapping[str, Callable[[_Counts], list[str]]] = {
    "prompts": _prompts,
    "tuning": _tuning,
    "benchmark": _benchmark,
    "leaks": _leaks,
    "sft": _model,
    "train": _model,
    "candidates": _candidates,
    "render_budget": _render_budget,
    "label": _label,
    "pairs": _pairs,
    "drift": _drift,
    "losses": _losses,
    "images": _images,
    "scores": _scores,
    "consistency": _consistency,
    "atoms": _atoms,
    "atom answers": _atom_answers,
}
