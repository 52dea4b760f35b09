"""Writes the cards of model versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator

from include.retraining.temporary import temporary_folder
from retraining_provider.defaults import BACKGROUND
from retraining_provider.hooks.retraining import RetrainingHook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec


class ModelCardOperator(BaseOperator):
    """Write the card of the version that a record is about, to its MLflow run and description.

    Of a champion that changed, those of the versions it took over from, too.

    A card that cannot be made is skipped after its last attempt: what it tells of stands.

    :param spec: the model.
    :param record: a `Candidate` or a `Promotion` as JSON, from XCom (templated).
    """

    template_fields: Sequence[str] = ("record",)
    ui_color = "#e8d4f0"

    def __init__(self, *, spec: ModelSpec, record: Any, **kwargs: Any) -> None:
        super().__init__(**BACKGROUND, **kwargs)
        self.spec = spec
        self.record = record

    def execute(self, context: Context) -> None:
        """Publish the cards."""
        from include.retraining.telling import model_card

        instance = context["task_instance"]
        try:
            with temporary_folder():
                settings = RetrainingHook().settings()
                model_card.publish_move(self.spec, settings, self.record["version"])
        except Exception as error:
            if instance.try_number <= (instance.max_tries or 0):
                raise
            self.log.warning("no model card", exc_info=True)
            raise AirflowSkipException(f"the card could not be made: {error}") from error
