"""The process in which one engine runs: it loads every size, then times one whenever it is asked to."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.latency.job import read_job
from harness.analysis.latency.kernels import CALL_MARK
from harness.latency.engines import ENGINES, Predict
from harness.latency.folder import Folder
from harness.latency.timing import LogitsCheck, time_calls
from harness.machine.placement.pinning import pin

# What it can be asked, and what it answers instead of the figures.
LOAD, TIME, PROFILE, FAILED = "load", "time", "profile", "failed"


def serve(name: str, path: str, descriptor: str) -> None:
    """Answer each line of standard input with a line of JSON to the descriptor, until there are no more.

    name is the engine's, path the measurement's folder. Whatever fails is the answer, {"failed": why}; what kills the
    process is for the one that asks to notice.
    """
    worker = Worker(name, Folder(Path(path)))
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            try:
                answer = worker.answer(json.loads(line))
            except Exception as error:
                answer = {FAILED: f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    sys.stdout.flush()
    # Libraries that are unloaded may wait for a device.
    os._exit(0)


class Worker:
    """An engine, with the sizes that it has loaded."""

    def __init__(self, name: str, folder: Folder) -> None:
        self._engine, self._folder, self._job = ENGINES[name], folder, read_job(folder.job)
        self._networks: dict[str, tuple[Predict, LogitsCheck]] = {}
        # Before any library starts threads, which inherit the cores.
        if self._job.cores:
            pin(frozenset(self._job.cores))
        self._images = np.load(folder.images)

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns the answer to a request. Raises whatever the engine raises, and OtherLogitsError."""
        size = str(asked["size"])
        if asked["do"] == LOAD:
            return self._load(size)
        predict, check = self._networks[size]
        if asked["do"] == PROFILE:
            milliseconds, error = time_calls(predict, self._images, check, 0.0, asked["calls"], before=_mark_call)
        else:
            milliseconds, error = time_calls(predict, self._images, check, asked["seconds"], asked["min_calls"])
        return {"milliseconds": [round(one, 6) for one in milliseconds], "error": error}

    def _load(self, size: str) -> dict[str, Any]:
        predict = self._engine.open(self._folder.path, size, self._job)
        check = LogitsCheck(np.load(self._folder.logits(size)), self._engine.tolerance)
        error = check(predict(self._images))
        self._networks[size] = (predict, check)
        # What is loaded stays; a look for garbage while calls are timed would be part of their time.
        gc.collect()
        gc.freeze()
        gc.disable()
        return {"error": error}


def _mark_call() -> None:
    """Write the mark to the file itself, as oneDNN does with what it prints."""
    os.write(1, f"{CALL_MARK}\n".encode())
