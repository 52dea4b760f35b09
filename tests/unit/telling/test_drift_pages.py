"""Reports for people: a PNG and an HTML page that open, whatever was measured."""

import datetime as dt
import html
import io
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.retraining.records import BatchRef, DriftReport, FeatureDrift, Performance, Verdict
from include.retraining.telling.drift_pages import (
    LEVELS,
    PAGE_COLUMNS,
    PICTURED_COLUMNS,
    SAMPLED_ROWS,
    evidently_page,
    page_columns,
    picture,
    shared_script,
)


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
    assert width == 1000
    assert height > 200


def test_a_picture_shows_at_most_eight_columns_within_150_kb() -> None:
    def drawn(columns: int) -> bytes:
        names = [f"a_feature_of_a_wide_table_{i}_mean_30d" for i in range(columns)]
        return picture(
            [_report(d, *(_feature(n, (7 * d + i) % 20 / 50) for i, n in enumerate(names)))
             for d in range(12)]
        )  # fmt: skip

    few, many = drawn(PICTURED_COLUMNS), drawn(350)
    assert _size(few) == _size(many)
    assert len(many) <= 150_000


def _written(
    monkeypatch: pytest.MonkeyPatch, *reports: DriftReport, refused: Sequence[BatchRef] = ()
) -> list[str]:
    """Give all texts of a picture."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    kept: list[Figure] = []
    make = Figure.__init__

    def remember(figure: Figure, *args: Any, **kwargs: Any) -> None:
        make(figure, *args, **kwargs)
        kept.append(figure)

    monkeypatch.setattr(Figure, "__init__", remember)
    picture(reports, refused)
    return [text.get_text() for text in kept[0].findobj(Text) if text.get_visible()]


def test_a_picture_names_what_was_not_judged(monkeypatch) -> None:
    texts = _written(
        monkeypatch,
        _report(
            0,
            _feature("fine", 0.05),
            _feature("young", 0.3, state="insufficient", threshold=None, drifted=False),
            _feature("empty", None, threshold=None),
        ),
    )
    # what a column is worth is not known here, so it is not said
    assert "Not judged: 2 of 3 columns: young, empty" in texts
    assert "distance 0.05, 0.5x its threshold: not drifted" in texts
    assert texts.count("not judged") == 1  # below the title of `young`; `empty` is not drawn


def test_a_picture_names_the_most_important_of_what_was_not_judged_first(monkeypatch) -> None:
    blind = {"state": "insufficient", "threshold": None, "drifted": False}
    columns = [_feature(f"c{i}", 0.3, importance=i / 10, **blind) for i in range(3)]
    texts = _written(monkeypatch, _report(0, *columns, _feature("fine", 0.05, importance=0.7)))
    assert "Not judged: 3 of 4 columns, 30% of the model's importance: c2, c1, c0" in texts


def _performance(value: float) -> Performance:
    return Performance(metric="roc_auc", rows=90, value=value, low=value - 0.02, high=value + 0.02)


def test_a_picture_shows_champions_refused_batches_and_what_was_realised(monkeypatch) -> None:
    one, gone, two, three = (_report(d, _feature("x", 0.05)) for d in range(4))
    known = [
        one.model_copy(update={"performance": _performance(0.7), "promise": _performance(0.72)}),
        two.model_copy(update={"champion_version": 2}),
        three.model_copy(
            update={
                "champion_version": 2,
                "performance": _performance(0.6),
                "promise": _performance(0.75),
            }
        ),
    ]
    texts = _written(monkeypatch, *known, refused=[gone.batch])
    assert "realised roc_auc" in texts
    assert "0.600 (0.580 to 0.620), promised 0.750" in texts
    assert texts.count("v2") == 2  # in each panel, once
    assert "v1" not in texts
    assert any(text.endswith("dotted: another champion    cross: batch refused") for text in texts)
    assert gone.batch.partition in texts
    assert not any("champion  " in text for text in _written(monkeypatch, one))


def test_no_text_of_a_picture_is_cut_off(monkeypatch) -> None:
    texts = _written(
        monkeypatch,
        _report(0, *(_feature(f"{'W' * 90}{i}", 0.2, threshold=None) for i in range(9))),
    )
    titles = [text for text in texts if text.startswith("WW")]
    assert len(titles) == PICTURED_COLUMNS
    assert len(set(titles)) == PICTURED_COLUMNS  # the ends, where they differ, are kept
    assert all("\u2026" in title and len(title) < 40 for title in titles)


@pytest.mark.parametrize("name", ["$x$", "$\\bad{$", "<b>", "价格", "a\nb", ""])
def test_a_picture_takes_any_name(name: str) -> None:
    assert _size(picture([_report(0, _feature(name, 0.2))]))[0] == 1000


def test_a_picture_is_the_same_for_the_same_reports() -> None:
    reports = [_report(d, _feature("x", 0.05 * d)) for d in range(4)]
    assert picture(reports) == picture(reports)


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one drift report"):
        picture([])


# --- Evidently's page -----------------------------------------------------------------------------

EVIL = (
    "</script><script>pwn()</script><!--<script>]]><img src=x onerror=pwn()><a href='http://evil'>"
)
SCRIPT = "../../../_assets/evidently.js"


def _numbers(shift: float = 0.0, rows: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(shift, 1, rows)


def _verdict(report: DriftReport, *reasons: str) -> Verdict:
    return Verdict(
        batch=report.batch, outcome="watch", reasons=reasons, content_sha256="0",
        champion_version=report.champion_version, incident_id="i",
    )  # fmt: skip


def _page(report: DriftReport, reference: dict[str, Any], current: dict[str, Any]) -> str:
    sides = pa.table(reference), pa.table(current)
    page = evidently_page(report, _verdict(report), *sides, script_url=SCRIPT)
    assert page is not None
    return page.decode()


def _data(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1], parse_constant=pytest.fail)["dashboard"]


def _charts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [chart for one in value for chart in _charts(one)]
    if not isinstance(value, dict):
        return []
    inner = [chart for one in value.values() for chart in _charts(one)]
    return [value, *inner] if value.get("type") in {"bar", "scatter"} else inner


def test_a_page_has_at_most_ten_columns_drifted_ones_first() -> None:
    calm = [_feature(f"calm{i}", 0.09 - i / 1000) for i in range(20)]
    shifted = _feature("shifted", 0.01, shift=0.9, shift_threshold=0.1, drifted=True)
    empty = _feature("empty", None, threshold=None)
    expected = _feature("expected", 0.9, expected=True)
    near = _feature("near", 0.2, threshold=10 / 11, drifted=False)
    report = _report(0, empty, *reversed(calm), near, expected, _feature("far", 0.3), shifted)
    names = page_columns(report)
    assert names[:4] == ("shifted", "far", "expected", "calm0")
    assert len(names) == PAGE_COLUMNS
    assert page_columns(_report(0)) == ()


def test_a_page_shows_samples_and_says_of_how_many() -> None:
    rows = SAMPLED_ROWS + 500
    report = _report(0, *(_feature(f"x{i}", 0.2) for i in range(PAGE_COLUMNS)), _feature("y", 0.0))
    names = page_columns(report)
    sides = [{name: _numbers(shift, rows) for name in names} for shift in (0, 1)]
    page = _page(report, *sides)
    assert "10 of 11 columns" in page
    assert page.count("20,000 of 20,500 rows (a sample, seed 0)") == 2
    assert len(page) <= 300_000
    assert page == _page(report, *sides)
    bars = [c for c in _charts(_data(page)) if c["type"] == "bar" and c["visible"]]
    assert {sum(bar["y"]) for bar in bars} == {SAMPLED_ROWS}
    assert len(bars) == 2 * PAGE_COLUMNS


def test_a_page_says_above_everything_what_was_decided_and_by_whom() -> None:
    report = _report(
        0, _feature("x", 0.2), _feature("y", None, threshold=None, importance=0.5), score=None
    )
    sides = pa.table({"x": _numbers()}), pa.table({"x": _numbers(1)})
    verdict = _verdict(report, "drifted for the first time: x", "a second reason")
    page = evidently_page(report, verdict, *sides, script_url=SCRIPT)
    assert page is not None
    first = page.decode().partition("</h1>")[2]
    assert first.startswith(
        '<div id="verdict"><p><b>Verdict of the monitor, against version 1: watch.</b>'
    )
    assert "<li>drifted for the first time: x</li><li>a second reason</li></ul></div>" in first
    assert "Not judged: 1 of 2 columns, 100% of the model&#x27;s importance: y" in first


def test_a_page_refers_to_the_shared_script_and_to_nothing_else() -> None:
    page = _page(_report(0, _feature("x", 0.2)), {"x": _numbers()}, {"x": _numbers(1)})
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == [SCRIPT]
    name, content = shared_script()
    assert re.fullmatch(r"evidently-[\d.]+-[0-9a-f]{12}\.js", name)
    assert b"window.drawDashboard" in content
    assert shared_script() == (name, content)


def test_a_policy_allows_only_the_scripts_of_the_page() -> None:
    import base64
    import hashlib

    page = _page(_report(0, _feature("x", 0.2)), {"x": _numbers()}, {"x": _numbers(1)})
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = html.unescape(found[1])
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}' 'self' file:;" in policy


def test_nothing_from_the_data_is_markup() -> None:
    levels = [EVIL, "a", "\u2028", "{{ 7*7 }}", "&lt;img&gt;"] * 60
    report = _report(
        0, _feature(EVIL, 0.2), _feature("c", 0.2, kind="categorical"), _feature(EVIL + "2", None)
    )
    report = report.model_copy(
        update={"batch": report.batch.model_copy(update={"partition": EVIL})}
    )
    rows = {EVIL: _numbers(), "c": levels}
    verdict, sides = _verdict(report, EVIL), (pa.table(rows), pa.table(rows))
    page = evidently_page(report, verdict, *sides, script_url=f'x"{EVIL}')
    assert page is not None
    text = page.decode()
    assert text.count("<script") == text.count("</script>") == 3
    assert not re.search(r"<(img|a |!--)", text)
    told = {str(x) for chart in _charts(_data(text)) for x in chart.get("x", ())}
    assert {"a", "{{ 7*7 }}"} <= told
    assert not any("<" in one for one in told)
    assert any(one.startswith("\u2039/script\u203a") for one in told)


def test_rare_levels_are_drawn_as_one_and_long_ones_shortened() -> None:
    levels = [f"level {i % 300}" for i in range(3000)] + ["z" * 300_000, "z" * 300_001] * 30
    report = _report(0, _feature("c", 0.2, kind="categorical"))
    page = _page(report, {"c": levels}, {"c": levels[::-1]})
    assert f"Rare levels drawn as one: c: {302 - LEVELS}." in page
    bars = [chart for chart in _charts(_data(page)) if chart["type"] == "bar"]
    assert {len(bar["x"]) for bar in bars} == {LEVELS + 1}
    assert len(page) < 30_000
    long = sorted({x for x in bars[0]["x"] if x.startswith("z")})
    assert [len(one) for one in long] == [60, 64]  # the second one is told apart by " (2)"


def test_levels_that_look_like_dates_stay_text() -> None:
    levels = ["2013-01-01", "2013-06-01", "7"] * 100
    report = _report(0, _feature("c", 0.2, kind="categorical"))
    page = _page(report, {"c": levels}, {"c": levels})
    assert '"type":"category"' in page


@pytest.mark.parametrize(
    ("kind", "values", "why"),
    [
        pytest.param("numeric", pa.array([], pa.float64()), "no value in", id="empty"),
        pytest.param("numeric", pa.nulls(300, pa.float64()), "no value in", id="all missing"),
        pytest.param("numeric", pa.nulls(300), "no value in", id="without a type"),
        pytest.param("numeric", np.full(300, np.nan), "no value in", id="all NaN"),
        pytest.param("numeric", np.r_[_numbers(), np.inf], "infinite values in", id="infinite"),
        pytest.param("numeric", [1e308, -1e308] * 150, "Evidently fails on it", id="huge"),
        pytest.param("numeric", [1.0], "a single value in", id="one row"),
        pytest.param("numeric", [1.0, None, None], "a single value in", id="one value"),
        pytest.param("numeric", ["1"] * 300, "of type string in", id="text"),
        pytest.param("numeric", [[1.0]] * 300, "of type list", id="lists"),
        pytest.param(
            "numeric", pa.array([1, 2] * 150, pa.timestamp("us", "UTC")),
            "of type timestamp[us, tz=UTC] in", id="moments",
        ),
        pytest.param("categorical", pa.nulls(300, pa.string()), "no value in", id="no levels"),
        pytest.param("categorical", [b"\xff", b"a"] * 150, "of type binary in", id="bytes"),
        pytest.param("categorical", [{"a": 1}] * 300, "of type struct", id="structs"),
        pytest.param("categorical", [1.5, 2.5] * 150, "of type double in", id="fractions as text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", ["the reference", "the batch"])
def test_what_evidently_cannot_take_is_left_out_and_named(
    kind: str, values: Any, why: str, side: str
) -> None:
    good = _numbers() if kind == "numeric" else ["a", "b", "c"] * 100
    odd, fine = pa.table({"odd": values}), pa.table({"odd": good, "x": _numbers()})
    odd = odd.append_column(
        "x", pa.array(_numbers(1, len(odd)) if len(odd) > 1 else [0.5] * len(odd))
    )
    sides = (odd, fine) if side == "the reference" else (fine, odd)
    report = _report(0, _feature("odd", 0.9, kind=kind), _feature("x", 0.2))
    alone = _report(0, _feature("odd", 0.9, kind=kind))
    assert evidently_page(alone, _verdict(alone), *sides, script_url=SCRIPT) is None
    page = evidently_page(report, _verdict(report), *sides, script_url=SCRIPT)
    if len(odd) < 2:
        assert page is None
        return
    assert page is not None
    told = html.unescape(page.decode())
    assert "Shown: 1 of 2 columns" in told
    named = re.search(r"Left out: odd: ([^;]*?)\.</p>", told)
    assert named is not None
    assert why in named[1]
    assert side in named[1] or "Evidently" in why


@pytest.mark.parametrize("values", [pa.array([7.0] * 300), pa.array(["a"] * 300)])
def test_a_column_of_one_value_is_left_out(values: pa.Array) -> None:
    kind = "numeric" if values.type == pa.float64() else "categorical"
    report = _report(0, _feature("k", 0.0, kind=kind), _feature("x", 0.0))
    rows = {"k": values, "x": _numbers()}
    assert "Left out: k: only one value." in _page(report, rows, rows)


def test_a_column_that_is_not_there_is_left_out() -> None:
    report = _report(0, _feature("gone", 0.9), _feature("x", 0.2))
    page = _page(report, {"x": _numbers()}, {"x": _numbers(), "gone": _numbers()})
    assert "Left out: gone: not in the reference." in page


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        pytest.param("numeric", [Decimal(i) / 10 for i in range(300)], id="decimals"),
        pytest.param("numeric", [True, False, None] * 100, id="booleans as numbers"),
        pytest.param("numeric", [7.0] * 299 + [None], id="one value on a side"),
        pytest.param("numeric", pa.array(range(300), pa.uint64()), id="whole numbers"),
        pytest.param("categorical", [True, False, None] * 100, id="booleans"),
        pytest.param("categorical", list(range(3)) * 100, id="whole numbers as levels"),
        pytest.param(
            "categorical", pa.array(["a", "b", None] * 100).dictionary_encode(), id="dictionary"
        ),
        pytest.param("categorical", pa.array(["a", "b"], pa.string_view()), id="views"),
    ],
)
def test_what_can_be_drawn_is_drawn(kind: str, values: Any) -> None:
    report = _report(0, _feature("odd", 0.2, kind=kind))
    plain: Any = _numbers() if kind == "numeric" else ["a", "b", "c"] * 100
    for sides in (({"odd": values}, {"odd": plain}), ({"odd": plain}, {"odd": values})):
        page = _page(report, *sides)
        assert "Left out" not in page
        assert any(chart["type"] == "bar" for chart in _charts(_data(page)))


@pytest.mark.parametrize(
    "name", ["target", "prediction", "id", "index", "date", "$x$", "%{x}", " "]
)
def test_a_column_may_have_any_name(name: str) -> None:
    page = _page(_report(0, _feature(name, 0.2)), {name: _numbers()}, {name: _numbers(1)})
    assert "Shown: 1 of 1 columns" in page


def test_what_evidently_fails_on_is_named(monkeypatch) -> None:
    from evidently import Report

    def fail(self: Report, *args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Report, "run", fail)
    report = _report(0, _feature("x", 0.2))
    rows = pa.table({"x": _numbers()})
    assert evidently_page(report, _verdict(report), rows, rows, script_url=SCRIPT) is None
