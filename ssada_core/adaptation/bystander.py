"""The boundary round those who only look on: masks, labels and rounds go on, whatever becomes of them.

Drift score, watch, shadow drive, clips and offers judge with figures, files and engines of several versions, and none
of them is needed for the work itself. So this is the one place where any error is caught: it is said, and who made it
is switched off, until there is a reason to believe that it works again.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ssada_core.errors import DataError, SsadaError, StoreError

T = TypeVar("T")

MOST_IN_A_ROW = 5
"""Failures in a row after which a model that does not run is given up."""


class Bystander:
    """One of those who only look on.

    Attributes:
        trouble: what went wrong last, in one line; empty while all is well.
        off: whether it is switched off.
    """

    def __init__(self, name: str, log: Callable[[str], None]) -> None:
        self._name, self._log = name, log
        self._row = 0
        self.trouble = ""
        self.off = False

    def attempt(self, work: Callable[[], T], otherwise: T) -> T:
        """What ``work`` gives; ``otherwise`` where it fails or is switched off. Never raises an ``Exception``.

        A disk that refuses and a frame that cannot be read may be better next time; a model that fails is given up
        after :data:`MOST_IN_A_ROW` failures, and what nobody foresaw ends it at once.
        """
        if self.off:
            return otherwise
        try:
            done = work()
        except (StoreError, DataError) as error:
            self.say(str(error))
        except SsadaError as error:
            self._row += 1
            self.say(str(error))
            if self._row >= MOST_IN_A_ROW:
                self.switch_off(str(error))
        except Exception as error:  # noqa: BLE001 (see above: nothing that only looks on may end the node)
            self.switch_off(_unforeseen(error))
        else:
            self.trouble, self._row = "", 0
            return done
        return otherwise

    def say(self, words: str) -> None:
        """Something is wrong with it, and it goes on."""
        if words != self.trouble:
            self._log(f"{self._name}: {words}")
        self.trouble = words

    def switch_off(self, words: str) -> None:
        """It does nothing any more."""
        self.off = True
        self.trouble = f"switched off: {words}"
        self._log(f"{self._name}: {self.trouble}")

    def switch_on(self) -> None:
        """Give it another chance: with another model, say."""
        self._row = 0
        self.trouble, self.off = "", False


def _unforeseen(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}: please report it"
