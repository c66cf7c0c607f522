"""What people see of a training: a line, TensorBoard, history.jsonl, the summary. Rank 0 alone."""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from configs.output_folder import make_output_folder

__all__ = ["EPOCHS", "HISTORY", "Telemetry", "clock"]

HISTORY = "history.jsonl"
EPOCHS = "epochs.jsonl"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = max(round(seconds), 0)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass
class Telemetry:
    """Writers of rank 0. Between two lines it keeps the time and rows since the last."""

    folder: Path
    total_rows: int
    """rows of the whole training, all epochs"""
    writer: SummaryWriter = field(init=False)
    since: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.monotonic)
    rows_at_start: int = -1
    rows_at_epoch: int = -1
    epoch_since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        make_output_folder(self.folder, "train.output")
        self.writer = SummaryWriter(str(self.folder / "tensorboard"))

    def step(self, values: dict[str, Any], rows: int, rows_done: int, waited: float) -> None:
        """One entry of the log: ``rows`` trained since the last by all ranks, ``waited`` s of them for data."""
        now = time.monotonic()
        took, self.since = max(now - self.since, 1e-9), now
        if self.rows_at_start < 0:
            self.rows_at_start = rows_done - rows
        values = {
            **values,
            "images_per_second": round(rows / took, 2),
            "data_wait": round(min(waited / took, 1.0), 4),
        }
        step = values["step"]
        for name, value in values.items():
            if name not in ("step", "epoch"):
                self.writer.add_scalar(f"train/{name}", value, step)
        self._append(values)
        speed = (rows_done - self.rows_at_start) / max(now - self.started, 1e-9)
        left = (self.total_rows - rows_done) / max(speed, 1e-9)
        print(
            f"epoch {values['epoch']:.2f}  step {step:,}  loss {values['loss']:.3f} "
            f"(caption {values['caption_loss']:.3f}, prompts {values['prompt_loss']:.3f})  "
            f"{values['images_per_second']:.0f} images/s, {values['data_wait']:.0%} waiting for data  ETA {clock(left)}",
            flush=True,
        )

    def epoch(self, values: dict[str, Any], rows_done: int) -> None:
        """A line of epochs.jsonl, with the rows, seconds and rate since the epoch before (or the start), all ranks'."""
        before = self.rows_at_start if self.rows_at_epoch < 0 else self.rows_at_epoch
        rows, self.rows_at_epoch = rows_done - max(before, 0), rows_done
        now = time.monotonic()
        took, self.epoch_since = max(now - self.epoch_since, 1e-9), now
        memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **values,
            "rows": rows,
            "seconds": round(took, 3),
            "rate": round(rows / took, 2),
            "memory": memory,
        }
        self._append(line, EPOCHS)

    def validation(
        self, entry: dict[str, Any], measure: str, value: float, best: bool, seconds: float
    ) -> None:
        """A validation: a line of the history, scalars ``validation/...``, a line for people."""
        for name, figure in entry["validation"].items():
            if figure is not None:
                self.writer.add_scalar(f"validation/{name}", figure, entry["step"])
        self._append(entry)
        print(
            f"validation at step {entry['step']:,}: {measure} {value:.4f}{', the best so far' if best else ''} "
            f"({clock(seconds)})",
            flush=True,
        )

    def say(self, sentences: list[str]) -> None:
        """What looks wrong, as lines that can be looked for."""
        for sentence in sentences:
            print(f"note: {sentence}", flush=True)

    def _append(self, values: dict[str, Any], name: str = HISTORY) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """uint8 (H, W, 3) into TensorBoard and as ``pictures/<name>.png``."""
        from PIL import Image

        self.writer.add_image("grouping", image, step, dataformats="HWC")
        path = self.folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json`` and print it as the last lines."""
        partial = self.folder / ".summary.json.partial"
        partial.write_text(json.dumps(summary, indent=1), encoding="utf-8")
        partial.replace(self.folder / "summary.json")
        self.writer.close()
