"""What the ranks exchange: gathered figures and averaged statistics; with one rank, nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from harness.launch.gate import TOKEN_BYTES, Gate, open_gate
from harness.plan.option_groups.training import RANK0, SYNC

FloatArray = npt.NDArray[np.float64]
# The collective library of CPUs.
GLOO = "GLOO"


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process's rank among those that train together.

    gate is where they meet before each exchange; None where the collective library has patience.
    """

    rank: int
    world_size: int
    gate: Gate | None = field(default=None, compare=False, repr=False, kw_only=True)

    def meet(self) -> None:
        """Wait for the ranks that are late, if the collective library would give up on them."""
        if self.gate is not None:
            self.gate.meet()

    def gather(self, values: FloatArray) -> FloatArray:
        """Every rank's values, on each rank: [world_size, *values.shape]; they have the same shape on all ranks.

        Their bits are sent as whole numbers, because some collective libraries round float64 to float32.
        """
        if self.world_size == 1:
            return values[np.newaxis]
        self.meet()
        received: list[Any] = []
        paddle.distributed.all_gather(received, paddle.to_tensor(values.astype(np.float64).view(np.int64)))
        return np.stack([tensor.numpy() for tensor in received]).view(np.float64)

    def barrier(self) -> None:
        """Return once every rank is here."""
        if self.world_size > 1:
            self.gather(np.zeros(1))

    def any(self, decision: bool) -> bool:
        """Whether any rank decided so, on each rank, so that none continues alone."""
        return bool(self.gather(np.array([float(decision)])).any())

    def broadcast(self, data: bytes) -> bytes:
        """Rank 0's data, on each rank."""
        if self.world_size == 1:
            return data
        size = int(self.gather(np.array([float(len(data))]))[0, 0])
        if not size:  # Paddle sends no empty tensors
            return b""
        tensor = paddle.to_tensor(np.frombuffer(data if self.rank == 0 else bytes(size), dtype=np.uint8))
        paddle.distributed.broadcast(tensor, src=0)
        return bytes(tensor.numpy().tobytes())

    def gather_bytes(self, own: bytes) -> list[bytes]:
        """Every rank's bytes, in order of rank, on each rank; for small data, as eight times its size is sent."""
        lengths = self.gather(np.array([float(len(own))]))[:, 0].astype(int)
        padded = np.zeros(max(1, int(lengths.max())))  # Paddle sends no empty tensors
        padded[: len(own)] = np.frombuffer(own, np.uint8)
        gathered = self.gather(padded).astype(np.uint8)
        return [row[:length].tobytes() for row, length in zip(gathered, lengths, strict=True)]

    def exchange(self, text: str) -> list[str]:
        """Every rank's text, in order of rank, on each rank."""
        return [gathered.decode() for gathered in self.gather_bytes(text.encode())]

    def exchange_on_node(self, text: str, ranks_per_node: int) -> list[str]:
        """The texts of this node's ranks, in order of rank, on each of them; all nodes call it."""
        first = self.rank // ranks_per_node * ranks_per_node
        return self.exchange(text)[first : first + ranks_per_node]

    def agree_on_batch_norm(self, model: nn.Layer, whose: str) -> None:
        """Give every rank the same running statistics, so that all ranks evaluate the same model.

        whose is AVERAGE (the mean of all ranks') or RANK0; with SYNC they are already the same.
        """
        if self.world_size == 1 or whose == SYNC:
            return
        buffers = [buffer for layer in model.sublayers() if isinstance(layer, nn.BatchNorm2D)
                   for buffer in (layer._mean, layer._variance)]  # fmt: skip
        flat = paddle.concat([buffer.flatten() for buffer in buffers])
        self.meet()
        if whose == RANK0:
            paddle.distributed.broadcast(flat, src=0)
        else:
            paddle.distributed.all_reduce(flat)
            flat = flat / self.world_size
        for buffer, part in zip(buffers, paddle.split(flat, [buffer.size for buffer in buffers]), strict=True):
            buffer.set_value(part.reshape(buffer.shape))

    def parallel(self, model: nn.Layer) -> nn.Layer:
        """The model, with its gradients averaged over the ranks and with rank 0's weights."""
        self.meet()
        return paddle.DataParallel(model) if self.world_size > 1 else model


def join() -> Ranks:
    """Join the other ranks that Paddle's launcher started, if there are any."""
    environment = paddle.distributed.ParallelEnv()
    ranks = Ranks(environment.rank, environment.world_size)
    if ranks.world_size == 1:
        return ranks
    paddle.distributed.init_parallel_env()
    if paddle.distributed.get_backend() != GLOO:
        return ranks
    host = environment.trainer_endpoints[0].rpartition(":")[0]
    gate = open_gate(ranks.rank, ranks.world_size, host, ranks.gather, os.urandom(TOKEN_BYTES))
    return replace(ranks, gate=gate)
