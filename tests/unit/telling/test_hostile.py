"""Every page, message, table and card over the same hostile values: what they say is text."""

from __future__ import annotations

import datetime as dt
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from include.retraining.cli.answer import aside, for_people, table
from include.retraining.records import (
    BatchRef,
    DeliveryMapping,
    DriftReport,
    FeatureDrift,
    FeatureSkew,
    Finding,
    Gain,
    GateCheck,
    GateDecision,
    GuardAnswer,
    Performance,
    Promotion,
    RetrainClaim,
    RetrainRequest,
    SkewReport,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger, versions
from include.retraining.telling import alerts, duel_table, model_card, status
from include.retraining.telling.drift_pages import evidently_page, picture
from include.retraining.telling.escapes import markdown, one_line
from include.retraining.telling.validation_page import validation_page
from tests.hostile import HOSTILE
from tests.unit.pipeline import small_spec

SPEC = small_spec()
AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)
PERFORMANCE = Performance(metric="roc_auc", rows=9, value=0.5, low=0.4, high=0.6)
CONTROL = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\u200e\u2028\u2029\u202e\u2066\ud800-\udfff]"
)

every_value = pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)


def batch_of(value: str) -> BatchRef:
    return BatchRef(model="flights", partition="2013-02-11", start=AT, end=AT)


def validation_of(value: str, **changes: Any) -> ValidationReport:
    finding = Finding(
        expectation=value, column=value, severity="critical", failed_rows=1, detail=value
    )
    fields: dict[str, Any] = {
        "batch": batch_of(value), "status": "refused", "rows_in": 9, "rows_good": 8,
        "rows_quarantined": 1, "findings": (finding,), "content_sha256": value,
        "suite_sha256": value, "quarantine_key": value,
        "mapping": DeliveryMapping(renames={value: value}, reason=value, actor=value),
    }  # fmt: skip
    return ValidationReport.model_validate(fields | changes)


def decision_of(value: str) -> GateDecision:
    gain = Gain(rows=9, value=0.1, low=0.0, high=0.2)
    return GateDecision(
        incident_id="i", model="flights", partition="2013-02-11", candidate_version=2,
        champion_version=1, passed=True, reasons=(value,), candidate=PERFORMANCE,
        champion=PERFORMANCE, gain=gain, slices={f"origin={value}": gain},
        checks=(GateCheck(name=f"slice origin={value}", passed=True, detail=value),),
    )  # fmt: skip


def verdict_of(value: str) -> Verdict:
    return Verdict(
        batch=batch_of(value), outcome="watch", reasons=(value,), content_sha256="c",
        champion_version=1, incident_id="i", worst_feature=value,
    )  # fmt: skip


def promotion_of(value: str) -> Promotion:
    return Promotion(
        incident_id=value, model="flights", partition="2013-02-11", action="rollback", version=1,
        previous_version=2, reason=value, actor=value, at=AT, ledger_sequence=3,
    )  # fmt: skip


def drift_of(value: str, name: str) -> DriftReport:
    column = FeatureDrift(
        name=name, kind="categorical", distance=0.3, p_value=0.0, threshold=0.1,
        state="calibrated", drifted=True, reason=value,
    )  # fmt: skip
    blind = {"name": f"{name}?", "threshold": None, "state": "insufficient", "drifted": False}
    return DriftReport(
        batch=batch_of(value), content_sha256="c", champion_version=1, state="calibrated", rows=9,
        labelled_rows=0, features=(column, column.model_copy(update=blind)),
    )  # fmt: skip


# --- Slack ----------------------------------------------------------------------------------------


def all_alerts(value: str) -> list[alerts.Alert]:
    skew = FeatureSkew(
        view=value, name=value, compared=9, differing=1, expired=0, age_hours=None, ttl_hours=None,
        example=value, ahead=1, ahead_example=value,
    )  # fmt: skip
    decision = decision_of(value)
    told = [
        alerts.of_validation(validation_of(value)),
        alerts.of_skew(SkewReport(batch=batch_of(value), at=AT, keys=9, features=(skew,))),
        alerts.of_verdict(verdict_of(value), None),
        alerts.of_gate(decision),
        alerts.of_question(decision),
        alerts.of_answer(decision, approved=False, by=value),
        alerts.of_guard_answer(
            verdict_of(value),
            GuardAnswer.to(verdict_of(value), approved=False, by=value),
            is_made=False,
        ),
        alerts.of_promotion(promotion_of(value)),
        alerts.of_failure(
            model="flights", thread=value, task=value, run_id=value, error=value, attempt=value
        ),
    ]
    return [one for one in told if one is not None]


@every_value
def test_message_has_no_markup_but_its_own(value):
    for alert in all_alerts(value):
        symbol = alerts.SYMBOL[alert.level]
        for text, bold in (
            (alert.text, r"\*.*\*"), (alerts.opening_text(alert), r"\*flights .*?\*: .*")
        ):  # fmt: skip
            assert text.startswith(f"{symbol} *")
            head, *rows = text.removeprefix(f"{symbol} ").split("\n")
            assert re.fullmatch(bold, head)
            assert head.count("*") == 2
            assert all(row.startswith("> ") for row in rows)
            body = "\n".join(rows).replace("\n> ", "\n").removeprefix("> ")
            for shown in (head.replace("*", ""), body):
                assert not set("<>`*~") & set(shown)
                assert not re.search(r":[a-z_]+:", shown)
                assert not re.search(r"&(?!(amp|lt|gt);)", shown)
                assert not CONTROL.search(shown)
            assert len(text) < 3000


def test_error_that_is_no_text_is_told_all_the_same():
    failed = alerts.of_failure(
        model="flights", thread="p", task="t", run_id="r", error="a\udc80b", attempt="1"
    )
    assert failed.alert_id
    assert "> a\\udc80b" in failed.text


# --- Markdown -------------------------------------------------------------------------------------


def tokens(text: str) -> list[Token]:
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [inner for token in parsed for inner in (token, *(token.children or ()))]


def shown(text: str) -> str:
    plain = {"text", "code_inline", "text_special"}
    return "".join(token.content for token in tokens(text) if token.type in plain)


def structure(text: str) -> list[str]:
    """Give all that is not text: headings, cells, links, markup."""
    return [t.type for t in tokens(text) if t.type not in {"text", "text_special", "inline"}]


@every_value
def test_value_as_markdown_shows_the_value(value):
    assert shown(f"x {markdown(value)} x").split() == f"x {one_line(value)} x".split()


@every_value
def test_duel_has_the_same_cells_whatever_its_slices_are_called(value):
    found, harmless = duel_table.as_markdown(decision_of(value)), decision_of("EWR")
    assert structure(found) == structure(duel_table.as_markdown(harmless))
    assert not CONTROL.search(found)


def card_of(value: str) -> str:
    spec = SPEC.model_copy(update={"description": value, "owner": value, "limitations": (value,)})
    entry = ledger.Entry(
        sequence=1, model="flights", action="rollback", version=2, previous_version=1,
        incident_id=value, partition="2013-02-11", reason=value, actor=value, at=AT,
        previous_hash="",
    )  # fmt: skip
    request = RetrainRequest(
        incident_id=value, batch=batch_of("p"), trigger="manual", reason=value, champion_version=1
    )
    version = versions.Version(
        number=1, run_id="r", stage="", aliases=(), tags={versions.QUARANTINE_TAG: value or "x"},
        incident_id=value, features=(f"a{value}",), trained_until=None, promise=None,
        model_format="", model_sha256="", digest="",
    )  # fmt: skip
    evidence = model_card.Evidence(
        version=version, claim=RetrainClaim(run_id="r", request=request), training=None,
        duel=decision_of(value), drift=drift_of(value, value), entries=(entry,), removal=entry,
        tags={"retraining.git_commit": value}, params={}, metrics={},
    )  # fmt: skip
    return model_card.render(spec, evidence)


@every_value
def test_card_has_the_same_structure_whatever_it_says(value):
    card = card_of(value or "nobody")
    assert structure(card) == structure(card_of("ada"))
    assert not CONTROL.search(card)


# --- HTML -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects the tags and attributes of a page, and its text."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def expectations_of(value: str) -> dict[str, Any]:
    """Give a result as Great Expectations does, of a column and with values of the data."""
    column = f"c{value}"
    failed = {
        "element_count": 9, "unexpected_count": 1, "unexpected_percent": 11.1,
        "unexpected_percent_total": 11.1, "unexpected_percent_nonmissing": 11.1,
        "missing_count": 0, "missing_percent": 0.0, "partial_unexpected_list": [value],
        "partial_unexpected_counts": [{"value": value, "count": 1}],
    }  # fmt: skip
    config = {
        "type": "expect_column_values_to_be_in_set", "meta": {}, "severity": "critical",
        "kwargs": {"column": column, "value_set": [f"a{value}", "b"], "batch_id": "x"},
    }  # fmt: skip
    info = {"exception_message": None, "exception_traceback": None, "raised_exception": False}
    one = {
        "success": False, "expectation_config": config, "result": failed, "meta": {},
        "exception_info": info,
    }  # fmt: skip
    statistics = {
        "evaluated_expectations": 1, "successful_expectations": 0, "unsuccessful_expectations": 1,
        "success_percent": 0.0,
    }  # fmt: skip
    return {
        "success": False, "results": [one], "suite_name": "flights", "suite_parameters": {},
        "statistics": statistics, "meta": {"run_id": {}, "great_expectations_version": ""},
        "id": None, "met": 0,
    }  # fmt: skip


@every_value
def test_validation_page_has_the_same_tags_whatever_is_in_the_data(value):
    page, harmless = (
        Page(validation_page(validation_of(one), {f"in{one}": expectations_of(one)}))
        for one in (value, "JFK")
    )
    assert page.tags == harmless.tags
    assert not CONTROL.search(page.text)
    assert one_line(f"c{value}", 400)[:400].rstrip("…") in page.text


@every_value
def test_drift_page_has_the_same_tags_whatever_is_in_the_data(value):
    def made(name: str) -> Page:
        column = f"c{name}"
        rows = pa.table({column: [column, "b", "c"] * 50})
        content = evidently_page(
            drift_of(name, column), verdict_of(name), rows, rows, script_url="x.js"
        )
        assert content is not None
        return Page(content)

    assert made(value).tags == made("JFK").tags
    assert not CONTROL.search(made(value).text)


@every_value
def test_picture_is_drawn_whatever_is_in_the_data(value):
    from matplotlib.image import imread

    drawn = imread(io.BytesIO(picture([drift_of(value, value)], [batch_of(f"{value} refused")])))
    assert drawn.shape[1] == 1000
    assert np.ptp(drawn) > 0


# --- a terminal -----------------------------------------------------------------------------------


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    text = said.out + said.err
    assert not CONTROL.search(text)
    return text.splitlines()


@every_value
def test_table_has_a_line_a_row_and_no_command_to_the_terminal(value, capsys):
    rows = table("a", "b")
    rows.add_row(value, "x")
    rows.add_row("y", value)
    for_people(rows)
    assert len(lines_of(capsys)) == 3


@every_value
def test_nothing_said_is_a_command_to_the_terminal(value, capsys):
    for_people(value)
    aside(f"error: {value}")
    lines_of(capsys)


@every_value
def test_status_has_the_same_lines_whatever_it_says(value, capsys):
    def lines(one: str) -> list[str]:
        found = status.Status(
            model="flights", description=one, owner=one, version=1, since=AT, why=one, by=one,
            trained_from=AT, trained_until=AT, training_rows=1, run_id=None,
            adopted_from=f"models:/{one}", learned_until=AT,
            previous_version=None, promise=None, newest_batch="p", verdict=verdict_of(one),
            performance=None, unjudged=(f"c{one}",), retrain=f"i {one}", refused=(),
            unpublished=(), registry_asked=True, well=None, word=one, advice=(one,),
        )  # fmt: skip
        for_people(status.render(found))
        return lines_of(capsys)

    assert len(lines(value)) == len(lines("ada"))
