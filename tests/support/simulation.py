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
from scipy.signal import lfilter

from harness.analysis.summarize import RunFigures, summarize
from harness.artifacts.bad_image import rule_of
from harness.artifacts.record import RunFiles, RunRecord, write_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter
from harness.machine.clock import HostClock
from harness.machine.device import Devices
from harness.machine.device_kinds import device_kind
from harness.machine.sampler import WindowTelemetry
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import DataFacts, RunPlan
from harness.training.loading.bad_images import BadImages
from harness.training.loop import GlobalStep
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


def parts(step: GlobalStep) -> tuple[float, float, float, float]:
    """Seconds of recording, exchange, data wait and computing."""
    return step.recording_seconds, step.exchange_seconds, step.data_wait_seconds, step.compute_seconds


class FakeTime:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds

    def spend(self, seconds: float) -> None:
        self.seconds += seconds


class Cluster:
    """Ranks in threads: who exchanges something waits for all, and continues at the latest one's time."""

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
    """Decodes batches one after another while less than `prefetch` are ready, whatever else its rank does meanwhile.

    decode gives the seconds of a batch by its number, when nothing slows it down; decoder is "cpu" or "mixed".
    """

    def __init__(
        self, time: FakeTime, decode: Seconds, prefetch: int, batch_size: int, threads: int, decoder: str
    ) -> None:
        self._decoder = decoder
        self._time, self._decode, self._prefetch = time, decode, prefetch
        self._batch_size, self._threads = batch_size, threads
        self._clock, self._ready, self._number = START, 0, 0
        self.left = decode(0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.decode()
        if not self._ready:
            self._time.spend(self.left)
            self.decode()
        self._ready -= 1
        return Batch(None, None, self._batch_size)

    @property
    def busy(self) -> bool:
        """Whether there is room for another batch."""
        return self._ready < self._prefetch

    def decode(self, speed: float = 1.0) -> None:
        """Decode in the time that has passed since the call before, at that part of the usual speed."""
        work = (self._time.seconds - self._clock) * speed
        self._clock = self._time.seconds
        # The clock itself is no finer than this.
        while self.busy and work >= self.left - 1e-9:
            work = max(work - self.left, 0.0)
            self._ready, self._number = self._ready + 1, self._number + 1
            self.left = self._decode(self._number)
        if self.busy:
            self.left -= work

    def settings(self) -> dict[str, Any]:
        on_gpu = self._decoder == "mixed"
        return {"loader": "dali", "workers": None, "decode_threads": self._threads, "prefetch": self._prefetch,
                "decoder": self._decoder, "decode_region": not on_gpu,
                "hw_decoder_load": 0.65 if on_gpu else None,
                "width_hint": 0 if on_gpu else None, "height_hint": 0 if on_gpu else None,
                "batch_size": self._batch_size, "image_size": 224, "dtype": "float32", "layout": "nchw",
                "preprocessing": "paddleclas", "antialias": False,
                "resize": "dali" if on_gpu else "fused", "auto_augment": False}  # fmt: skip


class SimulatedOpenCv(SimulatedDali):
    """The same with the settings of the other loader; threads are its workers, which each have some batches ready."""

    def settings(self) -> dict[str, Any]:
        workers = self._threads
        own = {"loader": "opencv", "workers": workers, "prefetch": self._prefetch // workers, "decode_threads": None}
        return {**super().settings(), **own, "decode_region": False, "resize": "opencv"}


class SimulatedTraining:
    """Forward, backward and optimizer of a step; the ranks meet in its gradients unless told not to.

    beside are the shares of their speeds at which training and decoding run while both do. It stands for the model,
    too.
    """

    logits_dtype, overflowed, exchanges_next = "float32", frozenset[int](), True
    conv1 = SimpleNamespace(conv=SimpleNamespace(_data_format="NCHW"), bn=None)
    forward, strides = None, "both"

    def __init__(
        self,
        rank: int,
        cluster: Cluster,
        compute: Seconds,
        exchange_seconds: float,
        dali: SimulatedDali,
        beside: tuple[float, float],
        batches: int,
    ) -> None:
        self._rank, self._cluster, self._compute, self._exchange = rank, cluster, compute, exchange_seconds
        self._dali, self._beside, self._batches = dali, beside, batches
        self._synchronised = True
        self._passes = 0
        self.schedule = Schedule(0.1, 10, 10_000_000)

    @property
    def optimizer_steps(self) -> int:
        """Steps of as many passes as a step has batches."""
        return self._passes // self._batches

    def __call__(self, batch: Batch, mark_split: Callable[[], None]) -> float:
        seconds = self._compute(self.optimizer_steps)
        self._passes += 1
        self._spend(0.25 * seconds)
        mark_split()
        self._spend(0.5 * seconds)
        if self._synchronised and len(self._cluster.times) > 1 and self._passes % self._batches == 0:
            self._cluster.exchange(self._rank, None, self._exchange)
        mark_split()
        self._spend(0.25 * seconds)
        return 2.0

    def _spend(self, work: float) -> None:
        """Compute for so many seconds' worth, slower while DALI decodes, as DALI is meanwhile."""
        time, (compute_speed, decode_speed) = self._cluster.times[self._rank], self._beside
        self._dali.decode()
        while self._dali.busy and work > 0:
            seconds = min(work / compute_speed, self._dali.left / decode_speed)
            time.spend(seconds)
            self._dali.decode(decode_speed)
            work -= seconds * compute_speed
        time.spend(max(work, 0.0))
        self._dali.decode()

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

    def read_energy(self) -> None:
        pass


# Both on one core: each has half of it while both want it.
ONE_CORE = (0.5, 0.5)


@dataclass(frozen=True)
class Simulation:
    """What is put in. decode and compute give a rank's seconds for a batch and a step by their number.

    beside are the parts of their speeds at which training and decoding run while both do; cores are the host's. other
    gives the seconds of a batch with the loader that --loader asks for as well.
    """

    decode: Callable[[int, int], float] = lambda rank, batch: 0.01
    compute: Callable[[int, int], float] = lambda rank, step: 0.1
    exchange_seconds: float = 0.0
    ranks: int = 1
    device: str = "gpu"
    beside: tuple[float, float] = (1.0, 1.0)
    cores: int = 2
    options: dict[str, Any] = field(default_factory=dict)
    device_rows: Sequence[dict[str, Any]] = ()
    other: Callable[[int, int], float] | None = None
    name: str = "simulated"

    def run(self, folder: Path) -> tuple[RunFigures, RunFiles]:
        """Measure it as `--throughput-only` does, and conclude."""
        config = self._config()
        data = DataFacts("simulated", "simulated", 100_000, 0, 10, Augmentation(), False, False)
        devices = Devices(self.device, self.ranks, "CPU" if self.device == "cpu" else "GPU")
        plan = make_plan(config, devices, data, {})
        files = RunFiles(folder, self.name)
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
            files.run,
            "running",
            config,
            plan,
            {"cores": self.cores},
            {"mean_bytes": 1e5},
            effective_settings=effective_settings,
            window_end=window_end,
        )
        write_record(files.record, record)
        return summarize(files, record), files

    def end_to_end_seconds(self, steps: int) -> float:
        """Seconds of a step of training end to end, by the simulated machine alone, without the harness."""
        config, cluster = self._config(), Cluster(self.ranks)

        def train(rank: int) -> None:
            dali, training = self._machine(rank, cluster, config)
            for _ in range(steps * config.accumulation_steps):
                training(next(dali), lambda: None)

        threads = [threading.Thread(target=train, args=(rank,), daemon=True) for rank in range(self.ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return (max(time.seconds for time in cluster.times) - START) / steps

    def _config(self) -> RunConfig:
        usual: dict[str, Any] = {"batch_size": BATCH, "compute_threads": 1}
        if self.options.get("loader") != "opencv":
            usual["decode_threads"] = 1
        return RunConfig(throughput_only=True, **{**usual, **self.options})

    def _machine(self, rank: int, cluster: Cluster, config: RunConfig) -> tuple[SimulatedDali, SimulatedTraining]:
        time = cluster.times[rank]
        assert config.batch_size is not None
        by_opencv = config.loader == "opencv"
        dali = (SimulatedOpenCv if by_opencv else SimulatedDali)(
            time,
            lambda batch: self.decode(rank, batch),
            config.prefetch * (config.workers if by_opencv else 1),
            config.batch_size,
            config.workers if by_opencv else config.decode_threads or 1,
            device_kind(self.device).decoder,
        )
        training = SimulatedTraining(
            rank,
            cluster,
            lambda step: self.compute(rank, step),
            self.exchange_seconds,
            dali,
            self.beside,
            config.accumulation_steps,
        )
        return dali, training

    def _rank(
        self, rank: int, cluster: Cluster, config: RunConfig, plan: RunPlan, files: RunFiles
    ) -> tuple[dict[str, Any], str]:
        time = cluster.times[rank]
        dali, training = self._machine(rank, cluster, config)
        ranks = SimulatedRanks(rank, self.ranks, cluster)
        other: SimulatedOpenCv | None = None
        if self.other is not None and plan.beside is not None:
            decode, ahead = self.other, plan.beside.batches_ahead
            other = SimulatedOpenCv(time, lambda batch: decode(rank, batch), ahead, BATCH, plan.beside.workers, "cpu")
        trainer = Trainer(
            plan=plan,
            ranks=ranks,
            clock=HostClock(time),
            splits={},
            settings=None,  # type: ignore[arg-type]
            model=training,
            parallel=training,
            train=training,  # type: ignore[arg-type]
            _source=dali,  # type: ignore[arg-type]
            _beside=other,  # type: ignore[arg-type]
            bad=BadImages(rule_of(plan), ranks),
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
    before = random.standard_normal() * deviation
    series, _ = lfilter([1.0], [1.0, -phi], noise, zi=[phi * before])
    made: FloatArray = series
    return made
