"""What a round trains on."""

from __future__ import annotations

from dataclasses import dataclass

from ssada_core.data.samples import Samples


@dataclass(frozen=True)
class TrainingData:
    """What a round trains on; each part may be missing.

    Attributes:
        source: labelled frames of the domain the model comes from.
        labelled: labelled target frames, audit frames *not* among them.
        unlabelled: target frames; labels they may have are never read.
    """

    source: Samples | None = None
    labelled: Samples | None = None
    unlabelled: Samples | None = None
