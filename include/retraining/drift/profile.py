"""What is kept of a reference, so that a check reads only the current window.

A profile is an Arrow IPC file with one record batch per column, each compressed: sorted values
repeat themselves, and take a tenth. It is read column by column, so a profile opened from disk
costs memory only for the column a check looks at.

Every check downloads it, so its size is bounded as well. All values of a column are kept, sorted,
while they fit into its part of `VALUE_BYTES`: then a distance is exact. Of a longer reference
only the counts in its cells are kept, and some quantiles of it for what others report; then a
distance is a certified interval, at most as wide as the largest share of the reference in one cell.
"""

from __future__ import annotations

import datetime as dt
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.retraining.drift.calibration import Chance, History, explain
from include.retraining.drift.cells import CellCounts, Cells, Edges, Grid, cells_for, slices
from include.retraining.drift.columns import Columns, LevelColumn, Source
from include.retraining.drift.dependence import PARTS, Dependence, read_dependence
from include.retraining.drift.gap import exact_gap, rank_shift
from include.retraining.drift.levels import compare_levels
from include.retraining.drift.moderation import Prior, find_prior
from include.retraining.drift.number_types import union
from include.retraining.drift.outline import Outlines, Ruler, draw, priors_of
from include.retraining.drift.statistics import (
    KS_CHANCE_SPREAD,
    KS_CHANCE_SQUARE,
    NORMAL_SPREAD,
    shift_chance_square,
)
from include.retraining.errors import DataError

FORMAT_VERSION = 6
_READABLE = ("5", "6")  # of 5: no outlines, and no column moderates another
_LEAST_ROWS = 100  # of a window that says how much windows differ
VALUE_BYTES = 2**25  # of all columns together: 150,000 rows of 27 numeric columns, 12,000 of 350
_ANY_ALPHA = 0.01  # of a chance whose mean alone is asked for
QUANTILES = 4096  # kept of a longer reference, and the least number of cells that stand for it
_BLOCK_QUANTILES = 1000  # to read the dependence of rows off parts of windows
_VERSION_KEY = b"drift_profile_version"
_HEADER_KEY = b"drift_profile_header"  # what is known without touching a column
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("rows", pa.int64()),
        (
            "float_values",
            pa.large_list(pa.float64()),
        ),  # one of the two: sorted values, or quantiles
        ("whole_values", pa.large_list(pa.int64())),
        ("values_before", pa.list_(pa.uint32())),  # each cell, and the end; no memory sorts 2**32
        ("grid", pa.list_(pa.float64())),  # one of the three says how the cells are cut
        ("float_edges", pa.list_(pa.float64())),
        ("whole_edges", pa.list_(pa.int64())),
        ("levels", pa.list_(pa.string())),
        ("level_counts", pa.list_(pa.int64())),
        ("window_rows", pa.list_(pa.int64())),
        ("window_present", pa.list_(pa.int64())),
        ("window_distances", pa.list_(pa.float64())),
        ("window_shifts", pa.list_(pa.float64())),
        ("window_missing_changes", pa.list_(pa.float64())),
        ("design_effects", pa.list_(pa.float64())),  # of the distance, of the shift
        ("blocks", pa.list_(pa.int64())),
        ("ruler", pa.list_(pa.float64())),
        ("outlines", pa.list_(pa.float64())),  # of each window, one after the other
    ],
    metadata={_VERSION_KEY: str(FORMAT_VERSION).encode()},
)


@dataclass(frozen=True)
class NumericProfile:
    """A numeric column of the reference.

    `values` are all there are, sorted; or, where they would be too many to keep, `QUANTILES` of
    them at equal steps, both ends included.
    """

    name: str
    rows: int
    values: NDArray[Any]
    counts: CellCounts
    history: History
    shift_history: History
    missing_history: History
    outlines: Outlines | None = None
    kind: Literal["numeric"] = "numeric"

    @property
    def present(self) -> int:
        """The number of rows that have a value."""
        return self.counts.size

    @property
    def is_complete(self) -> bool:
        """Are all values kept?"""
        return len(self.values) == self.present


@dataclass(frozen=True)
class CategoricalProfile:
    """A categorical column of the reference."""

    name: str
    levels: LevelColumn
    history: History
    kind: Literal["categorical"] = "categorical"

    @property
    def rows(self) -> int:
        """Rows of the reference, missing values included."""
        return self.levels.rows


ColumnProfile = NumericProfile | CategoricalProfile


class ReferenceProfile:
    """The reference of one model version: the union of its history windows, column by column."""

    def __init__(
        self,
        columns: Sequence[tuple[str, str]],
        batches: Sequence[pa.RecordBatch] = (),
        *,
        starts: Sequence[str] = (),
        priors: Mapping[str, Prior] | None = None,
        mapped: tuple[mmap.mmap, pa.RecordBatchFileReader] | None = None,
    ) -> None:
        self._columns = columns
        self._starts = starts
        self._priors = priors or {}
        self._batches = batches
        self._mapped = mapped

    @classmethod
    def build(
        cls,
        windows: Sequence[Source],
        *,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        starts: Sequence[dt.datetime] = (),
        apart: Mapping[str, Sequence[Source]] | None = None,
    ) -> Self:
        """Profile the union of some history windows.

        Parameters
        ----------
        windows : sequence of pyarrow Tables, or of Parquet paths, files or buffers
            Oldest first, each about as long as the windows that will be checked: their distances
            from one another are what this model's data shows as ordinary. The rows of each in the
            order of time: how alike neighbours are says what so many rows leave to chance.
        numeric, categorical : sequence of str
            The columns to profile. A window without a column counts as all missing.
        starts : sequence of datetime, optional
            When each window began, for calibration by the time of year.
        apart : mapping of str to sequence of sources, optional
            Columns that only some rows have: the windows to read them from, one of each, in which
            those rows alone are; without rows where none has it.

        Raises
        ------
        DataError
            There is no window, or one is not readable.
        """
        if not windows:
            raise DataError("windows: a reference needs at least one, got none")
        if starts and len(starts) != len(windows):
            raise DataError(f"starts: must be one per window, got {len(starts)} of {len(windows)}")
        opened = [Columns(window, categorical=categorical) for window in windows]
        kept = VALUE_BYTES // 8 // max(len(numeric), 1)
        of_some = {
            name: [Columns(window, categorical=categorical) for window in found]
            for name, found in (apart or {}).items()
        }
        batches = [_numeric_batch(n, of_some.get(n, opened), kept=kept) for n in numeric]
        batches += [_categorical_batch(n, of_some.get(n, opened)) for n in categorical]
        columns = [(name, "numeric") for name in numeric]
        columns += [(name, "categorical") for name in categorical]
        times = [start.astimezone(dt.UTC).replace(tzinfo=None).isoformat() for start in starts]
        return cls(columns, batches, starts=times, priors=_priors(batches))

    def __len__(self) -> int:
        return len(self._columns)

    def __iter__(self) -> Iterator[ColumnProfile]:
        for position in range(len(self)):
            starts = np.array(self._starts, "datetime64[us]") if self._starts else None
            yield _decode(self._batch(position), starts, self._priors)
            if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                # The column is done: so are its pages in memory. Whoever still looks reads again.
                self._mapped[0].madvise(mmap.MADV_DONTNEED)

    @property
    def names(self) -> tuple[str, ...]:
        """The profiled columns, numeric ones first."""
        return tuple(name for name, _ in self._columns)

    @property
    def categorical(self) -> tuple[str, ...]:
        """The columns whose levels are compared."""
        return tuple(name for name, kind in self._columns if kind == "categorical")

    def to_bytes(self) -> bytes:
        """Give the profile as an Arrow IPC file; `from_bytes` reads it back."""
        sink = pa.BufferOutputStream()
        header = {"columns": self._columns, "starts": self._starts, "priors": self._priors}
        about = _SCHEMA.metadata | {_HEADER_KEY: json.dumps(header).encode()}
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, _SCHEMA.with_metadata(about), options=options) as writer:
            for position in range(len(self)):
                writer.write_batch(self._batch(position))
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a profile.

        Raises
        ------
        DataError
            The bytes are no profile, are cut short, or are of a version this code does not know.
        """
        header, reader = _read(pa.BufferReader(content))
        batches = [reader.get_batch(position) for position in range(reader.num_record_batches)]
        return cls(header["columns"], batches, starts=header["starts"], priors=header["priors"])

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a profile file into memory: a check unpacks one column of it at a time.

        Raises
        ------
        DataError
            As `from_bytes`.
        """
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise DataError(f"drift profile: {path} cannot be read: {error}") from error
        header, reader = _read(pa.BufferReader(pa.py_buffer(content)))
        return cls(
            header["columns"],
            starts=header["starts"],
            priors=header["priors"],
            mapped=(content, reader),
        )

    def _batch(self, position: int) -> pa.RecordBatch:
        return self._mapped[1].get_batch(position) if self._mapped else self._batches[position]


def _read(source: pa.NativeFile) -> tuple[dict[str, Any], pa.RecordBatchFileReader]:
    try:
        reader = pa.ipc.open_file(source)
        about = reader.schema.metadata or {}
        version = about.get(_VERSION_KEY, b"none").decode(errors="replace")
        if version not in _READABLE:
            raise DataError(
                f"drift profile: must be of format version {FORMAT_VERSION}, got {version};"
                " retrain the model, by hand if need be, to build it again"
            )
        header: dict[str, Any] = json.loads(about[_HEADER_KEY])
        header["priors"] = {name: Prior(*found) for name, found in header.get("priors", {}).items()}
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"drift profile: cut short, or not a profile at all ({error}); build it again"
        ) from error
    return header, reader


def _numeric_batch(name: str, windows: Sequence[Columns], *, kept: int) -> pa.RecordBatch:
    """Profile one numeric column; of more than `kept` values, only quantiles are kept."""
    blocks = [window.numeric_blocks(name, PARTS) for window in windows]
    samples = [union(parts) for parts in blocks]
    values = union(samples)
    is_complete = len(values) <= max(kept, QUANTILES)
    cells = cells_for(values, quantiles=None if is_complete else QUANTILES)
    counts = cells.count(values)
    rows = np.array([window.rows for window in windows])
    present = np.array([len(sample) for sample in samples])
    distances, shifts = [], []
    for sample in samples:
        n, m = len(values), len(sample)
        if m in (0, n):
            distances.append(np.nan)
            shifts.append(np.nan)
            continue
        # The rest of the history is the union without the window, so its distance from the window
        # is the union's, times n / (n - m): no second sort.
        at_cells = cells.count(sample)
        gap = exact_gap(values, counts, at_cells, partial(slices, sample, at_cells))
        distances.append(min(1.0, gap * n / (n - m)))
        shifts.append(min(1.0, abs(rank_shift(counts, at_cells)) * n / (n - m)))
    rough = Edges.at_quantiles(values, min(len(values), _BLOCK_QUANTILES))
    held = np.array([[rough.count(block).held for block in window] for window in blocks])
    dependence = read_dependence(held)
    outlines = draw(samples)
    if not is_complete:
        values = values[np.linspace(0, len(values) - 1, QUANTILES).astype(np.int64)]
    whole = values.dtype.kind == "i"
    return _batch(
        name=name,
        kind="numeric",
        rows=int(rows.sum()),
        float_values=None if whole else values,
        whole_values=values if whole else None,
        values_before=counts.before,
        **_cut(cells),
        window_rows=rows,
        window_present=present,
        window_distances=np.array(distances),
        window_shifts=np.array(shifts),
        window_missing_changes=_missing_changes(rows, present),
        design_effects=np.array([found.design_effect for found in dependence]),
        blocks=np.array([found.blocks for found in dependence]),
        ruler=np.array(outlines.ruler),
        outlines=outlines.windows.ravel(),
    )


def _cut(cells: Cells) -> dict[str, NDArray[Any]]:
    """Say how the cells are cut, as `_cells` reads it."""
    if isinstance(cells, Grid):
        return {"grid": np.array([cells.low, cells.scale])}
    return {"whole_edges" if cells.at.dtype.kind == "i" else "float_edges": cells.at}


def _cells(batch: pa.RecordBatch) -> Cells:
    if batch.column("grid")[0].is_valid:
        return Grid(*batch.column("grid")[0].as_py())
    which = "float_edges" if batch.column("float_edges")[0].is_valid else "whole_edges"
    return Edges(np.asarray(batch.column(which)[0].values.to_numpy()))


def _missing_changes(rows: NDArray[Any], present: NDArray[Any]) -> NDArray[np.float64]:
    """Each window's share of missing values against that of all other windows."""
    missing = rows - present
    other_rows = rows.sum() - rows
    with np.errstate(invalid="ignore", divide="ignore"):  # no rows: NaN, which is "not measured"
        return np.asarray(np.abs(missing / rows - (missing.sum() - missing) / other_rows))


def _categorical_batch(name: str, windows: Sequence[Columns]) -> pa.RecordBatch:
    samples = [window.levels(name) for window in windows]
    total: dict[str, int] = {}
    for sample in samples:
        for level, count in sample.counts.items():
            total[level] = total.get(level, 0) + count
    rows = np.array([sample.rows for sample in samples])
    distances = []
    for sample in samples:
        rest = {level: total[level] - sample.counts.get(level, 0) for level in total}
        others = LevelColumn({k: v for k, v in rest.items() if v}, int(rows.sum()) - sample.rows)
        measured = sample.rows and others.rows
        distances.append(compare_levels(others, sample).distance if measured else np.nan)
    return _batch(
        name=name,
        kind="categorical",
        rows=int(rows.sum()),
        levels=list(total),
        level_counts=np.array(list(total.values()), dtype=np.int64),
        window_rows=rows,
        window_present=np.array([sample.present for sample in samples]),
        window_distances=np.array(distances),
    )


def _batch(**fields: Any) -> pa.RecordBatch:
    columns = []
    for field in _SCHEMA:
        value = fields.get(field.name)
        if isinstance(value, np.ndarray) and pa.types.is_large_list(field.type):
            offsets = pa.array([0, len(value)], pa.int64())
            columns.append(pa.LargeListArray.from_arrays(offsets, pa.array(value)))
        else:
            columns.append(pa.array([value], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _priors(batches: Sequence[pa.RecordBatch]) -> dict[str, Prior]:
    """Find what all columns say about how much windows differ, by what is measured."""
    columns = [_decode(batch, None, {}) for batch in batches]
    numeric = [one for one in columns if isinstance(one, NumericProfile)]
    location, spread = priors_of([one.outlines for one in numeric if one.outlines], _LEAST_ROWS)
    distances, shifts, levels = [], [], []
    for column in columns:
        if isinstance(column, CategoricalProfile):
            if column.levels.present:
                chance = compare_levels(column.levels, column.levels).chance(_ANY_ALPHA)
                levels.append((column.history, chance, column.rows))
        elif column.present:
            n = column.present
            by_rows = Chance(0.0, KS_CHANCE_SQUARE * 2 / n, KS_CHANCE_SPREAD)
            distances.append((column.history, by_rows, n))
            by_ties = Chance(0.0, shift_chance_square(column.counts, column.counts), NORMAL_SPREAD)
            shifts.append((column.shift_history, by_ties, n))
    return {
        "location": location,
        "spread": spread,
        "distance": _seen(distances),
        "shift": _seen(shifts),
        "levels": _seen(levels),
    }


def _seen(columns: Sequence[tuple[History, Chance, int]]) -> Prior:
    """Find the law of what windows show in units of what chance explains."""
    ratios, windows = [], []
    for history, chance, rows in columns:
        measured = history.measured(_LEAST_ROWS)
        if len(measured.rows) > 1 and chance.mean_square:
            ratios.append(explain(measured, int(history.rows.sum()), chance, (rows, rows))[2])
            windows.append(len(measured.rows))
    return find_prior(np.array(ratios), float(np.median(windows)) - 1) if ratios else Prior()


def _decode(
    batch: pa.RecordBatch, starts: NDArray[np.datetime64] | None, priors: Mapping[str, Prior]
) -> ColumnProfile:
    def one(field: str) -> Any:
        return batch.column(field)[0].as_py()

    def numbers(field: str) -> NDArray[Any]:
        return np.asarray(batch.column(field)[0].values.to_numpy())

    if one("kind") == "categorical":
        counts = dict(zip(one("levels"), one("level_counts"), strict=True))
        return CategoricalProfile(
            one("name"),
            LevelColumn(counts, one("rows")),
            History(
                numbers("window_rows"), numbers("window_distances"), starts,
                prior=priors.get("levels", Prior()),
            ),
        )  # fmt: skip
    which = "float" if batch.column("float_values")[0].is_valid else "whole"
    values = numbers(f"{which}_values")
    dependence = [
        Dependence(*found) for found in zip(one("design_effects"), one("blocks"), strict=True)
    ]
    present = numbers("window_present")
    of_distance, of_shift = (priors.get(name, Prior()) for name in ("distance", "shift"))
    return NumericProfile(
        one("name"),
        one("rows"),
        values,
        CellCounts(_cells(batch), numbers("values_before").astype(np.int64)),
        History(present, numbers("window_distances"), starts, dependence[0], of_distance),
        History(present, numbers("window_shifts"), starts, dependence[1], of_shift),
        History(numbers("window_rows"), numbers("window_missing_changes"), starts),
        _outlines(batch, present, priors),
    )


def _outlines(
    batch: pa.RecordBatch, present: NDArray[np.int64], priors: Mapping[str, Prior]
) -> Outlines | None:
    """Read the outlines of a column's windows; a profile made by an earlier release has none."""
    if "ruler" not in batch.schema.names:
        return None
    return Outlines(
        Ruler(*batch.column("ruler")[0].as_py()),
        present,
        np.asarray(batch.column("outlines")[0].values.to_numpy()).reshape(len(present), 5),
        (priors.get("location", Prior()), priors.get("spread", Prior())),
    )
