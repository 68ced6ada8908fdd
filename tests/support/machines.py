"""Simulated machines that are described by what a person can change: cores, threads, batch, queue, images, model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.simulation import START, Simulation

# Samples of storage reads cover the simulated run with room to spare.
SAMPLED_SECONDS = 400


@dataclass(frozen=True)
class Machine:
    """A host and the job on it. Seconds are those of one core, or of one GPU for computing, for one image.

    While a rank decodes and trains with more threads than its part of the cores, both have their share of them. On a
    GPU decoding_slows_gpu is how many times as long a step takes beside decoding. step_seconds are a step's own, of a
    batch of any size; exchange_seconds those of its gradients. burst: of every ten batches, all the work lies in one.
    A JPEG engine takes the part hw_decoder_load of the images from the threads, for jpeg_engine_seconds each.
    slow_rank computes slowed times as long. With the loader "opencv" decode_threads are its workers. noise gives a
    factor on a rank's seconds by part ("decode", "compute") and number.
    """

    device: str = "cpu"
    cores: int = 2
    ranks: int = 1
    decode_threads: int = 1
    compute_threads: int = 1
    batch_size: int = 32
    accumulation_steps: int = 1
    prefetch: int = 2
    decode_seconds: float = 0.001
    compute_seconds: float = 0.003
    step_seconds: float = 0.0
    exchange_seconds: float = 0.0
    storage_seconds: float = 0.0
    burst: bool = False
    decoding_slows_gpu: float = 1.0
    jpeg_engine_seconds: float | None = None
    hw_decoder_load: float = 0.65
    slow_rank: int | None = None
    slowed: float = 1.0
    noise: Callable[[str, int, int], float] = lambda part, rank, number: 1.0
    loader: str = "dali"
    options: dict[str, Any] = field(default_factory=dict)

    def simulation(self) -> Simulation:
        """The run on it."""
        loading = "decode_threads" if self.loader == "dali" else "workers"
        options = {"loader": self.loader, loading: self.decode_threads, "compute_threads": self.compute_threads,
                   "batch_size": self.batch_size, "accumulation_steps": self.accumulation_steps,
                   "prefetch": self.prefetch, **self.options}  # fmt: skip
        rows = []
        if self.storage_seconds:
            rows = [
                {"time_unix_seconds": START + second, "device": "cpu", "storage_read_bytes": 1e9}
                for second in range(SAMPLED_SECONDS)
            ]
        return Simulation(
            decode=self._decode,
            compute=self._compute,
            exchange_seconds=self.exchange_seconds,
            ranks=self.ranks,
            device=self.device,
            beside=self._beside(),
            cores=self.cores,
            options=options,
            device_rows=rows,
        )

    def images_per_second(self, steps: int = 200) -> float:
        """Its true rate end to end, of all ranks."""
        images = self.ranks * self.batch_size * self.accumulation_steps
        return images / self.simulation().end_to_end_seconds(steps)

    def _decode(self, rank: int, batch: int) -> float:
        seconds = self.decode_seconds / min(self.decode_threads, self._cores_per_rank())
        if self.jpeg_engine_seconds is not None:
            load = self.hw_decoder_load
            seconds = max(load * self.jpeg_engine_seconds, (1 - load) * seconds)
        seconds = self.batch_size * (seconds + self.storage_seconds) * self.noise("decode", rank, batch)
        if not self.burst:
            return seconds
        return 9.1 * seconds if batch % 10 == 9 else 0.1 * seconds

    def _compute(self, rank: int, step: int) -> float:
        units = 1.0 if self.device == "gpu" else min(self.compute_threads, self._cores_per_rank())
        seconds = self.step_seconds + self.batch_size * self.compute_seconds / units
        return seconds * (self.slowed if rank == self.slow_rank else 1.0) * self.noise("compute", rank, step)

    def _beside(self) -> tuple[float, float]:
        if self.device == "gpu":
            return 1 / self.decoding_slows_gpu, 1.0
        limit = self._cores_per_rank()
        threads = min(self.decode_threads, limit) + min(self.compute_threads, limit)
        share = min(1.0, limit / threads)
        return share, share

    def _cores_per_rank(self) -> float:
        return self.cores / self.ranks
