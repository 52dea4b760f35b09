"""Lets the rows of a database land as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, BaseOperator

from include.retraining.temporary import temporary_folder
from retraining_provider.context import batch_of
from retraining_provider.defaults import ROWS
from retraining_provider.hooks.retraining import RetrainingHook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec


class SnapshotOperator(BaseOperator):
    """Run the model's queries over the run's window; their results land as files.

    The connection's provider has to be installed, and its hook to give an SQLAlchemy engine, as
    those of the common-sql provider do.

    :param spec: the model; ``source.connection`` and ``source.queries`` say what to read.
    """

    ui_color = "#d4e8f0"

    def __init__(self, *, spec: ModelSpec, **kwargs: Any) -> None:
        super().__init__(**{**ROWS, **kwargs})
        self.spec = spec

    def execute(self, context: Context) -> list[Any]:
        """Give a `QueryResult` of each query, as JSON."""
        from include.retraining.data.query import land_queries
        from include.retraining.storage import Storage

        storage = Storage.of(RetrainingHook().settings())
        batch = batch_of(self.spec, context)
        engine = BaseHook.get_hook(self.spec.source.connection).get_sqlalchemy_engine()
        try:
            with temporary_folder():
                found = land_queries(self.spec, storage, batch, engine)
        finally:
            engine.dispose()
        for one in found:
            self.log.info("%s: %s rows, %s", one.input, one.rows, one.sha256)
        return [one.model_dump(mode="json") for one in found]
