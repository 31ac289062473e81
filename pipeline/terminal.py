"""Text for terminals: control characters are escaped, and styles are used only where they are welcome.

Names, paths and values come from users, files and peers.  An escape sequence in one of them could rewrite what the
terminal shows, so every line of an error, a log or a table passes through this module.  JSON is data and does not.
"""

from __future__ import annotations

import os
from typing import TextIO


def printable(text: str) -> str:
    """Return the text with every control, format and other unprintable character written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def one_line(text: str) -> str:
    """Return the text as one printable line: each run of white space becomes one space."""
    return printable(" ".join(text.split()))


def allows_styles() -> bool:
    """Return whether colours and bold may be used at all: not with NO_COLOR (no-color.org), not on a dumb terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("dumb", "unknown")


def has_styles(file: TextIO) -> bool:
    """Return whether text in this file may have colours and bold."""
    return allows_styles() and file.isatty()
