"""When to retrain: policies that are worth a look, each deciding with what was known by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import ValidationError

from include.retraining import plain_yaml
from include.retraining.errors import SpecError
from include.retraining.monitor import verdict as verdicts
from include.retraining.replay.past import Past
from include.retraining.retrain.incident import hold_after
from include.retraining.spec import ModelSpec

Family = Literal["bound", "schedule", "growth", "rule", "ours"]

FIXED_SCHEDULES = (2, 3, 4, 5, 6, 8, 10, 13)
GROWTHS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
TRIED = ("drift", "retrain")  # sections whose settings a policy alone depends on


class Policy(NamedTuple):
    """When to retrain. `decide` sees the walk so far and says whether to retrain now."""

    name: str
    family: Family
    decide: Callable[[Walk], bool]


@dataclass
class Walk:
    """One policy on its way through the past."""

    past: Past
    champion: int
    now: int
    retrained: list[int] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The window after which was last retrained, promoted or not."""
        return self.retrained[-1] if self.retrained else self.past.first


def standard_policies(
    spec: ModelSpec, tried: Sequence[str] = (), *, windows: int = 99
) -> list[Policy]:
    """Give the policies that are worth a look for any model.

    Parameters
    ----------
    spec : ModelSpec
        What the model file says is one of them.
    tried : sequence of str
        Changes of the model file, each one policy more: ``"retrain.growth=0.3"``, several settings
        apart by commas.
    windows : int
        Of the past; schedules that are longer are left out.
    """
    policies = [
        Policy("never", "bound", lambda _: False),
        Policy("after every window", "bound", lambda _: True),
        *(
            Policy(f"every {n} windows", "schedule", _every(n))
            for n in FIXED_SCHEDULES
            if n < windows
        ),
        *(Policy(f"{g:.0%} more rows", "growth", _grown(g)) for g in GROWTHS),
        Policy("any feature p < 0.05", "rule", _any_significant),
        Policy(
            "Evidently's default", "rule", lambda w: w.past.evidently_says_drift(w.champion, w.now)
        ),
        Policy("ours: the model file", "ours", _verdict(spec)),
    ]
    if spec.retrain.growth is not None:
        alone = _changed(spec, {"retrain.growth": None})
        policies.append(Policy("ours: drift and harm alone", "ours", _verdict(alone)))
    for change in tried:
        pairs = (pair.partition("=") for pair in change.split(","))
        changes = {name.strip(): value.strip() for name, _, value in pairs}
        policies.append(Policy(f"ours: {change}", "ours", _verdict(_changed(spec, changes))))
    return policies


def _every(windows: int) -> Callable[[Walk], bool]:
    def decide(walk: Walk) -> bool:
        return walk.now - walk.last >= windows

    return decide


def _grown(share: float) -> Callable[[Walk], bool]:
    def decide(walk: Walk) -> bool:
        known = walk.past.trainable(walk.last)
        return walk.past.trainable(walk.now) >= (1 + share) * known

    return decide


def _any_significant(walk: Walk) -> bool:
    report = walk.past.report(walk.champion, walk.now)
    return any(f.p_value is not None and f.p_value < 0.05 for f in report.features)


def _verdict(spec: ModelSpec) -> Callable[[Walk], bool]:
    def decide(walk: Walk) -> bool:
        windows = walk.past.windows
        learned = walk.past.trainable(walk.last)
        report = walk.past.report(walk.champion, walk.now, spec=spec).model_copy(
            update={"learned_rows": learned, "new_rows": walk.past.trainable(walk.now) - learned}
        )
        start = max(walk.past.first + 1, walk.now - spec.drift.max_history_windows)
        champions = _champions(walk)
        earlier = [walk.past.report(champions[at], at, spec=spec) for at in range(start, walk.now)]
        ends = [windows[at].batch.end for at in (walk.past.first, *walk.retrained)]
        hold = hold_after(spec, ends, report.batch)
        return verdicts.judge(spec, report, earlier=earlier, hold=hold).outcome == "retrain"

    return decide


def _champions(walk: Walk) -> dict[int, int]:
    """Give who was champion when each window up to now was judged."""
    champion, found = walk.past.first, {}
    for window in range(walk.past.first + 1, walk.now + 1):
        found[window] = champion
        if window in walk.promoted:
            champion = window
    return found


def _changed(spec: ModelSpec, changes: dict[str, Any]) -> ModelSpec:
    content = spec.model_dump(mode="json")
    for name, value in changes.items():
        section, _, setting = name.partition(".")
        if setting not in content.get(section, {}):
            raise SpecError(f"--try: no setting {name!r}; for example retrain.growth=0.3")
        if section not in TRIED:
            raise SpecError(
                f"--try: {name} says what a model is or how it is trained, and every policy here "
                "trains as the model file says; allowed: "
                f"{', '.join(f'{one}.*' for one in TRIED)}. To compare ways of training, replay a "
                "copy of the model file that has it"
            )
        try:
            content[section][setting] = plain_yaml.read(value) if isinstance(value, str) else value
        except yaml.YAMLError as error:
            raise SpecError(f"--try: {name}: {value!r} is no YAML value: {error}") from error
    try:
        return ModelSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise SpecError(f"--try: {name}: {first['msg']}, got {first['input']!r}") from error
