"""What mkdocs does beside its own: formulas become MathML, so that pages need no script and no network to show them;
the commands' page is filled by the commands themselves.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import Any

from latex2mathml.converter import convert

COMMANDS = "<!-- commands -->"
# What pymdownx.arithmatex leaves of $…$ and $$…$$.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with every page's source."""
    if COMMANDS not in markdown:
        return markdown
    asked = [sys.executable, "-m", "typer", "semdpo.cli.app", "utils", "docs", "--name", "semdpo"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return markdown.replace(COMMANDS, told[told.index("\n## ") :])  # without its own heading and list


def on_page_content(content: str, **_: Any) -> str:
    """Called by mkdocs with every page's HTML."""
    content = BLOCK.sub(lambda found: _mathml(found[1], "block"), content)
    return INLINE.sub(lambda found: _mathml(found[1], "inline"), content)


def _mathml(formula: str, display: str) -> str:
    return str(convert(html.unescape(formula).strip(), display=display))
