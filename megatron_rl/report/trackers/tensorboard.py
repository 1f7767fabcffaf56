"""TensorBoard: event files, one event a step, in TensorBoard's own format; TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from megatron_rl.report.track import Tracked

PARAMETERS = "parameters"


class Place:
    """Owns an event file of a run's folder of them. A number is kept in 32 bits, as TensorBoard does."""

    def __init__(self, place: Path, tracked: Tracked) -> None:
        self.folder = place / "tensorboard" / tracked.id
        self.last, self.parameters = held(self.folder), tracked.parameters
        self.writer: EventFileWriter | None = None  # once there is something to write

    def send(self, step: int, at: float, numbers: Mapping[str, float]) -> None:
        """Adds the numbers of a step as one event, which a kill leaves whole or not at all."""
        if self.writer is None:
            self.writer = EventFileWriter(str(self.folder), flush_secs=5)
            if PARAMETERS not in self.last:
                table = [f"| {name} | {value} |" for name, value in self.parameters.items()]
                text = "\n".join(["| parameter | value |", "|---|---|", *table])
                self.writer.add_event(Event(step=0, summary=text_pb(PARAMETERS, text)))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self.writer.add_event(Event(step=step, wall_time=at, summary=Summary(value=values)))

    def close(self, *, is_finished: bool) -> str:
        """Waits until all is in the file."""
        if self.writer is not None:
            self.writer.close()
        return f"look at it with `tensorboard --logdir {self.folder.parent}`"


def held(folder: Path) -> dict[str, int]:
    """Tag -> the newest step of it in the event files of a folder."""
    last: dict[str, int] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                last[value.tag] = max(event.step, last.get(value.tag, -1))
    return last
