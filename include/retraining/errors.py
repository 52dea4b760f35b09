"""Everything this package raises on purpose.

::

    RetrainingError
    ├── SpecError            a model file is wrong: file, line, what is allowed
    ├── DataError            data or state is wrong; a retry cannot help
    │   ├── BatchRefused     a batch broke a critical expectation
    │   ├── NotPublished     a partition that is not there (yet)
    │   ├── Superseded       a newer delivery of a partition, or another one, is in force
    │   ├── DamagedRecord    what was kept is no record, or none of this release
    │   └── ScoringError     a model version cannot score rows
    │       ├── FeaturesGone no row can be given the features it learned from any more
    │       └── NotOurs      no retrain or adoption of ours registered it
    ├── RegistryError        the model registry is in a state no step may act on
    └── LedgerError          the ledger is broken, or two writers disagree

    Unavailable              a system does not answer, or takes nothing; a retry may help
    └── Busy                 it says how long to leave it alone

Every message says what, got, allowed, do. Anything else that escapes (a connection reset, a
time-out) is the world's fault and worth a retry, as `Unavailable` is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RetrainingError(Exception):
    """Base of every error this package raises on purpose."""


class SpecError(RetrainingError):
    """A model file cannot be used as it is.

    Parameters
    ----------
    place : tuple of str
        Keys of the setting that it is about, for who can look up its line.
    """

    def __init__(
        self, message: str, *, path: str = "", line: int = 0, place: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.line = line
        self.place = place
        where = f"{path}:{line}: " if path and line else f"{path}: " if path else ""
        super().__init__(where + message)


class DataError(RetrainingError):
    """Data or stored state is wrong in a way that no retry can mend."""


class BatchRefused(DataError):
    """A whole batch was refused; nothing of it was published."""


class DamagedRecord(DataError, ValueError):
    """A stored object is not what it was: cut off, written by a hand, or of another release."""


class NotPublished(DataError):
    """A partition has no published data."""


class Superseded(DataError):
    """A newer delivery of a partition is in force, or another writer was first with this one."""


class ScoringError(DataError):
    """A model version cannot score the rows it was given."""


class FeaturesGone(ScoringError):
    """The features that a model version learned from are not defined any more."""


class NotOurs(ScoringError):
    """A model version that this pipeline did not register, so it does not know how to ask it."""


class RegistryError(RetrainingError):
    """The model registry is in a state that this step must not act on."""


class LedgerError(RetrainingError):
    """The ledger is broken, or two writers disagree about it."""


class Unavailable(Exception):
    """A system does not answer or takes nothing; not ours to mend, and worth a retry."""


class Busy(Unavailable):
    """A system asks to be left alone for a while."""

    def __init__(self, message: str, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(message)


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Give ``"; did you mean 'x'?"`` for the nearest allowed name, or nothing.

    >>> did_you_mean("labl", ["label", "source"])
    "; did you mean 'label'?"
    >>> did_you_mean("zzz", ["label"])
    ''
    """
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
