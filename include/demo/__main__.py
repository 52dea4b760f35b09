"""``python -m include.demo run | up | down``: what the Makefile's targets call."""

from __future__ import annotations

import argparse
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
    commands.add_parser("up", help="start the Airflow and MLflow pages on the demo's state")
    commands.add_parser("down", help="stop them")
    options = parser.parse_args(arguments)
    settings = Settings.from_env()
    try:
        if options.command == "run":
            from include.demo.replay import replay

            return replay(settings, partitions=options.partitions)
        return up(settings) if options.command == "up" else down(settings)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def up(settings: Settings) -> int:
    """Start the pages; leaves them running."""
    stack = Stack(settings)
    running = stack.note()
    if running is None:
        print("starting Airflow and MLflow ...", flush=True)
        stack.prepare()
        stack.start(mlflow_ui=True)
        running = stack.note() or {}
    print(f"Airflow  {running.get('airflow')}   login: admin / {stack.password}")
    print(f"MLflow   {running.get('mlflow')}")
    print("stop both with `make down`")
    return 0


def down(settings: Settings) -> int:
    """Stop what `up` started."""
    print("stopped" if Stack(settings).stop() else "nothing was running")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
