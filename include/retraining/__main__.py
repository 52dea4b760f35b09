"""Runs the command line: ``python -m include.retraining --help``."""

from __future__ import annotations

from include.retraining.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
