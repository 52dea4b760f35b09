"""The seam to engines that hold the current window elsewhere: counts in, the same verdict out.

A check asks three things of a window, each of them one aggregation over one column, so that data
need not move: how many values each cell of the reference holds (GROUP BY the cell), how often each
level occurs (GROUP BY the level), and, only where a threshold falls inside the certified interval
of the counts, the few values in some cells. `DuckDBWindow` asks them in SQL; Spark, Trino or Athena
would do so with the same statements (the cell of a grid is arithmetic, that of edges
``width_bucket`` where there is no ASOF join). pyarrow Tables and Parquet files answer through
`columns.Columns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.cells import CellCounts, Cells, Grid, Wanted
from include.retraining.drift.columns import LevelColumn, NumericColumn, is_missing, level_name

if TYPE_CHECKING:
    import duckdb


@runtime_checkable
class CountingWindow(Protocol):
    """What a check asks of a current window it does not hold itself."""

    rows: int

    def counted(self, name: str, cells: Cells) -> NumericColumn:
        """Count one column in cells; an absent column counts nothing, with the problem said."""

    def levels(self, name: str) -> LevelColumn:
        """Count how often each level of one column occurs."""


class DuckDBWindow:
    """A table, view or subquery of a DuckDB connection as the current window.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where the window is; nothing is written but temporary tables.
    relation : str
        What to select from: a table, or for instance
        ``read_parquet('s3://bucket/week/*.parquet')``. Part of the statement, so never to be taken
        from untrusted input.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, relation: str) -> None:
        self._connection = connection
        self._relation = relation
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()  # noqa: S608
        self._types = {row[0]: str(row[1]) for row in described}
        self.rows = int(self._all(f"SELECT count(*) FROM {relation}")[0][0])  # noqa: S608

    def counted(self, name: str, cells: Cells) -> NumericColumn:
        """Count one column in cells, with one GROUP BY."""
        if name not in self._types:
            return self._nothing(cells, "the column is absent")
        kind = self._types[name]
        number = _as_number(name, kind)
        if number is None:
            return self._nothing(cells, f"values are {kind}, not numbers")
        problem = ""
        if kind == "VARCHAR":
            problem = f"values arrive as {kind}, read as numbers"
            text = _quoted(name)  # Arrow reads no text with blanks around, so this does not, either
            unread = f"{text} IS NOT NULL AND ({number} IS NULL OR {text} <> trim({text}))"
            if self._all(f"SELECT count(*) FROM {self._relation} WHERE {unread}")[0][0]:  # noqa: S608
                return self._nothing(cells, f"values are {kind}, not numbers")
        located = self._located(number, cells)
        held = np.zeros(len(cells), dtype=np.int64)
        for cell, count in self._all(f"SELECT cell, count(*) FROM ({located}) GROUP BY 1"):  # noqa: S608
            held[cell] = count

        def inside(wanted: Wanted) -> NDArray[Any]:
            self._register("drift_wanted", cell=np.flatnonzero(wanted))
            found = self._connection.execute(
                f"SELECT x FROM ({self._located(number, cells)})"  # noqa: S608
                " SEMI JOIN drift_wanted USING (cell) ORDER BY x"
            ).fetchnumpy()["x"]
            return np.asarray(found)

        return NumericColumn(CellCounts.of(cells, held), self.rows, inside, problem)

    def levels(self, name: str) -> LevelColumn:
        """Count how often each level of one column occurs, with one GROUP BY."""
        if name not in self._types:
            return LevelColumn({}, self.rows, "the column is absent")
        kind = self._types[name]
        if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
            return LevelColumn({}, self.rows, f"values are {kind}, which has no levels to count")
        column = _quoted(name)
        counts: dict[str, int] = {}
        for value, count in self._all(
            f"SELECT {column}, count(*) FROM {self._relation} GROUP BY 1"  # noqa: S608
        ):
            if not is_missing(value):
                counts[level_name(value)] = counts.get(level_name(value), 0) + count
        return LevelColumn(counts, self.rows)

    def _located(self, number: str, cells: Cells) -> str:
        """Give the SQL of the present values, and the cell of each."""
        values = (
            f"SELECT x FROM (SELECT {number} AS x FROM {self._relation})"  # noqa: S608
            " WHERE x IS NOT NULL AND NOT isnan(x::DOUBLE)"
        )
        if isinstance(cells, Grid):
            at = f"(x::DOUBLE - '{cells.low!r}'::DOUBLE) * '{cells.scale!r}'::DOUBLE"
            cell = f"trunc(greatest(0, least({len(cells) - 1}, {at})))::INTEGER"
            return f"SELECT x, {cell} AS cell FROM ({values})"  # noqa: S608
        self._register("drift_edges", after=2 * np.arange(len(cells.at)) + 2, edge=cells.at)
        point, equal = "x::DOUBLE", "point = edge"
        if cells.at.dtype.kind == "i":
            # No type holds a whole edge and a fraction, but x >= edge is floor(x) >= edge.
            point = "greatest(least(floor(x), 1e19), -1e19)::HUGEINT"
            equal = "point = edge AND x = floor(x)"
            if number.endswith("::BIGINT"):
                point, equal = "x", "point = edge"
        cell = f"CASE WHEN edge IS NULL THEN 0 WHEN {equal} THEN after - 1 ELSE after END"
        return (
            f"SELECT x, {cell} AS cell FROM (SELECT x, {point} AS point FROM ({values}))"  # noqa: S608
            " ASOF LEFT JOIN drift_edges ON point >= edge"
        )

    def _register(self, name: str, **columns: NDArray[Any]) -> None:
        import pyarrow as pa

        self._connection.register(name, pa.table(columns))

    def _nothing(self, cells: Cells, problem: str) -> NumericColumn:
        nothing = cells.count(np.empty(0))
        return NumericColumn(nothing, self.rows, lambda _: np.empty(0), problem)

    def _all(self, statement: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(statement).fetchall()
        return rows


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _as_number(name: str, kind: str) -> str | None:
    """Give the SQL that turns a column into BIGINT or DOUBLE; None where nothing does."""
    column = _quoted(name)
    if kind == "VARCHAR":
        return f"TRY_CAST({column} AS DOUBLE)"
    if kind.startswith(("TIMESTAMP", "DATE", "TIME", "INTERVAL")):
        return f"epoch_us({column})::BIGINT"
    if kind in {"UBIGINT", "HUGEINT", "UHUGEINT"}:  # no reference holds more than 64 bits
        return f"greatest(least({column}, {2**63 - 1}), {-(2**63)})::BIGINT"
    if kind.endswith(("INT", "INTEGER")):
        return f"{column}::BIGINT"
    if kind in {"DOUBLE", "FLOAT", "BOOLEAN"} or kind.startswith("DECIMAL"):
        return f"{column}::DOUBLE"
    return None
