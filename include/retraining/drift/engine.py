"""The seam to engines that hold the current window elsewhere: counts in, the same verdict out.

A check asks three things of a window, each of them one aggregation over one column, so that data
need not move: how many values lie below and up to some edges (GROUP BY the edge), how often each
level occurs (GROUP BY the level), and, only where a threshold falls inside the certified interval
of the counts, the few values between some neighbouring edges. `DuckDBWindow` asks them in SQL;
Spark, Trino or Athena would do so with the same statements (``width_bucket`` where there is no ASOF
join). pyarrow Tables and Parquet files answer through `columns.Columns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.columns import CountedColumn, LevelColumn, is_missing, level_name
from include.retraining.drift.gap import EdgeCounts

if TYPE_CHECKING:
    import duckdb


@runtime_checkable
class CountingWindow(Protocol):
    """What a check asks of a current window it does not hold itself."""

    rows: int

    def counted(self, name: str, edges: NDArray[Any]) -> CountedColumn:
        """Count one column at edges; an absent column counts nothing, with the problem said."""

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

    def counted(self, name: str, edges: NDArray[Any]) -> CountedColumn:
        """Count one column at edges, with one GROUP BY."""
        if name not in self._types:
            return self._nothing(edges, "the column is absent")
        kind = self._types[name]
        number = _as_number(name, kind, whole=edges.dtype.kind == "i")
        if number is None:
            return self._nothing(edges, f"values are {kind}, not numbers")
        problem = ""
        if kind == "VARCHAR":
            problem = f"values arrive as {kind}, read as numbers"
            unread = f"SELECT count(*) FROM {self._relation} WHERE {number} IS NULL AND {_quoted(name)} IS NOT NULL"  # noqa: S608, E501
            if self._all(unread)[0][0]:
                return self._nothing(edges, f"values are {kind}, not numbers")
        self._register_edges(edges)
        groups = self._all(
            f"""
            SELECT coalesce(e.position, -1), count(*), count(*) FILTER (v.x = e.edge)
            FROM (SELECT {number} AS x FROM {self._relation}) v
            ASOF LEFT JOIN drift_edges e ON v.x >= e.edge
            WHERE v.x IS NOT NULL AND NOT isnan(v.x::DOUBLE)
            GROUP BY 1
            """  # noqa: S608
        )
        size = sum(count for _, count, _ in groups)
        starting = np.zeros(len(edges) + 1, dtype=np.int64)  # [i + 1]: from edge i up to the next
        equal = np.zeros(len(edges), dtype=np.int64)
        for position, count, ties in groups:
            starting[position + 1] = count
            if position >= 0:
                equal[position] = ties
        below = np.cumsum(starting)[:-1]

        def fetch(starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
            return self._between(number, starts, ends)

        return CountedColumn(
            EdgeCounts(edges, below, below + equal, size), self.rows, fetch, problem
        )

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

    def _between(self, number: str, starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
        self._register_edges(starts, ends)
        found = self._connection.execute(
            f"""
            SELECT v.x FROM (SELECT {number} AS x FROM {self._relation}) v
            ASOF JOIN drift_edges e ON v.x >= e.edge
            WHERE v.x > e.edge AND v.x < e.until ORDER BY v.x
            """  # noqa: S608
        ).fetchnumpy()["x"]
        return np.asarray(found, dtype=starts.dtype)

    def _register_edges(self, edges: NDArray[Any], until: NDArray[Any] | None = None) -> None:
        import pyarrow as pa

        columns = {"position": np.arange(len(edges)), "edge": edges}
        if until is not None:
            columns["until"] = until
        self._connection.register("drift_edges", pa.table(columns))

    def _nothing(self, edges: NDArray[Any], problem: str) -> CountedColumn:
        empty = EdgeCounts.of(edges, edges[:0])
        return CountedColumn(empty, self.rows, lambda *_: edges[:0], problem)

    def _all(self, statement: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(statement).fetchall()
        return rows


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _as_number(name: str, kind: str, *, whole: bool) -> str | None:
    """Give the SQL that turns a column into the numbers of a profile; None where nothing does."""
    column = _quoted(name)
    if kind == "VARCHAR":
        return f"TRY_CAST({column} AS DOUBLE)"
    if kind.startswith(("TIMESTAMP", "DATE", "TIME", "INTERVAL")):
        return f"epoch_us({column})::DOUBLE"
    if kind.endswith("INT") or kind == "INTEGER":
        return f"{column}::BIGINT" if whole else f"{column}::DOUBLE"
    if kind in {"DOUBLE", "FLOAT", "BOOLEAN"} or kind.startswith("DECIMAL"):
        return f"{column}::DOUBLE"
    return None
