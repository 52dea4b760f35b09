"""The settings of a model file as a Markdown table, from the fields themselves."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from include.retraining.spec import ModelSpec


def settings_table() -> str:
    """Give one row per setting: its dotted name, its default, what it means."""
    rows = ["| setting | default | meaning |", "|---|---|---|", *_rows(ModelSpec, "")]
    return "\n".join(rows)


def _rows(section: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            rows += _rows(inner, f"{prefix}{name}.")
        else:
            meaning = field.description or ""
            rows.append(f"| `{prefix}{name}` | {_default(field)} | {meaning} |")
    return rows


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default in ((), {}, None):
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
