"""Prints the corpus as a Markdown table."""

from tests.data_corpus import table

print(table())  # noqa: T201 - its purpose
