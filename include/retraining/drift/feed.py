"""Is it the feed that broke, and not the world that moved? What values themselves prove.

A finding is *proven* where values say it: turned back by a known unit they are values that were
there before, while few are as they come; one value that no window has shown fills rows; what lay
beyond one value lies on it now; levels are the known ones, spelt otherwise. What quantiles alone
suggest is told as "looks like", and proves nothing: any change by a factor looks like some unit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.records import Break

Floats = NDArray[np.float64]

# shares of rows: turned back nearly all are known, as they come few are
_KNOWN, _UNKNOWN = 0.9, 0.5
_TOLERANCES = (1e-9, 1e-6, 1e-5, 1e-4, 3e-4)  # of a value: factors are seldom written out in full
_COVERED = 0.3  # of the reference's range by what counts as known: beyond it, chance finds values
LEAST_FILLED, _FEW_ROWS = 0.01, 10  # rows that a fill value holds at least
_ALIKE = 0.1  # a distance from which quantiles are no longer alike
_AS_NEAR = 0.05  # distances that differ by less are alike: a batch has some hundred rows
_AS_LIKE = 0.1  # of the logarithm of two factors
# share of rows beyond all that was ever there, different values, and a factor: seasons move by less
_ALL_OUTSIDE, _KINDS_OUTSIDE, _NO_GROWTH = 0.99, 50, 20
_AS_BEFORE, _ALIEN = 0.15, 0.8  # distances: the rest is as it was; turned back it is alien
_KINDS, _KINDS_KNOWN = 5, 0.8  # different values that a proof needs, and the share of them known
_KINDS_CUT = 12  # different values of the reference, below which an end says nothing
_LOOKED_AT = 4096  # rows that say which units are worth a look at all of them
_REPEATED = 0.5  # different values, in units of rows: beyond it they hardly repeat
_PILED = 0.02  # share of rows beyond a value that are enough to see that they were cut off
_FILLS = (-99.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0, 999999.0, 9999999.0)
_FAR_FILL = 0.25  # of the reference's range: what is nearer may be the next value of a count
_SELDOM = 0.05  # share of the reference: a value that is all there is now was not ordinary
_USUAL_TOP = 0.9  # share of a window that one value held: constant windows are nothing new
_LEAST_WINDOWS = 4  # of history, without which a constant or an end proves nothing

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")


class Unit(NamedTuple):
    """What comes is so many times what came, and something added.

    `kinds` is how many different values it takes to prove it: what grows by ten may look like it.
    """

    name: str
    factor: float
    offset: float = 0.0
    kinds: float = 12

    def back(self, values: Floats) -> Floats:
        """Turn values back into what they were."""
        with np.errstate(over="ignore"):
            return np.asarray((values - self.offset) / self.factor)

    def back_sorted(self, values: Floats) -> Floats:
        """Turn sorted values back; they stay sorted."""
        found = self.back(values)
        return found[::-1] if self.factor < 0 else found

    @property
    def in_words(self) -> str:
        """The formula, and its name."""
        added = f" {self.offset:+g}" if self.offset else ""
        return f"x {self.factor:.6g}{added}: {self.name}"


def _both_ways(a: str, b: str, factor: float, offset: float = 0.0) -> tuple[Unit, Unit]:
    return (
        Unit(f"{a} to {b}", factor, offset),
        Unit(f"{b} to {a}", 1 / factor, -offset / factor),
    )


def _powers(a: str, b: str, factor: float) -> tuple[Unit, Unit]:
    there, back = _both_ways(a, b, factor)
    return there._replace(kinds=30), back._replace(kinds=30)


UNITS: tuple[Unit, ...] = (
    *_both_ways("°C", "°F", 1.8, 32.0),
    *_both_ways("°C", "K", 1.0, 273.15),
    *_both_ways("°F", "K", 1 / 1.8, 273.15 - 32 / 1.8),
    *_both_ways("inHg", "hPa", 33.8638866667),
    *_both_ways("mmHg", "hPa", 1.33322387),
    *_both_ways("psi", "kPa", 6.89475729),
    *_both_ways("miles", "km", 1.609344),
    *_both_ways("nautical miles", "km", 1.852),
    *_both_ways("nautical miles", "miles", 1.15077945),
    *_both_ways("feet", "metres", 0.3048),
    *_both_ways("inches", "cm", 2.54),
    *_both_ways("inches", "mm", 25.4),
    *_both_ways("mph", "m/s", 0.44704),
    *_both_ways("knots", "m/s", 0.514444444),
    *_both_ways("m/s", "km/h", 3.6),
    *_both_ways("pounds", "kg", 0.45359237),
    *_both_ways("ounces", "grams", 28.349523125),
    *_both_ways("gallons", "litres", 3.785411784),
    *_both_ways("kcal", "kJ", 4.184),
    *_both_ways("hours", "minutes, or minutes to seconds", 60.0),
    *_both_ways("hours", "seconds", 3600.0),
    *_both_ways("days", "hours", 24.0),
    *_both_ways("days", "minutes", 1440.0),
    *_both_ways("days", "seconds", 86400.0),
    *_powers("shares", "per cent", 100.0),
    *_powers("units", "tens", 0.1),
    *_powers("thousands, kg or km", "units, g or m", 1000.0),
    *_powers("millions", "units", 1e6),
    *_both_ways("kibibytes", "bytes", 1024.0),
    Unit("sign turned", -1.0, kinds=float("inf")),  # frost and warmth do the same
)


# no units: where one of these turns values into known ones as well, arithmetic did it
_NO_UNITS = (0.2, 0.25, 0.5, 2 / 3, 0.75, 0.8, 1.2, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)


class Numbers(NamedTuple):
    """The reference and the window of a numeric column, sorted, without missing values."""

    reference: Floats
    is_complete: bool  # all values of the reference, or some quantiles
    now: Floats
    windows: int = 0  # of history
    usual_top: float = 1.0  # the largest share of one of them that its lowest or highest value held

    @property
    def has_history(self) -> bool:
        """Do windows say what is ordinary, and were all values of the reference kept?"""
        return self.is_complete and self.windows >= _LEAST_WINDOWS

    @property
    def repeats(self) -> bool:
        """Are values of the reference shared by rows, so that a value can be known?"""
        different = 1 + int((self.reference[1:] != self.reference[:-1]).sum())
        return self.is_complete and different <= _REPEATED * len(self.reference)


def numeric_break(numbers: Numbers, *, drifted: bool) -> Break | None:
    """Say how the feed of a numeric column broke; None where nothing says that it did.

    Parameters
    ----------
    numbers : Numbers
        Neither side is empty.
    drifted : bool
        Where it did not drift, only a value that fills rows is looked for: few rows are no drift.
    """
    before, now = (side[np.isfinite(side)] for side in (numbers.reference, numbers.now))
    if len(before) < 2 or not len(now) or before[0] == before[-1]:
        return None
    kept = numbers._replace(reference=before, now=now)
    looks: tuple[Callable[[Numbers], Break | None], ...] = (_fill, _constant, _unit, _cut_off)
    return next((found for look in looks[: None if drifted else 1] if (found := look(kept))), None)


def level_break(reference: Mapping[str, int], now: Mapping[str, int]) -> Break | None:
    """Say that the levels of a drifted column are those of before, spelt otherwise.

    Parameters
    ----------
    reference, now : mapping of str to int
        Rows of each level.
    """
    rows = sum(now.values())
    new = {level: count for level, count in now.items() if level not in reference and level.strip()}
    if not rows or sum(new.values()) < LEAST_FILLED * rows:
        return None
    for name, spell in _SPELLINGS.items():
        known: dict[str, list[str]] = {}
        for level in reference:
            known.setdefault(spell(level), []).append(level)
        told = {level: known.get(spell(level), []) for level in new}
        found = sum(new[level] for level, same in told.items() if len(same) == 1)
        if found > _KNOWN * sum(new.values()) and _has_moved(reference, now, told):
            level = max((one for one in told if told[one]), key=new.__getitem__)
            cause = f"{name}: {told[level][0]!r} comes as {level!r} now"
            return Break(kind="spelling", cause=cause, share=found / rows, proven=True)
    return None


def _has_moved(
    reference: Mapping[str, int], now: Mapping[str, int], told: Mapping[str, list[str]]
) -> bool:
    """Have the old spellings become rarer? Else both are there, and mean two things."""
    old = {level for same in told.values() for level in same}
    before = sum(reference[level] for level in old) / sum(reference.values())
    return sum(now.get(level, 0) for level in old) < before / 2 * sum(now.values())


def _constant(numbers: Numbers) -> Break | None:
    now = numbers.now
    if len(now) < _FEW_ROWS or now[0] != now[-1]:
        return None
    held = float((numbers.reference == now[0]).mean())
    if len(np.unique(numbers.reference)) < _KINDS:
        return None  # a flag that nothing sets any more is no broken feed
    is_new = held < _SELDOM and numbers.usual_top < _USUAL_TOP
    return Break(
        kind="constant",
        cause=f"all rows hold {now[0]:g}, {held:.0%} of the reference do",
        share=1.0,
        proven=is_new and numbers.has_history,
    )


def _fill(numbers: Numbers) -> Break | None:
    """One value outside of all that was ever there fills rows; the others are as they were."""
    before, now = numbers.reference, numbers.now
    low, high = before[0], before[-1]
    values, rows = np.unique(now, return_counts=True)
    is_outside = (values < low) | (values > high)
    enough = rows >= max(LEAST_FILLED * len(now), _FEW_ROWS)
    candidates = np.flatnonzero(is_outside & enough)
    if not len(candidates):
        return None
    at = candidates[rows[candidates].argmax()]
    rest = len(now) - rows[at]
    inside = rows[~is_outside].sum()
    if not rest or inside < _KNOWN * rest:
        return None
    value = float(values[at])
    is_far = max(low - value, value - high) > _FAR_FILL * (high - low)
    if value not in _FILLS or not is_far or _apart(before, now[now != value]) > _ALIEN:
        return None
    return Break(
        kind="fill value",
        cause=f"{value:g} stands in {rows[at]:,} of {len(now):,} values and was never there before",
        share=float(rows[at] / len(now)),
        proven=True,
    )


def _unit(numbers: Numbers) -> Break | None:
    before, now = numbers.reference, numbers.now
    if numbers.repeats:
        known = np.unique(before)
        kinds, rows = np.unique(now, return_counts=True)
        some = now[np.linspace(0, len(now) - 1, min(len(now), _LOOKED_AT)).astype(np.intp)]
        if _share_known(kinds, known, _TOLERANCES[1], rows) > _UNKNOWN:
            return None
        for tolerance in _TOLERANCES:
            if _covered(known, tolerance) > _COVERED:
                break
            likely = [
                unit
                for unit in UNITS
                if _share_known(unit.back(some), known, tolerance) > _KINDS_KNOWN
            ]
            if not likely:
                continue
            shares = [_share_known(unit.back(kinds), known, tolerance, rows) for unit in likely]
            best = int(np.argmax(shares))
            unit = likely[best]
            if (
                shares[best] > _KNOWN
                and len(kinds) >= unit.kinds
                and _share_known(unit.back(kinds), known, tolerance) > _KINDS_KNOWN
                and _apart(before, unit.back_sorted(now)) < _ALIEN
                and not any(
                    _share_known(kinds / by, known, tolerance, rows) > _KNOWN for by in _NO_UNITS
                )
            ):
                cause = f"{unit.in_words}; turned back, {shares[best]:.0%} of values are known"
                return Break(kind="unit", cause=cause, share=shares[best], proven=True)
    apart = np.array([_apart(before, unit.back_sorted(now)) for unit in UNITS])
    # what chance does to a few rows: the 99 % quantile of the distance by Kolmogorov
    chance = 1.63 / np.sqrt(len(now))
    if apart.min() >= _ALIKE + chance or _apart(before, now) <= _UNKNOWN:
        return None
    # of those that are as near as chance tells, the first: each batch is to be told the same
    near = np.flatnonzero(apart < apart.min() + _AS_NEAR)
    unit = UNITS[near[0]]
    others = [one for n in near[1:] if _is_like(one := UNITS[n], unit)]
    about = "about " if others else ""
    outside = float(((now < before[0]) | (now > before[-1])).mean())
    is_far = not unit.offset and abs(np.log(abs(unit.factor))) > np.log(_NO_GROWTH)
    is_proof = is_far and outside > _ALL_OUTSIDE and numbers.has_history
    if is_proof and len(np.unique(now)) >= max(unit.kinds, _KINDS_OUTSIDE):
        return Break(
            kind="unit",
            cause=f"{about}{unit.in_words}; {outside:.0%} of values lie outside of all that was "
            "ever there, and turned back they spread as before",
            share=outside,
            proven=True,
        )
    if apart.min() >= _ALIKE:
        return None
    return Break(kind="unit", cause=f"looks like {about}{unit.in_words}", share=1.0, proven=False)


def _is_like(one: Unit, other: Unit) -> bool:
    """Are two units so close that a sample does not tell them apart?"""
    return one.offset == other.offset and abs(np.log(abs(one.factor / other.factor))) < _AS_LIKE


def _cut_off(numbers: Numbers) -> Break | None:
    """Say that what lay beyond a value lies on it now."""
    before, now = numbers.reference, numbers.now
    if len(np.unique(before)) < _KINDS_CUT or not numbers.has_history:
        return None  # the highest of a few classes that does not come is nothing
    for end, beyond, word in (
        (now[-1], before > now[-1], "above"),
        (now[0], before < now[0], "below"),
    ):
        held, was = float((now == end).mean()), float((before == end).mean())
        gone = float(beyond.mean())
        cut = np.sort(np.where(beyond, end, before))
        is_pile = _PILED <= gone <= _UNKNOWN and gone / 2 < held - was < 2 * gone
        rest = now[now != end]
        if numbers.repeats and len(rest):  # else it moved as a whole
            is_pile &= _share_known(rest, np.unique(before), _TOLERANCES[0]) > _KNOWN
        if is_pile and _apart(cut, now) < _AS_BEFORE:
            return Break(
                kind="cut off",
                cause=f"{gone:.0%} of the reference lie {word} {end:g}; now {held:.0%} lie on it "
                "and none beyond",
                share=held,
                proven=True,
            )
    return None


def _share_known(
    values: Floats, known: Floats, tolerance: float, rows: NDArray[np.intp] | None = None
) -> float:
    """Give the share of values, or of their rows, within a tolerance of one that was there."""
    at = np.clip(np.searchsorted(known, values), 1, len(known) - 1)
    nearest = np.minimum(np.abs(values - known[at - 1]), np.abs(values - known[at]))
    is_known = nearest <= tolerance * np.abs(values)
    return float(is_known.mean() if rows is None else rows[is_known].sum() / rows.sum())


def _covered(known: Floats, tolerance: float) -> float:
    """Give the share of the range of what was there that counts as one of its values."""
    reach = tolerance * np.abs(known)
    gaps = np.diff(known)
    covered = np.minimum(reach[:-1] + reach[1:], gaps)
    return float(covered.sum() / (known[-1] - known[0]))


def _apart(before: Floats, now: Floats) -> float:
    """Give the largest distance between two distribution functions, at some quantiles.

    Both are sorted.
    """
    at = before[np.linspace(0, len(before) - 1, 101).astype(np.intp)]
    sides = [np.searchsorted(one, at, side="right") / len(one) for one in (before, now)]
    return float(np.abs(sides[0] - sides[1]).max())


def _plain(level: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", level).split())


def _number(level: str) -> str:
    """Write a plain decimal number in one way, digit by digit: ids have more than a float holds."""
    if not _PLAIN_NUMBER.fullmatch(level):
        return level
    return level.rstrip("0").rstrip(".") if "." in level else level


def _misread(level: str) -> str:
    """Undo the commonest misreading: UTF-8 taken for Latin-1 or Windows' own code page."""
    for codec in ("latin-1", "cp1252"):
        try:
            return level.encode(codec).decode("utf-8")
        except UnicodeError:
            continue
    return level


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "blanks": _plain,
    "capitals": lambda level: _plain(level).casefold(),
    "numbers written otherwise": _number,
    "leading zeros": lambda level: level.lstrip("0") or level,
    "encoding": _misread,
    "quotes": lambda level: level.strip("'\"`"),
}
