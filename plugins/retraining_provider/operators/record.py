"""A step of the pipeline: a function over records, which travel between tasks as plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk import XComArg
from pydantic import BaseModel

from include.retraining.temporary import temporary_folder
from retraining_provider.context import Run

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from include.retraining.spec import ModelSpec


class RecordOperator(BaseOperator):
    """Call a function with the run and the records of the tasks before it.

    The function's first parameter is a `Run`; the others are annotated with the classes of their
    records. The record that it returns goes to XCom as JSON, anything else as it is.

    :param spec: the model.
    :param step: the function.
    :param records: its records as JSON, from XCom (templated).
    """

    template_fields: Sequence[str] = ("records",)
    ui_color = "#dfe8d4"

    def __init__(
        self,
        *,
        spec: ModelSpec,
        step: Callable[..., Any],
        records: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.step = step
        self.records = list(records)

    def execute(self, context: Context) -> Any:
        """Give what the function gives, as JSON."""
        hints = get_type_hints(self.step)
        hints.pop("return", None)
        _, *kinds = hints.values()
        records = [
            kind.model_validate(content) for kind, content in zip(kinds, self.records, strict=True)
        ]
        with temporary_folder():
            found = self.step(Run(self.spec, context), *records)
        return found.model_dump(mode="json") if isinstance(found, BaseModel) else found


def step(
    spec: ModelSpec,
    function: Callable[..., Any],
    *records: XComArg,
    links: Sequence[BaseOperatorLink] = (),
    **kwargs: Any,
) -> XComArg:
    """Add a step to the DAG at hand, named like its function; give its record, for later steps.

    :param spec: the model.
    :param function: of a `Run` and of the records.
    :param records: of the steps before it.
    :param links: buttons on the page of its task.
    """
    operator = RecordOperator(
        task_id=function.__name__,
        spec=spec,
        step=function,
        records=records,
        doc_md=function.__doc__,
        **kwargs,
    )
    operator.operator_extra_links = list(links)
    return XComArg(operator)
