"""Copies semdpo's client into the files that image programs load: ``python integrations/copy_client.py``.

Users install each integration by copying one file or folder, so each holds the client. tests/integrations proves that
the copies are what this script writes.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ("chat_answers", "client")
COPIES = (
    "integrations/comfyui/semdpo_client.py",
    "integrations/a1111/semdpo_rewrite.py",
    "integrations/invokeai/semdpo_rewrite/__init__.py",
)
BEGIN = "# ---- a copy of semdpo's client, made by integrations/copy_client.py; do not edit it here ----\n"
END = "\n\n# ---- the end of the copy ----\n"


def client() -> str:
    """The modules of the client, one after the other, without what they import from each other."""
    texts = [(ROOT / f"src/semdpo/{name}.py").read_text(encoding="utf-8") for name in MODULES]
    return "\n\n".join(re.sub(r"^from semdpo\..*\n\n?", "", text, flags=re.MULTILINE) for text in texts)


def with_client(text: str) -> str:
    """A file's text with the client between its two marks.

    Raises:
        ValueError: The file does not have both marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the file has no marks between which the client belongs")
    return before + BEGIN + client() + END + after


if __name__ == "__main__":
    for name in COPIES:
        path = ROOT / name
        path.write_text(with_client(path.read_text(encoding="utf-8")), encoding="utf-8")
