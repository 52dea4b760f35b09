"""A model that others trained, taken in."""

from __future__ import annotations

import datetime as dt
import getpass
from typing import Annotated

import typer

from include.retraining.cli.answer import Json, aside, for_people, for_programs
from include.retraining.cli.ledger import reason_given
from include.retraining.cli.subject import Model, model_named, moment, state_there_is
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError


def adopt_champion(
    model: Model,
    *,
    learned_until: Annotated[
        dt.datetime,
        typer.Option(
            parser=moment, metavar="TIME", show_default=False,
            help="it learned from no row from then on: what says how good it is",
        ),
    ],
    reason: Annotated[str, typer.Option(help="why, for the ledger", show_default=False)],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URI", show_default=False,
            help="as MLflow names it: models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN/PATH",
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, help="the same as --from models:/MODEL/N"
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="PARTITION", show_default=False,
            help="the newest batch to look at; default: the newest published one",
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Take in a model that others trained, and make it champion.

    Its files are copied. The rows that are published are what it is held against from now on; it
    has to reach gate.floor on the newest of them and, where there is a champion, to win the duel.
    The exit status is 1 if it does not. Loading it runs its code: the model file has to say
    training.model_format: cloudpickle.
    """
    if (source is None) == (version is None):
        raise RetrainingError("give one of --from and --version: which model is it?")
    reason_given(reason)
    spec, settings = model_named(model), state_there_is()
    where = source or f"models:/{spec.model}/{version}"
    with work(f"adopting {where} as {spec.model}"):
        from include.retraining.retrain import adoption
        from include.retraining.telling import model_card

        found = adoption.adopt(
            spec,
            settings,
            source=where,
            learned_until=learned_until,
            reason=reason,
            actor=f"{getpass.getuser()}, by the command line",
            at=dt.datetime.now(dt.UTC),
            batch=spec.batch_ref(partition) if partition else None,
        )
        number = found.decision.candidate_version
        if found.promotion is not None:
            model_card.try_publish_move(spec, settings, number)
    if as_json:
        for_programs(
            {
                "version": number,
                "passed": found.decision.passed,
                "reasons": list(found.decision.reasons),
                "ledger_sequence": found.promotion.ledger_sequence if found.promotion else None,
            }
        )
    elif found.promotion is None:
        for_people(f"{where} is version {number} of {spec.model}, and not champion:")
        for_people("\n".join(f"  {one}" for one in found.decision.reasons))
    else:
        for_people(
            f"{where} is version {number} of {spec.model}, and champion (ledger entry "
            f"{found.promotion.ledger_sequence}): {'; '.join(found.decision.reasons)}"
        )
        aside(
            "the batches so far keep their verdicts; the next one is held against it. Slack is "
            "not told"
        )
    return 0 if found.promotion else 1
