from __future__ import annotations

import pytest

from include.retraining.data import delivery
from include.retraining.errors import DataError
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.data_corpus import PARTITION, as_csv, rows, spec_of

FOLDER = f"landing/{PARTITION}"


@pytest.fixture
def spec() -> ModelSpec:
    return spec_of("/*.csv")


def test_several_files_are_awaited_by_their_marker_and_one_by_itself(spec):
    assert delivery.awaited_keys(spec, PARTITION) == [f"{FOLDER}/_SUCCESS"]
    assert delivery.awaited_keys(spec_of(".csv"), PARTITION) == [f"{FOLDER}.csv"]


def test_files_without_their_marker_are_not_complete(spec, storage: Storage):
    storage.write(f"{FOLDER}/a.csv", as_csv(rows()))
    with pytest.raises(DataError, match=rf"no file at .*{FOLDER}/_SUCCESS; deliver it there"):
        delivery.landed(spec, storage, PARTITION)


def test_marker_without_files_is_no_delivery(spec, storage: Storage):
    storage.write(f"{FOLDER}/_SUCCESS", b"")
    with pytest.raises(DataError, match=rf"no file at .*{FOLDER}/\*\.csv"):
        delivery.landed(spec, storage, PARTITION)


def test_files_of_the_folder_itself_and_of_the_format_count_in_order(spec, storage: Storage):
    for name in (
        "b.csv",
        "a.csv",
        "_SUCCESS",
        "note.txt",
        "_temporary/c.csv",
        ".hidden.csv",
        "x/.y/c.csv",
    ):
        storage.write(f"{FOLDER}/{name}", name.encode())
    found = delivery.landed(spec, storage, PARTITION)
    assert found.files == {"batch": {"a.csv": b"a.csv", "b.csv": b"b.csv"}}


def test_ending_of_a_file_counts_in_any_case(spec, storage: Storage):
    for name in ("a.CSV", "b.csv", "_SUCCESS"):
        storage.write(f"{FOLDER}/{name}", name.encode())
    assert list(delivery.landed(spec, storage, PARTITION).files["batch"]) == ["a.CSV", "b.csv"]


@pytest.mark.parametrize("beside", [(), ("part-1.csv",)], ids=["alone", "beside-others"])
def test_files_in_folders_below_are_not_silently_left_out(spec, storage: Storage, beside):
    for name in ("_SUCCESS", "country=DE/part-0.csv", *beside):
        storage.write(f"{FOLDER}/{name}", name.encode())
    with pytest.raises(
        DataError, match=r"1 files lie in .* such as country=DE/part-0\.csv.*side by"
    ):
        delivery.landed(spec, storage, PARTITION)


def test_folder_in_place_of_a_file_is_told(storage: Storage):
    for name in ("_SUCCESS", "part-0.csv", "part-1.csv"):
        storage.write(f"{FOLDER}.csv/{name}", b"")
    with pytest.raises(
        DataError, match=r"a folder with part-0\.csv and 1 more; .*ends in /\* and an"
    ):
        delivery.landed(spec_of(".csv"), storage, PARTITION)


def test_files_of_another_ending_are_told_where_none_of_the_right_one_is(spec, storage: Storage):
    for name in ("_SUCCESS", "part-0.csv.gz"):
        storage.write(f"{FOLDER}/{name}", b"")
    with pytest.raises(DataError, match=r"a folder with part-0\.csv\.gz; deliver what the model"):
        delivery.landed(spec, storage, PARTITION)


def test_content_is_told_by_its_bytes_and_not_by_its_names(spec, storage: Storage):
    storage.write(f"{FOLDER}/_SUCCESS", b"")
    storage.write(f"{FOLDER}/a.csv", b"1")
    storage.write(f"{FOLDER}/b.csv", b"2")
    before = delivery.landed(spec, storage, PARTITION).sha256
    storage.delete(f"{FOLDER}/b.csv")
    assert delivery.landed(spec, storage, PARTITION).sha256 != before
    storage.write(f"{FOLDER}/c.csv", b"2")
    assert delivery.landed(spec, storage, PARTITION).sha256 == before


@pytest.mark.parametrize("copy", [True, False], ids=["copied", "where-it-landed"])
def test_kept_delivery_is_read_back_as_it_landed(spec, storage: Storage, copy):
    storage.write(f"{FOLDER}/_SUCCESS", b"")
    for name in ("b.csv", "a.csv"):
        storage.write(f"{FOLDER}/{name}", name.encode())
    found = delivery.landed(spec, storage, PARTITION)
    delivery.keep(spec, storage, found, copy=copy)
    assert delivery.kept(spec, storage, PARTITION, found.sha256) == found


def test_delivery_that_is_read_where_it_landed_tells_that_it_was_replaced(spec, storage: Storage):
    storage.write(f"{FOLDER}/_SUCCESS", b"")
    storage.write(f"{FOLDER}/a.csv", b"1")
    found = delivery.landed(spec, storage, PARTITION)
    delivery.keep(spec, storage, found, copy=False)
    storage.write(f"{FOLDER}/a.csv", b"2")
    with pytest.raises(DataError, match=r"a\.csv has other content by now"):
        delivery.kept(spec, storage, PARTITION, found.sha256)
    storage.delete(f"{FOLDER}/a.csv")
    with pytest.raises(DataError, match=r"a\.csv is gone.*read where it landed"):
        delivery.kept(spec, storage, PARTITION, found.sha256)


def test_what_was_copied_once_stays_copied(spec, storage: Storage):
    # a refused delivery was copied; accepted later with a few bad rows, its copy was forgotten
    storage.write(f"{FOLDER}/_SUCCESS", b"")
    storage.write(f"{FOLDER}/a.csv", b"1")
    found = delivery.landed(spec, storage, PARTITION)
    delivery.keep(spec, storage, found, copy=True)
    delivery.keep(spec, storage, found, copy=False)
    storage.delete(f"{FOLDER}/a.csv")
    assert delivery.kept(spec, storage, PARTITION, found.sha256) == found


def test_same_bytes_under_new_names_do_not_damage_what_is_kept(spec, storage: Storage):
    # the copies of both deliveries were read as one, and its digest was another
    storage.write(f"{FOLDER}/_SUCCESS", b"")
    storage.write(f"{FOLDER}/a.csv", b"1")
    delivery.keep(spec, storage, delivery.landed(spec, storage, PARTITION), copy=True)
    storage.delete(f"{FOLDER}/a.csv")
    storage.write(f"{FOLDER}/renamed.csv", b"1")
    found = delivery.landed(spec, storage, PARTITION)
    delivery.keep(spec, storage, found, copy=True)
    assert delivery.kept(spec, storage, PARTITION, found.sha256) == found
