"""What mkdocs does in addition: formulas become MathML, so that pages show them without a script or a network,
and the commands' page is filled with the commands' own help.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import Any

from latex2mathml.converter import convert

COMMANDS = "<!-- commands -->"
# What pymdownx.arithmatex makes of $…$ and $$…$$.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this with every page's source."""
    if COMMANDS not in markdown:
        return markdown
    command = [sys.executable, "-m", "typer", "semdpo.cli.app", "utils", "docs", "--name", "semdpo"]
    pages = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return markdown.replace(COMMANDS, pages[pages.index("\n## ") :])  # without typer's own heading and list


def on_page_content(content: str, **_: Any) -> str:
    """mkdocs calls this with every page's HTML."""
    content = BLOCK.sub(lambda match: _mathml(match[1], "block"), content)
    return INLINE.sub(lambda match: _mathml(match[1], "inline"), content)


def _mathml(formula: str, display: str) -> str:
    return str(convert(html.unescape(formula).strip(), display=display))
