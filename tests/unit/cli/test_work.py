from __future__ import annotations

import sys
import warnings

from include.retraining.cli.work import work


def test_what_libraries_print_is_no_part_of_the_answer(capsys):
    with work("looking"):
        sys.stdout.write("View run at http://127.0.0.1\n")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    sys.stdout.write("the answer\n")
    out, err = capsys.readouterr()
    assert out == "the answer\n"
    assert err == "View run at http://127.0.0.1\n"  # and no spinner: this is no terminal
