"""Values that a page, a message or a terminal could take for its own language.

Each may come from data, a form or an error: the name of a column, a level, a reason, a run's id.
"""

from __future__ import annotations

HOSTILE = {
    "script": "</td></table><script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "frame": '"></iframe><iframe srcdoc="<b>x</b>">',
    "comment": "<!-- --><![CDATA[ ]]>",
    "attribute": "' onmouseover='alert(1)",
    "entity": "&lt;b&gt; &amp; &#60;",
    "cells": "a|b|c || d \\\\| e",
    "link": "[Approve here](https://evil.example) ![x](https://evil.example/x.png)",
    "autolink": "<https://evil.example>",
    "code": "`x` ``y`` ```z",
    "emphasis": "*a* **b** _c_ __d__ ~~e~~ ~f~ dep_hour",
    "heading": "x\n# All is well\n\n---\n> y",
    "lines": "late\r\n\r\nIs it well?\r\n  yes\u2028\u2029",
    "everybody": "<!channel> <!here> <@U123> <#C123> @channel",
    "slack link": "<https://evil.example|Open in Airflow>",
    "emoji": ":white_check_mark: all is well :fire:",
    "rich": "[red]x[/red] [link=https://evil.example]y[/link] [/]",
    "colours": "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07\x9b31m",
    "bell and back": "\x07\x08\x7f\x00",
    "direction": "a\u202etxt.exe\u2066b\u200ec",
    "templates": "{{ 7*7 }} ${x} $x %s {0} #{1}",
    "mathematics": "$\\frac{x}$ \\(y\\)",
    "long": "x" * 3000,
    "empty": "",
}
