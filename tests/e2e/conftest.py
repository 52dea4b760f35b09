"""Prepared homes, as in the unit tests."""

from __future__ import annotations

from tests.unit.conftest import _empty_home, _make_once, _s3_server, ingested_home

__all__ = ["_empty_home", "_make_once", "_s3_server", "ingested_home"]
