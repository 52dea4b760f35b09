"""Shows what people and data say as it is: no value is markup, a command or a break of a line.

Names of columns, levels, reasons, run ids and errors come from data and forms. Each place that they
are shown in has its own language, and its own function here; HTML has `html.escape`.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 500  # of one value on a page or in a table

# What reads as the character, but means nothing to Slack, which knows no escape for these.
_SLACK = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "\u02cb", "*": "\u2217", "~": "\u223c"}
_SLACK_TABLE = str.maketrans(_SLACK)
_EDGE_UNDERSCORES = re.compile(r"(?<!\w)_+|_+(?!\w)")  # within a word they mean nothing
_EMOJI = re.compile(r":(?=[\w+'-]*[^\W\d][\w+'-]*:)")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<!\w)_+|_+(?!\w)")


def visible(text: object) -> str:
    r"""Show control characters, and those that turn the direction of writing, as their code.

    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(one if _is_text(one) else ascii(one)[1:-1] for one in shown)


def _is_text(character: str) -> bool:
    return character in "\n\u200d\u200c" or unicodedata.category(character) not in {
        "Cc", "Cf", "Cs", "Zl", "Zp",
    }  # fmt: skip


def one_line(text: object, characters: int = MAX_CHARACTERS) -> str:
    r"""Show a value in one line, the end of a long one left out.

    >>> one_line("a\n\n  b")
    'a b'
    """
    line = visible(" ".join(str(text).split()))
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def slack(text: object) -> str:
    """Take from a text what Slack would take for its own markup; lines stay.

    >>> slack("<!channel> & dep_hour")
    '&lt;!channel&gt; &amp; dep_hour'
    """
    shown = _EDGE_UNDERSCORES.sub(lambda found: "\u02cd" * len(found[0]), visible(text))
    return _EMOJI.sub("\u2236", shown).translate(_SLACK_TABLE)


def markdown(text: object) -> str:
    r"""Give a value as Markdown that shows it, in one line: also in a cell of a table.

    >>> markdown("a|b <b> [x](y) dep_hour")
    'a\\|b &lt;b&gt; \\[x\\](y) dep_hour'
    """
    return _MARKDOWN.sub(_markdown_character, one_line(text))


def _markdown_character(found: re.Match[str]) -> str:
    named = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return named.get(found[0]) or "".join(f"\\{one}" for one in found[0])


def code(text: object) -> str:
    r"""Give a value as Markdown's code.

    >>> code("a`b")
    "`a'b`"
    """
    return f"`{one_line(text).replace('`', chr(39))}`"
