"""Speed of parsing and of the pipeline: `python -m benchmarks.pipeline` (or `make bench`).

Prints, from one run: CPU seconds to parse 100 models beyond importing Airflow; seconds from landing
to verdict and to promotion through the real scheduler; CPU seconds per task and the share spent
importing, with and without preloading. Writes var/bench/pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from include.retraining.settings import REPOSITORY

MODELS = 100
PARSE = """
import sys, time, json
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/plugins"]
import airflow.sdk
import airflow.providers.standard.operators.hitl
import airflow.providers.standard.operators.trigger_dagrun
import include.retraining.spec as spec
from pathlib import Path
spec.load_specs.__defaults__ = (Path(sys.argv[2]),)
import runpy
seconds = {}
for path in sorted(Path(sys.argv[1], "dags").glob("*.py")):
    started = time.process_time()
    runpy.run_path(str(path))
    seconds[path.stem] = time.process_time() - started
from retraining_provider.generation import generate, stage_dag
def empty(spec):
    with stage_dag(spec, "monitor", schedule=None) as dag:
        return dag
for stage in ("score",):
    started = time.process_time()
    generate(empty)
    seconds[stage + ", to come"] = time.process_time() - started
print(json.dumps(seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=10, help="weeks of the replay")
    parser.add_argument("--parse-only", action="store_true")
    options = parser.parse_args()
    result: dict[str, object] = {"parse": bench_parse()}
    if not options.parse_only:
        result["preloaded"] = bench_pipeline(options.partitions, preload=True)
        result["not_preloaded"] = bench_pipeline(options.partitions, preload=False)
        compare(result["preloaded"], result["not_preloaded"])
    target = REPOSITORY / "var" / "bench" / "pipeline.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2))
    print(f"written to {target}")


def bench_parse() -> dict[str, float]:
    text = (REPOSITORY / "include" / "models" / "flights.yaml").read_text()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(MODELS):
            model = text.replace("model: flights", f"model: flights_{number:03d}")
            Path(folder, f"flights_{number:03d}.yaml").write_text(model)
        answer = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PARSE, str(REPOSITORY), folder],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "AIRFLOW_HOME": folder},
        )
    seconds: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    print(f"parsing {MODELS} models, CPU seconds beyond importing Airflow:")
    for stage, spent in seconds.items():
        print(f"  {stage:24s} {spent:.2f}")
    print(f"  {'all':24s} {sum(seconds.values()):.2f}  (target: below 1.5)")
    return seconds


def bench_pipeline(partitions: int, *, preload: bool) -> dict[str, object]:
    word = "with" if preload else "without"
    print(f"replay of {partitions} weeks {word} preloading ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plugins = Path(folder, "plugins")
        plugins.mkdir()
        for source in (REPOSITORY / "plugins").iterdir():
            if source.name != "__pycache__":
                Path(plugins, source.name).symlink_to(source)
        Path(plugins, "task_listener.py").symlink_to(REPOSITORY / "benchmarks" / "task_listener.py")
        notes = Path(folder, "tasks.jsonl")
        environment = {
            **os.environ,
            "RETRAINING_HOME": str(Path(folder, "home")),
            "RETRAINING_PLUGINS": str(plugins),
            "RETRAINING_PRELOAD": "1" if preload else "0",
            "BENCHMARK_TASKS": str(notes),
        }
        command = [sys.executable, "-W", "ignore", "-m", "include.demo", "run"]
        subprocess.run(
            [*command, "--partitions", str(partitions)],
            check=True,
            env=environment,
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
        )
        board = json.loads(Path(folder, "home", "scoreboard.json").read_text())
        tasks = [json.loads(line) for line in notes.read_text().splitlines()]
    by_task: dict[str, list[dict[str, float]]] = defaultdict(list)
    for task in tasks:
        by_task[f"{task['dag'].split('__')[1]}.{task['task']}"].append(task)
    print(f"  {'task':32s} {'runs':>4s} {'CPU s':>7s} {'importing':>9s}")
    medians = {}
    for name, found in sorted(by_task.items()):
        spent = statistics.median(task["cpu_s"] for task in found)
        share = statistics.median(task["import_s"] / task["cpu_s"] for task in found)
        medians[name] = {"runs": len(found), "cpu_s": spent, "import_share": share}
        print(f"  {name:32s} {len(found):4d} {spent:7.2f} {share:9.0%}")
    totals = board["totals"]
    print(f"  landing to verdict    {totals['landing_to_verdict_s']} s (median; target 10 s)")
    print(f"  landing to promotion  {totals['landing_to_promotion_s']} s (median; target 30 s)")
    return {
        "tasks": medians,
        "cpu_s": sum(task["cpu_s"] for task in tasks),
        "landing_to_verdict_s": totals["landing_to_verdict_s"],
        "landing_to_promotion_s": totals["landing_to_promotion_s"],
    }


def compare(preloaded: dict[str, float], plain: dict[str, float]) -> None:
    print("not preloaded : preloaded")
    for name, said in (
        ("cpu_s", "CPU of all tasks"),
        ("landing_to_verdict_s", "landing to verdict"),
        ("landing_to_promotion_s", "landing to promotion"),
    ):
        print(f"  {said:22s} {plain[name] / preloaded[name]:.1f} : 1")


if __name__ == "__main__":
    main()
