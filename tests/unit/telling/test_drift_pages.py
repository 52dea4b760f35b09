"""Reports for people: a PNG and an HTML page that open, whatever was measured."""

import datetime as dt
import io

import numpy as np
import pandas as pd
import pytest

from include.retraining.records import BatchRef, DriftReport, FeatureDrift
from include.retraining.telling.drift_pages import SAMPLED_ROWS, evidently_html, picture


def _feature(name: str, distance: float | None, **changes: object) -> FeatureDrift:
    fields = {
        "name": name, "kind": "numeric", "distance": distance, "p_value": 0.1, "threshold": 0.1,
        "state": "calibrated", "drifted": (distance or 0) > 0.1, "reason": "-",
    }  # fmt: skip
    return FeatureDrift.model_validate(fields | changes)


def _report(day: int, *features: FeatureDrift, **changes: object) -> DriftReport:
    start = dt.datetime(2013, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day)
    batch = BatchRef(
        model="flights",
        partition=f"{start:%Y-%m-%d}",
        start=start,
        end=start + dt.timedelta(days=1),
    )
    fields = {
        "batch": batch, "content_sha256": "0", "champion_version": 1, "state": "calibrated",
        "rows": 10, "labelled_rows": 0, "features": features,
    }  # fmt: skip
    return DriftReport.model_validate(fields | changes)


def _size(png: bytes) -> tuple[int, int]:
    from matplotlib.image import imread

    height, width = imread(io.BytesIO(png)).shape[:2]
    return width, height


@pytest.mark.parametrize(
    "reports",
    [
        pytest.param([_report(0, _feature("x", 0.2))], id="one window"),
        pytest.param([_report(0)], id="nothing measured"),
        pytest.param([_report(0, _feature("x", None, threshold=None))], id="no distance"),
        pytest.param([_report(d, _feature("x", 0.1 * d)) for d in range(9)], id="nine windows"),
        pytest.param(
            [_report(0, _feature("x", 0.1)), _report(1, _feature("y", 0.1))], id="a feature comes"
        ),
        pytest.param(
            [_report(0, _feature("x", 0.3, expected=True, state="insufficient"))], id="expected"
        ),
        pytest.param([_report(0, _feature("x", 0.1), score=_feature("score", 0.2))], id="score"),
        pytest.param([_report(0, _feature("x", 0.1), champion_version=None)], id="no champion"),
    ],
)
def test_a_picture_is_drawn_of_anything_measured(reports: list[DriftReport]) -> None:
    width, height = _size(picture(reports))
    assert width == 1100
    assert height > 200


def test_a_picture_shows_at_most_six_features() -> None:
    few = [_report(0, *(_feature(f"f{i}", 0.1) for i in range(6)))]
    many = [_report(0, *(_feature(f"f{i}", 0.1) for i in range(40)))]
    assert _size(picture(few)) == _size(picture(many))


def test_a_picture_is_the_same_for_the_same_reports() -> None:
    reports = [_report(d, _feature("x", 0.05 * d)) for d in range(4)]
    assert picture(reports) == picture(reports)


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one drift report"):
        picture([])


def test_evidently_renders_a_page_of_sampled_rows() -> None:
    rng = np.random.default_rng(0)
    reference = pd.DataFrame({"x": rng.normal(size=SAMPLED_ROWS + 500), "k": 1.0, "c": "a"})
    page = evidently_html(reference, reference.assign(x=reference["x"] + 1))
    assert page.lstrip().startswith(b"<!DOCTYPE html>")
    assert b"drift" in page.lower()
