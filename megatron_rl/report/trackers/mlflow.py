"""MLflow: a run of an experiment, in the store of MLFLOW_TRACKING_URI or in files."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from megatron_rl.report.metrics import METRICS
from megatron_rl.report.track import Tracked

EXPERIMENT, TAG = "megatron-rl", "megatron_rl.id"
MAX_PARAMETERS, MAX_CHARACTERS = 100, 6000  # of one call, and of one value, as MLflow takes them
Result = TypeVar("Result")


class Place:
    """Owns a run of MLflow."""

    def __init__(self, place: Path, tracked: Tracked) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or (place / "mlflow").resolve().as_uri()
        if self.uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow refuses files without
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # else it asks a server that is down for minutes
        self.client = MlflowClient(tracking_uri=self.uri)
        experiment, run = self._ask(lambda: self._found(tracked))
        self.id, self.url = run.info.run_id, f"{self.uri}, experiment {experiment}, run {run.info.run_name}"
        self._ask(lambda: self._describe(run, tracked.parameters))
        self._last = {name: self._newest(name) for name in run.data.metrics}
        self.last = {name.replace("..", "/"): step for name, step in self._last.items()}

    def send(self, step: int, at: float, numbers: Mapping[str, float]) -> None:
        """Adds the numbers of a step."""
        metrics = [Metric(stored(name), value, int(1000 * at), step) for name, value in numbers.items()]
        self._ask(lambda: self.client.log_batch(self.id, metrics=metrics))

    def close(self, *, is_finished: bool) -> str:
        """Says whether the run is over."""
        self._ask(lambda: self.client.update_run(self.id, status="FINISHED" if is_finished else "RUNNING"))
        if self.uri.startswith("file:"):
            return (
                f"look at it with `MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {self.uri}`, of the "
                "package mlflow"
            )
        return f"it is in {self.url}"

    def _found(self, tracked: Tracked) -> tuple[str, Any]:
        """The experiment's name, and the run, made unless it is there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        runs = self.client.search_runs([experiment], f"tags.`{TAG}` = '{tracked.id}'")
        tags = {TAG: tracked.id, "mlflow.runName": tracked.name}
        return name, runs[0] if runs else self.client.create_run(experiment, int(1000 * time.time()), tags)

    def _describe(self, run: Any, parameters: Mapping[str, str]) -> None:
        """Adds the parameters that are not there; MLflow changes none, as of a run that was made longer."""
        new = [Param(name, value[:MAX_CHARACTERS]) for name, value in parameters.items() if name not in run.data.params]
        for some in _in_parts(new, MAX_PARAMETERS):
            self.client.log_batch(run.info.run_id, params=some)

    def _newest(self, name: str) -> int:
        history = self._ask(lambda: self.client.get_metric_history(self.id, name))
        return int(max(one.step for one in history))

    def _ask(self, what: Callable[[], Result]) -> Result:
        try:
            return what()
        except MlflowException as error:
            raise RuntimeError(f"{self.uri}: {error}") from None


def stored(name: str) -> str:
    """The name of a number in MLflow, whose files cannot be a folder too: a domain is set off by two points.

    >>> stored("validation/accuracy"), stored("validation/accuracy/math")
    ('validation/accuracy', 'validation/accuracy..math')
    """
    base, _, domain = name.rpartition("/")
    return f"{base}..{domain}" if name not in METRICS and base in METRICS else name


def _in_parts(values: Iterable[Param], size: int) -> Iterable[list[Param]]:
    found = iter(values)
    while part := list(itertools.islice(found, size)):
        yield part
