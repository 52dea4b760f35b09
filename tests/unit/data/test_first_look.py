from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining.data.first_look import files_of, localized, look
from include.retraining.errors import DataError


def csv_of(folder: Path, header: str, *lines: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param(("1", "2"), "integer", id="whole numbers"),
        pytest.param(("1", ""), "integer", id="a missing one"),
        pytest.param(("9007199254740993001", "9007199254740993002"), "integer", id="19 digits"),
        pytest.param(("99999999999999999999", "1"), "string", id="20 digits: an id, not rounded"),
        pytest.param(("007", "123"), "string", id="a code with zeros"),
        pytest.param(("1.0", "2.0"), "number", id="written as number"),
        pytest.param(("1", "2.5"), "number", id="number"),
        pytest.param(("0", "1"), "integer", id="0 and 1"),
        pytest.param(("true", "false"), "boolean", id="boolean"),
        pytest.param(("2024-01-01T05:00:00Z", "2024-01-01T05:00:00+02:00"), "timestamp", id="time"),
        pytest.param(("2024-01-01T05:00:00Z", "01/02/2024"), "string", id="several formats"),
        pytest.param(("NO", "SE"), "string", id="text"),
    ],
)
def test_each_column_has_the_narrowest_type_that_keeps_all_values(
    tmp_path: Path, values: tuple[str, ...], kind: str
):
    seen = look([csv_of(tmp_path, "id,x", *(f"{n},{one}" for n, one in enumerate(values)))])
    assert seen.kinds["x"] == kind


def test_ids_of_19_digits_stay_apart(tmp_path: Path):
    big = 9007199254740993001
    seen = look([csv_of(tmp_path, "x", str(big), str(big + 1))])
    assert seen.rows.column("x").to_pylist() == [big, big + 1]


def test_the_type_is_inferred_over_all_rows_of_all_files(tmp_path: Path):
    one = csv_of(tmp_path, "x", *["1"] * 5000, name="a.csv")
    other = csv_of(tmp_path, "x", *["1"] * 4999, "2.5", name="b.csv")
    assert look([one]).kinds == {"x": "integer"}
    assert look([one, other]).kinds == {"x": "number"}
    assert look([one, other]).rows.num_rows == 10000


def test_times_without_a_zone_are_told_from_those_with_one(tmp_path: Path):
    seen = look([csv_of(tmp_path, "id,t", "1,2024-07-01 05:00", "2,2024-07-01 06:00")])
    assert seen.naive == ("t",)
    found = localized(seen.rows.column("t"), "Europe/Berlin", "t")
    assert found[0].as_py().isoformat() == "2024-07-01T03:00:00+00:00"


@pytest.mark.parametrize(
    ("moment", "zone", "says"),
    [
        pytest.param("2024-10-27 02:30", "Europe/Berlin", "ambiguous", id="there twice"),
        pytest.param("2024-03-31 02:30", "Europe/Berlin", "exist", id="not there"),
        pytest.param("2024-03-31 02:30", "Mars/Base", "Mars/Base", id="no zone"),
    ],
)
def test_a_time_that_a_zone_does_not_make_clear_is_refused(
    tmp_path: Path, moment: str, zone: str, says: str
):
    seen = look([csv_of(tmp_path, "t", moment, moment)])
    with pytest.raises(DataError, match=says):
        localized(seen.rows.column("t"), zone, "t")


def test_what_no_model_file_can_declare_is_left_out_with_its_reason(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": [1, 2], "_rt_y": [1, 2], "deep": [[1], [2]]}), path)
    seen = look([path])
    assert set(seen.kinds) == {"x"}
    assert "list" in seen.left_out["deep"]
    assert "bundle's own" in seen.left_out["_rt_y"]


def test_files_of_folders_and_globs_are_found_once_and_in_order(tmp_path: Path):
    names = ["b.csv", "a.csv", ".hidden.csv", "_SUCCESS", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text("x\n1\n")
    found = files_of([str(tmp_path), str(tmp_path / "*.csv")])
    assert [one.name for one in found[:2]] == ["a.csv", "b.csv"]
    assert len({*found}) == len(found)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param({"a.csv": "x,x\n1,2\n"}, "more than once", id="duplicate names"),
        pytest.param({"a.csv": "x\n1\n", "b.csv": "y\n1\n"}, "other columns", id="other columns"),
        pytest.param({"a.csv": "x\n1\n", "b.jsonl": '{"x": 1}\n'}, "one format", id="mixed"),
        pytest.param({"a.csv": ""}, "empty", id="empty"),
        pytest.param({"a.csv": "x\n"}, "without any row", id="no row"),
        pytest.param({"a.txt": "x\n"}, "no file that can be read", id="nothing to read"),
        pytest.param({"a.csv": 'x\n"1\n'}, "never closed", id="open quote"),
    ],
)
def test_files_that_ingest_would_refuse_are_refused(
    tmp_path: Path, files: dict[str, str], says: str
):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        look(files_of([str(tmp_path)]))
