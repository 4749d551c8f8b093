"""Class colours that stay apart for the colour-blind; a pattern is the second channel where colours run out."""

from __future__ import annotations

from typing import Literal

Pattern = Literal["solid", "stripes", "dots"]

COLOURS: tuple[tuple[int, int, int], ...] = (
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (204, 121, 167),
    (0, 158, 115),
    (255, 255, 255),
    (120, 60, 30),
)
"""Okabe and Ito's palette (2008) with white and brown in place of black and of the orange beside vermilion."""
PATTERNS: tuple[Pattern, ...] = ("solid", "stripes", "dots")


def class_style(index: int) -> dict[str, object]:
    """Colour (RGB) and pattern of a class: two classes share neither both nor a place."""
    rounds, place = divmod(index, len(COLOURS))
    return {"color": list(COLOURS[place]), "pattern": PATTERNS[rounds % len(PATTERNS)]}
