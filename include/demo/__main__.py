"""``python -m include.demo run | up | down | land``: what the Makefile's targets call."""

from __future__ import annotations

import argparse
import os
import sys

from include.demo.stack import Stack, StackError
from include.retraining.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give its exit status."""
    parser = argparse.ArgumentParser(prog="python -m include.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="replay real flights through a real Airflow, print the scoreboard"
    )
    run.add_argument("--partitions", type=int, default=None, help="how many weeks (default: 10)")
    up_ = commands.add_parser("up", help="start the Airflow and MLflow pages on the demo's state")
    up_.add_argument("--port", type=_port, help="of Airflow (default: a free one from 8080 on)")
    up_.add_argument("--mlflow-port", type=_port, help="of MLflow (default: from 5000 on)")
    commands.add_parser("down", help="stop them")
    land = commands.add_parser("land", help="deliver the first partitions of an example model")
    land.add_argument("model", choices=["churn", "flights"])
    land.add_argument("partitions", type=int, help="how many weeks")
    options = parser.parse_args(arguments)
    os.umask(0o077)  # what is written here is its owner's alone
    settings = Settings.from_env()
    try:
        if options.command == "run":
            from include.demo.replay import replay

            return replay(settings, partitions=options.partitions)
        if options.command == "land":
            return deliver(settings, options.model, options.partitions)
        if options.command == "up":
            return up(settings, port=options.port, mlflow_port=options.mlflow_port)
        return down(settings)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1024 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"must be a number from 1024 to 65535, got {text!r}")
    return int(text)


def up(settings: Settings, *, port: int | None = None, mlflow_port: int | None = None) -> int:
    """Start the pages; leaves them running."""
    stack = Stack(settings, port=port, mlflow_port=mlflow_port)
    running = stack.note()
    if running is None:
        print("starting Airflow and MLflow ...", flush=True)
        stack.prepare()
        stack.start(mlflow_ui=True)
        running = stack.note() or {}
    print(f"Airflow  {running.get('airflow')}   login: admin / {stack.password}")
    print(f"MLflow   {running.get('mlflow')}   with the same login")
    print("stop both with `make down`")
    return 0


def deliver(settings: Settings, model: str, partitions: int) -> int:
    """Land the first weeks of an example where its DAGs look for them."""
    from include.demo import churn_feed, flights_feed
    from include.retraining.spec import MODELS_DIR, load_spec
    from include.retraining.storage import Storage

    spec = load_spec(MODELS_DIR / f"{model}.yaml")
    feed = churn_feed if model == "churn" else flights_feed
    for number in range(partitions):
        start = spec.partitions.first + number * spec.partitions.length
        batch = spec.batch_ref(spec.partition_key(start))
        feed.land(Storage.of(settings), batch)
        if feed is flights_feed:
            flights_feed.push_weather(spec, settings, batch)
    print(f"{partitions} weeks of {model} landed below {settings.storage_url}/landing")
    return 0


def down(settings: Settings) -> int:
    """Stop what `up` started."""
    print("stopped" if Stack(settings).stop() else "nothing was running")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
