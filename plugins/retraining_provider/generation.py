"""Makes the DAGs of one stage, one for each model; a model that goes wrong goes wrong alone."""

from __future__ import annotations

import gc
import logging
import runpy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, get_parsing_context

from include.retraining.errors import SpecError
from include.retraining.names import EventStage, Stage, dag_id
from include.retraining.spec import load_specs
from retraining_provider.defaults import task_defaults

if TYPE_CHECKING:
    from airflow.sdk import Param

    from include.retraining.spec import ModelSpec

log = logging.getLogger(__name__)


class _Trial:
    """What `failures` gathers while it runs the files of a folder one after the other."""

    def __init__(self) -> None:
        self.files = load_specs()  # once for all of them
        # model -> what was wrong -> the functions it went wrong in
        self.wrong: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(
            lambda: defaultdict(list)
        )


_trial: _Trial | None = None


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

    A model whose DAG cannot be made is logged and left out; `failures` tells of it. A task that
    reads its DAG file again gets the DAGs of its own model, and waits for no other.

    :param make_dag: gives the DAG of one model, or None if the model has no such stage.
    """
    asked = get_parsing_context().dag_id
    dags = {}
    for spec in (_trial.files if _trial else load_specs()).specs:
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
            if _trial:
                _trial.wrong[spec.model][_told(error)].append(make_dag.__name__)
            else:
                log.exception("no DAG %s for model %s", make_dag.__name__, spec.model)
        else:
            dags[dag.dag_id] = dag
    return dags


@_no_garbage()
def failures(folder: Path) -> list[SpecError]:
    """Make all DAGs of a folder, and give what is wrong with the model files, one line a model.

    It is for a file of its own: one with an import error has none of its DAGs scheduled.
    """
    global _trial  # noqa: PLW0603 - the files know `generate`, and nothing of a trial
    _trial = trial = _Trial()
    try:
        for path in sorted(folder.glob("*.py")):
            if path.stem != "model_files":
                with suppress(Exception):  # a broken file is an import error of its own
                    runpy.run_path(str(path))
    finally:
        _trial = None
    told = [SpecError(_one_line(*found)) for found in sorted(trial.wrong.items())]
    return [*trial.files.errors, *told]


def _one_line(model: str, wrong: Mapping[str, list[str]]) -> str:
    told = "; ".join(f"{reason} (in {', '.join(stages)})" for reason, stages in wrong.items())
    return f"model {_shortened(model, 40)!r}: Airflow cannot make its DAGs: {told}"


def _told(error: Exception) -> str:
    return _shortened(f"{type(error).__name__}: {' '.join(str(error).split())}", 300)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
