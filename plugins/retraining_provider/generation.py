"""Makes the DAGs of one stage, one for each model; a model that goes wrong goes wrong alone."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, get_parsing_context
from airflow.sdk.exceptions import AirflowFailException

from include.retraining.names import EventStage, Stage, dag_id
from include.retraining.spec import load_specs
from retraining_provider.defaults import SHORT, task_defaults

if TYPE_CHECKING:
    from airflow.sdk import Context, Param

    from include.retraining.spec import ModelSpec

log = logging.getLogger(__name__)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Look for none: all that is made stays, and looking was a third of the cost of 100 models."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def stage_dag(
    spec: ModelSpec, stage: Stage | EventStage, *, form: Mapping[str, Param] = {}, **arguments: Any
) -> Iterator[DAG]:
    """Open the DAG of one stage of one model; its tasks are made inside.

    :param form: what a run by hand may be given.
    :param arguments: of the DAG.
    """
    with DAG(
        dag_id(spec.model, stage),
        default_args=task_defaults(spec, stage),
        tags=["retraining", spec.model],
        auto_register=False,  # else Airflow takes a DAG that broke half way for a whole one
        **arguments,
    ) as dag:
        yield dag
    # after the tasks, each of which would get a deep copy: half of the cost of a DAG
    dag.params.update(form)


@_no_garbage()
def generate(make_dag: Callable[[ModelSpec], DAG | None]) -> dict[str, DAG]:
    """Give the DAGs of a stage by id, for ``globals().update`` in its file.

    A model whose DAG cannot be made gets one that says so and does nothing else, and the others
    have theirs. A task that reads its DAG file again gets the DAGs of its own model, and waits for
    no other.

    :param make_dag: gives the DAG of one model, or None if the model has no such stage.
    """
    asked = get_parsing_context().dag_id
    dags = {}
    for spec in load_specs().specs:
        if asked and asked.partition("__")[0] != spec.model:
            continue
        try:
            dag = make_dag(spec)
            if dag is None:
                continue
            # Airflow does this as well, but its complaint would stop every DAG of the file
            dag.validate()
            dag.check_cycle()
        except Exception as error:
            log.exception("no DAG %s for model %s", make_dag.__name__, spec.model)
            dag = _broken_dag(spec, make_dag.__name__, error)
        dags[dag.dag_id] = dag
    return dags


class BrokenModelOperator(BaseOperator):
    """Fail, and say why the DAG of a model could not be made.

    :param error: why.
    """

    ui_color = "#f4c7c3"

    def __init__(self, *, error: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def execute(self, context: Context) -> None:  # noqa: ARG002 - Airflow's signature
        """Fail."""
        raise AirflowFailException(self.error)


def _broken_dag(spec: ModelSpec, stage: str, error: Exception) -> DAG:
    """Give a DAG in place of one that cannot be made: it is there, and says what is wrong."""
    told = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
    name = f"{spec.model[:150]}__{stage}"
    with DAG(
        name,
        description=f"BROKEN: {told}"[:250],
        doc_md=f"### Broken\n\nThis DAG of `{spec.model}` could not be made:\n\n    {told}\n\n"
        "Mend the model file; the other models are not touched.",
        schedule=None,
        tags=["retraining", "broken", spec.model[:100]],
        auto_register=False,
    ) as dag:
        BrokenModelOperator(
            task_id="mend_model_file", error=told, retries=0, execution_timeout=SHORT
        )
    return dag
