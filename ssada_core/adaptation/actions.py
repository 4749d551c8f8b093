"""What the cycle may ask its node to do; plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AskFlagged:
    """Ask a human about the moments that a driver flagged; they come before everything else and over any budget."""


@dataclass(frozen=True)
class AskAudit:
    """Ask for ``count`` more random frames, which an undecided verdict needs."""

    count: int


@dataclass(frozen=True)
class AskLabels:
    """Pick ``count`` frames and ask a human for their labels."""

    count: int


@dataclass(frozen=True)
class StartRound:
    """Start the worker on a new round; with a challenger it only measures that one again."""

    reason: str
    challenger: str = ""


@dataclass(frozen=True)
class StopRound:
    """Stop the worker; it writes a checkpoint and can be resumed."""

    reason: str


@dataclass(frozen=True)
class ResumeRound:
    """Start the worker again on the round that was stopped or lost."""


@dataclass(frozen=True)
class Judge:
    """Let the gate decide on the finished round."""


@dataclass(frozen=True)
class Promote:
    """Make ``version`` the current model."""

    version: str
    reason: str


@dataclass(frozen=True)
class Refuse:
    """Keep the champion; ``version`` stays in the registry with its decision."""

    version: str
    reason: str


@dataclass(frozen=True)
class SetAside:
    """Undecided: keep the champion and collect more labels."""

    version: str


@dataclass(frozen=True)
class StartShadow:
    """``version`` passed the gate: let it answer live frames beside the champion."""

    version: str


Action = (
    AskLabels
    | AskFlagged
    | AskAudit
    | StartRound
    | StopRound
    | ResumeRound
    | Judge
    | Promote
    | Refuse
    | SetAside
    | StartShadow
)
