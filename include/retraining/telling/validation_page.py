"""Makes the page about one validated batch: what came of it, and Great Expectations' Data Docs."""

from __future__ import annotations

import logging
from html import escape
from typing import Any

from include.retraining import shelf
from include.retraining.records import ValidationReport
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border: 1px solid #ccc; padding: .3em .7em; text-align: left; vertical-align: top; }
iframe { border: 1px solid #ccc; height: 90vh; width: 100%; }
.refused, .critical { color: #b00020; } .accepted { color: #1b6e2c; } .warning { color: #8a5a00; }
"""


def publish_page(spec: ModelSpec, storage: Storage, report: ValidationReport) -> str | None:
    """Make the page of a validated batch where its report says; give its key.

    A page that cannot be made is only logged, and None is given: the report stands.
    """
    key = shelf.expectations_key(spec.model, report.batch.partition)
    try:
        page = validation_page(report, storage.read_json(key))
        assert report.page_key is not None
        storage.write(report.page_key, page)
    except Exception:  # of Great Expectations, its templates or the storage
        log.warning("%s %s: no page", spec.model, report.batch.partition, exc_info=True)
        return None
    return report.page_key


def validation_page(report: ValidationReport, results: dict[str, Any]) -> bytes:
    """Render a report, and the validation result of each input that got as far as its suite.

    Parameters
    ----------
    results : dict of str to dict
        By input name, what validation kept of Great Expectations' result. Each becomes a page of
        Data Docs within the page; it may run its own scripts but touch nothing around it.
    """
    batch = report.batch
    title = f"{batch.model} {batch.partition}"
    facts = {
        "window": f"{batch.start:%Y-%m-%d %H:%M} to {batch.end:%Y-%m-%d %H:%M} UTC",
        "rows": f"{report.rows_in:,} = {report.rows_good:,} good + "
        f"{report.rows_quarantined:,} quarantined",
        "quarantine": report.quarantine_key or "nothing",
        "content": report.content_sha256,
        "suite": report.suite_sha256,
        "source section of the model file": report.source_sha256,
    }
    if report.mapping is not None:
        facts["read with a mapping"] = report.mapping.model_dump_json()
    findings = [(f.severity, f.column or "", f.expectation, f.detail) for f in report.findings]
    parts = [
        f"<h1>{escape(title)}: <span class={report.status}>{report.status}</span></h1>",
        _table((name, value) for name, value in facts.items()),
        "<h2>Findings</h2>" if findings else "<p>Every expectation was met.</p>",
        _table(findings, head=("severity", "column", "expectation", "detail")),
    ]
    for name, result in results.items():
        framed = escape(_data_docs(result), quote=True)
        shown = sum(one["success"] for one in result["results"])
        more = result.get("met", shown) - shown
        parts += [
            f"<h2>Data Docs: {escape(name)}</h2>",
            f"<p>and {more:,} more expectations that were met</p>" if more else "",
            f'<iframe sandbox="allow-scripts allow-popups" srcdoc="{framed}"></iframe>',
        ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>".encode()


def _table(rows: Any, head: tuple[str, ...] = ()) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    if head:
        lines.insert(0, "".join(f"<th>{cell}</th>" for cell in head))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _data_docs(content: dict[str, Any]) -> str:
    from great_expectations.core import expectationSuiteValidationResultSchema
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    kept = {name: value for name, value in content.items() if name != "met"}
    result = expectationSuiteValidationResultSchema.load(kept)
    return str(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result)))
