"""Where figures of a run go: a line of JSON always, and TensorBoard's event files without TensorFlow."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from asvae_jax.figures import png_bytes
from asvae_jax.files import write_whole


class MetricWriter(Protocol):
    """The part of clu's writer interface that training uses, so that a clu writer can stand in."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...
    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...
    def write_texts(self, step: int, texts: Mapping[str, str]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class JsonLinesWriter:
    """Scalars as one JSON object a line, after one with the settings that they were measured under. What a killed run
    wrote after the step that it resumes from is dropped."""

    def __init__(self, path: Path, first_step: int, settings: Mapping[str, Any]):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= first_step]
        if kept != lines:
            # A full disk or a kill shall cost no line that was to be kept.
            write_whole(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a")
        self._header: str | None = json.dumps({"step": first_step, "config": settings}) + "\n"

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._header:
            # Not before: a run that is finished already has nothing to head.
            self._file.write(self._header)
            self._header = None
        self._file.write(json.dumps({"step": step, **{name: float(value) for name, value in scalars.items()}}) + "\n")

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures have their own files."""

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts have their own files."""

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """Event files that TensorBoard reads; what an earlier process logged after `first_step` is void."""

    def __init__(self, folder: Path, first_step: int):
        # Imported here, since it takes half a second that a sampling command need not pay.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
        from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata
        from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        self._event, self._summary, self._tensor = event_pb2, summary_pb2.Summary, make_tensor_proto
        self._metadata = {
            "scalar": scalar_metadata(display_name="", description=""),
            "image": image_metadata(display_name="", description=""),
            "text": text_metadata(display_name="", description=""),
        }
        self._writer = EventFileWriter(str(folder))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=first_step + 1, session_log=start))

    def _write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        summaries = [
            self._summary.Value(tag=tag, tensor=self._tensor(value), metadata=self._metadata[kind])
            for tag, value in values.items()
        ]
        event = self._event.Event(wall_time=time.time(), step=step, summary=self._summary(value=summaries))
        self._writer.add_event(event)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._write(step, "scalar", {tag: np.float32(value) for tag, value in scalars.items()})

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images are uint8 [H, W, 3]."""
        encoded = {}
        for tag, image in images.items():
            height, width = image.shape[:2]
            encoded[tag] = np.array(
                [str(width).encode(), str(height).encode(), png_bytes(Image.fromarray(image))], object
            )
        self._write(step, "image", encoded)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._write(step, "text", {tag: np.array([text.encode()], object) for tag, text in texts.items()})

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Writers:
    """Several writers as one; none at all on processes other than the main one."""

    def __init__(self, writers: list[MetricWriter]):
        self._writers = writers

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for writer in self._writers:
            writer.write_images(step, images)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        for writer in self._writers:
            writer.write_texts(step, texts)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def _step_of(line: str) -> float:
    """The step of a record; a line that a kill cut short counts as later than all others."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")
