"""Work that takes a while: a line on the terminal says what, and no library is heard."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def work(what: str = "") -> Iterator[None]:
    """Keep third parties' warnings quiet, and show `what` with a spinner.

    The spinner is on stderr, only while it lasts, and only if that is a terminal. What a library
    prints goes there as well: stdout is for the answer.
    """
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # their deprecations are not what was asked for
        if not what:
            yield
            return
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text(what)):
            yield
