"""Stage 1: what users ask for, split into prompts to train on and held-out ones."""

from __future__ import annotations

from pathlib import Path

from semdpo.config import PromptsConfig
from semdpo.errors import DataError
from semdpo.files import read_prompts
from semdpo.records import Prompt, content_id


def collect(config: PromptsConfig) -> list[Prompt]:
    """Reads the prompt files; training prompts come first, each part in its file's order.

    Without a test file, the prompts whose ids are lowest are held out: which ones these are does not depend on their
    order in the file.

    Raises:
        DataError: a file is missing or of the wrong form, a part is empty, or a held-out prompt is trained on
            (compared without case and extra spaces).
    """
    train = read_prompts(config.file, config.column)
    if config.test_file is None:
        train, test = _hold_out(train, config.test_share)
    else:
        test = read_prompts(config.test_file, config.column)
    train, test = train[: config.limit], test[: config.test_limit]
    if not train or not test:
        raise DataError(f"{config.file} has too few prompts to hold some out; add prompts or set prompts.test_file")
    _refuse_leaks(train, test, config)
    return [
        *(Prompt.of(text, _source(config.file), "train") for text in train),
        *(Prompt.of(text, _source(config.test_file or config.file), "test") for text in test),
    ]


def _source(file: str) -> str:
    return Path(file.removeprefix("tiny:")).stem


def _hold_out(prompts: list[str], share: float) -> tuple[list[str], list[str]]:
    held = set(sorted(prompts, key=content_id)[: round(len(prompts) * share)])
    return [text for text in prompts if text not in held], [text for text in prompts if text in held]


def _refuse_leaks(train: list[str], test: list[str], config: PromptsConfig) -> None:
    seen = {_key(text): text for text in train}
    leaks = [text for text in test if _key(text) in seen]
    if leaks:
        raise DataError(
            f"{len(leaks)} of the held-out prompts are also trained on, the first is {leaks[0]!r}; "
            f"remove them from {config.file} or from {config.test_file or 'it (they differ in case or spaces only)'}"
        )


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()
