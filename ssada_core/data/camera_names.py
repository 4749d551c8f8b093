"""Names of cameras, as they appear in topics, pools and reports."""

from __future__ import annotations


def camera_name(topic: str) -> str:
    """A camera's name from its topic: ``/front/image_raw/compressed`` → ``front``, ``camera/image`` → ``camera``."""
    parts = [part for part in topic.split("/") if part]
    while len(parts) > 1 and (parts[-1] == "compressed" or parts[-1].startswith("image")):
        parts.pop()
    return "_".join(parts)
