"""What a round trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssada_core.data.samples import Samples


@dataclass(frozen=True)
class TrainingData:
    """What a round trains on; each part may be missing.

    Attributes:
        source: labelled frames of the domain the model comes from.
        labelled: labelled target frames, audit frames *not* among them.
        unlabelled: target frames; labels they may have are never read.
        sparse: indices of the labelled frames that are labelled in parts, whose rest counts as unlabelled; None:
            those of which a larger share than ``sparse_share`` is left open.
    """

    source: Samples | None = None
    labelled: Samples | None = None
    unlabelled: Samples | None = None
    sparse: Sequence[int] | None = None
