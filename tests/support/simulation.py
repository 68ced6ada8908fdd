"""A run whose truth is known: the harness's own loop, phases, tables and analysis around simulated data and devices.

Time is fake and moves only when a source or a consumer spends it, so what the harness reports can be held against what
was put in. Nothing here stands for what is under test: only DALI, Paddle and the clock are replaced.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.analysis.summarize import RunFigures, summarize
from harness.artifacts.record import RunFiles, RunRecord, write_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter
from harness.machine.device import Devices, HostClock
from harness.machine.sampler import WindowTelemetry
from harness.plan.config import RunConfig
from harness.plan.decisions import make_plan
from harness.plan.plan import DataFacts, RunPlan
from harness.training.bad_images import BadImages
from harness.training.ranks import FloatArray, Ranks
from harness.training.recipe import Schedule
from harness.training.recorder import NoRecorder, Recorder, TableRecorder
from harness.training.stop_signal import StopRequest
from harness.training.trainer import Trainer
from harness.training.worker import measure_throughput
from pipelines.augmentation import Augmentation
from pipelines.batch import Batch

BATCH = 32
START = 1000.0
Seconds = Callable[[int], float]


class FakeTime:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds

    def spend(self, seconds: float) -> None:
        self.seconds += seconds


class Cluster:
    """Ranks in threads: who exchanges something waits for all, and goes on at the latest one's time."""

    def __init__(self, ranks: int) -> None:
        self.times = [FakeTime() for _ in range(ranks)]
        self._barrier = threading.Barrier(ranks, timeout=60)
        self._values: list[Any] = [None] * ranks

    def exchange(self, rank: int, value: Any, seconds: float = 0.0) -> list[Any]:
        self._values[rank] = (value, self.times[rank].seconds)
        self._barrier.wait()
        values, times = zip(*self._values, strict=True)
        self._barrier.wait()
        self.times[rank].seconds = max(times) + seconds
        return list(values)


@dataclass(frozen=True)
class SimulatedRanks(Ranks):
    cluster: Cluster | None = None

    def gather(self, values: FloatArray) -> FloatArray:
        assert self.cluster is not None
        return np.stack(self.cluster.exchange(self.rank, values.copy()))


class SimulatedDali:
    """Decodes batches one after another, at most `prefetch` ahead of the one taken last.

    decode gives the seconds of a batch by its number. With shared cores a batch is decoded while training waits.
    """

    def __init__(self, time: FakeTime, decode: Seconds, prefetch: int, shared: bool = False) -> None:
        self._time, self._decode, self._prefetch, self._shared = time, decode, prefetch, shared
        self._taken = [START]
        self._ready = START
        self.busy_until = START

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        number = len(self._taken) - 1
        if self._shared:
            self._time.spend(self._decode(number))
        else:
            free = self._taken[max(0, len(self._taken) - self._prefetch)] if number else START
            self._ready = max(self._ready, free) + self._decode(number)
            self._time.seconds = max(self._time.seconds, self._ready)
        self._taken.append(self._time.seconds)
        # Until its queue is full again, if nobody takes another.
        self.busy_until = max(self._ready, self._time.seconds) + self._prefetch * self._decode(number)
        return Batch(None, None, BATCH)

    def settings(self) -> dict[str, Any]:
        return {"decode_threads": 1, "prefetch": self._prefetch, "hw_decoder_load": None, "batch_size": BATCH,
                "image_size": 224, "dtype": "float32", "layout": "nchw", "preprocessing": "paddleclas",
                "antialias": False,
                "auto_augment": False}  # fmt: skip


class SimulatedTraining:
    """Forward, backward and optimizer of a step; the ranks meet in its gradients unless told not to.

    It stands for the model, too.
    """

    logits_dtype, overflowed = "float32", frozenset[int]()
    conv1 = SimpleNamespace(conv=SimpleNamespace(_data_format="NCHW"), bn=None)
    forward = None

    def __init__(
        self,
        rank: int,
        cluster: Cluster,
        compute: Seconds,
        exchange_seconds: float,
        dali: SimulatedDali,
        contention: float,
    ) -> None:
        self._rank, self._cluster, self._compute, self._exchange = rank, cluster, compute, exchange_seconds
        self._dali, self._contention = dali, contention
        self._synchronised = True
        self.schedule = Schedule(0.1, 10, 10_000_000)
        self.optimizer_steps = 0

    def __call__(self, batch: Batch, mark_split: Callable[[], None]) -> float:
        time, seconds = self._cluster.times[self._rank], self._compute(self.optimizer_steps)
        self.optimizer_steps += 1
        seconds *= self._contention if time.seconds < self._dali.busy_until else 1.0
        time.spend(0.25 * seconds)
        mark_split()
        time.spend(0.5 * seconds)
        if self._synchronised and len(self._cluster.times) > 1:
            self._cluster.exchange(self._rank, None, self._exchange)
        mark_split()
        time.spend(0.25 * seconds)
        return 2.0

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        self._synchronised = False
        yield
        self._synchronised = True

    def train(self) -> None:
        """Nothing: there is no network."""

    def parameters(self) -> list[Any]:
        return [np.zeros(1, dtype=np.float32)]


class NoSampler:
    def window(self, start: float, end: float) -> WindowTelemetry:
        return WindowTelemetry()


@dataclass(frozen=True)
class Simulation:
    """What is put in. decode and compute give a rank's seconds for a batch and a step by their number.

    contention is how many times as long a step takes while DALI decodes beside it.
    """

    decode: Callable[[int, int], float] = lambda rank, batch: 0.01
    compute: Callable[[int, int], float] = lambda rank, step: 0.1
    exchange_seconds: float = 0.0
    ranks: int = 1
    device: str = "gpu"
    shared_cores: bool = False
    contention: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    device_rows: Sequence[dict[str, Any]] = ()

    def run(self, folder: Path) -> tuple[RunFigures, RunFiles]:
        """Measure it as `--throughput-only` does, and conclude."""
        config = RunConfig(throughput_only=True, batch_size=BATCH, decode_threads=1, compute_threads=1, **self.options)
        data = DataFacts("simulated", "simulated", 100_000, 0, 10, Augmentation(), False, False)
        devices = Devices(self.device, self.ranks, "CPU" if self.device == "cpu" else "GPU")
        plan = make_plan(config, devices, data, {})
        files = RunFiles(folder, "simulated")
        cluster = Cluster(self.ranks)
        threads = [
            threading.Thread(target=self._rank, args=(rank, cluster, config, plan, files), daemon=True)
            for rank in range(1, self.ranks)
        ]
        for thread in threads:
            thread.start()
        effective_settings, window_end = self._rank(0, cluster, config, plan, files)
        for thread in threads:
            thread.join(60)
        with TableWriter(files.table(DEVICES.name), DEVICES) as rows:
            for row in self.device_rows:
                rows.write(row)
        TableWriter(files.table(BAD_IMAGES.name), BAD_IMAGES).close()
        record = RunRecord(
            files.run, "running", config, plan, {}, {"mean_bytes": 1e5}, effective_settings=effective_settings,
            window_end=window_end,
        )  # fmt: skip
        write_record(files.record, record)
        return summarize(files, record), files

    def _rank(
        self, rank: int, cluster: Cluster, config: RunConfig, plan: RunPlan, files: RunFiles
    ) -> tuple[dict[str, Any], str]:
        time = cluster.times[rank]
        dali = SimulatedDali(time, lambda batch: self.decode(rank, batch), config.prefetch, self.shared_cores)
        training = SimulatedTraining(
            rank, cluster, lambda step: self.compute(rank, step), self.exchange_seconds, dali, self.contention
        )
        ranks = SimulatedRanks(rank, self.ranks, cluster)
        trainer = Trainer(
            plan=plan,
            ranks=ranks,
            clock=HostClock(time),
            dataset=None,  # type: ignore[arg-type]
            settings=None,  # type: ignore[arg-type]
            model=training,
            parallel=training,
            train=training,  # type: ignore[arg-type]
            source=dali,  # type: ignore[arg-type]
            bad=BadImages(config.bad_images, config.max_bad_images, ranks),
        )
        with contextlib.ExitStack() as stack:
            recorder: Recorder = NoRecorder()
            if rank == 0:
                steps = stack.enter_context(TableWriter(files.table(STEPS.name), STEPS))
                epochs = stack.enter_context(TableWriter(files.table(EPOCHS.name), EPOCHS))
                recorder = TableRecorder(steps, epochs, NoSampler())  # type: ignore[arg-type]
            window_end = measure_throughput(trainer, recorder, StopRequest())
        return trainer.effective_settings, window_end


def ar1(phi: float, count: int, deviation: float, seed: int) -> FloatArray:
    """A stationary AR(1) series around 0 with that standard deviation."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal(count) * deviation * np.sqrt(1 - phi**2)
    series = np.empty(count)
    value = random.standard_normal() * deviation
    for index in range(count):
        value = phi * value + noise[index]
        series[index] = value
    return series
