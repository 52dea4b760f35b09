"""Makes the page about one validated batch: what came of it, and Great Expectations' Data Docs.

Great Expectations says what is in its Data Docs, and this page shows it: its own view loads styles
and scripts from other servers, and takes what is in the data for HTML.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from html import escape
from string import Template
from typing import Any

from include.retraining import shelf
from include.retraining.records import ValidationReport
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.escapes import MAX_CHARACTERS, one_line

log = logging.getLogger(__name__)

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border: 1px solid #ccc; padding: .3em .7em; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
td table { margin: .4em 0; font-size: 13px; }
details { margin: 1em 0; } summary { cursor: pointer; font-weight: bold; }
.refused, .critical { color: #b00020; } .accepted { color: #1b6e2c; } .warning { color: #8a5a00; }
"""
ICONS = {"✅": "met", "❌": "not met", "❗": "error"}


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
        By input name, what validation kept of Great Expectations' result.
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
        f"<h1>{_text(title)}: <span class={report.status}>{report.status}</span></h1>",
        _table((name, value) for name, value in facts.items()),
        "<h2>Findings</h2>" if findings else "<p>Every expectation was met.</p>",
        _table(findings, head=("severity", "column", "expectation", "detail")),
    ]
    for name, result in results.items():
        shown = sum(one["success"] for one in result["results"])
        more = result.get("met", shown) - shown
        parts += [
            f"<h2>Data Docs: {_text(name)}</h2>",
            *_data_docs(result),
            f"<p>and {more:,} more expectations that were met</p>" if more else "",
        ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_text(title)}</title><style>{STYLE}</style>"
    )
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'
    return page.encode()


def _text(value: Any) -> str:
    return escape(one_line(value, 10 * MAX_CHARACTERS))


def _table(rows: Any, head: tuple[str, ...] = ()) -> str:
    return _markup_table([[_text(cell) for cell in row] for row in rows], map(_text, head))


def _markup_table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if first := "".join(f"<th>{cell}</th>" for cell in head):
        lines.insert(0, first)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


# --- Great Expectations' Data Docs ----------------------------------------------------------------


def _data_docs(content: dict[str, Any]) -> Iterator[str]:
    """Give the sections of the page that Great Expectations makes of a result, as HTML."""
    from great_expectations.core import expectationSuiteValidationResultSchema
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    kept = {name: value for name, value in content.items() if name != "met"}
    result = expectationSuiteValidationResultSchema.load(kept)
    document = ValidationResultsPageRenderer().render(result).to_json_dict()
    for section in document["sections"]:
        if section["section_name"] != "Overview":  # what the page says above
            yield from map(_block, section["content_blocks"])


def _block(block: Any) -> str:  # noqa: PLR0911 - one return per kind of block
    """Give a piece of Data Docs as HTML: a text with values in it, a table, or a list of pieces."""
    match block:
        case list():
            return " ".join(map(_block, block))
        case {"content_block_type": "string_template", "string_template": template}:
            return _text(_filled(template))
        case {"content_block_type": "header", "header": header}:
            return f"<h3>{_block(header)}</h3>"
        case {"content_block_type": "table", "table": rows}:
            cells = [[_block(cell) for cell in row] for row in rows]
            return _markup_table(cells, map(_block, block.get("header_row") or ()))
        case {"content_block_type": "collapse", "collapse": inner}:
            title = _block(block.get("collapse_toggle_link") or "more")
            return f"<details><summary>{title}</summary>{_block(inner)}</details>"
        case {"content_block_type": "bullet_list" | "value_list" as kind}:
            return _block(block[kind])
        case {"content_block_type": _}:
            return ""  # a chart
    return _text("missing" if block is None else block)


def _filled(template: dict[str, Any]) -> str:
    values = template.get("params") or {}
    if icon := values.get("markdown_status_icon"):
        return ICONS.get(str(icon), str(icon))
    return Template(str(template["template"])).safe_substitute(values)
