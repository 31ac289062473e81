"""The console of rich as this command line uses it: no markup, and no styles where `terminal` forbids them."""

from __future__ import annotations

from rich.console import Console

from pipeline.terminal import allows_styles


def make_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console for stdout or stderr that shows text as it is: `[fd99::1]:4747` is an endpoint, not a style.

    rich keeps bold under NO_COLOR; a console without a colour system writes no styles at all.
    """
    return Console(
        stderr=stderr,
        width=width,
        color_system="auto" if allows_styles() else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def style(name: str) -> str:
    """Return a style of rich, or none where styles are off: for text that another console draws, as in `top`."""
    return name if allows_styles() else ""
