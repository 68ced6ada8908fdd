"""What ranks tell each other, on two real ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle

from harness import ROOT
from harness.plan.option_groups.training import AVERAGE
from harness.training.ranks import FloatArray, Ranks
from harness.training.recipe import Schedule, TrainingStep
from pipelines.batch import Batch

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import paddle
from paddle import nn
from harness.plan.option_groups.training import AVERAGE, RANK0
from harness.training.ranks import join

ranks = join()
paddle.seed(ranks.rank)
net = nn.Sequential(nn.BatchNorm2D(2), nn.Linear(3, 1), nn.BatchNorm2D(3))
for layer, start in ((net[0], 1.0), (net[2], 100.0)):
    layer._mean.set_value(np.arange(layer._mean.size, dtype="float32") + start * (ranks.rank + 1))
    layer._variance.set_value(np.full(layer._variance.size, 2.0 + 4.0 * ranks.rank, "float32"))
gathered = ranks.gather(np.array([[ranks.rank + 0.1, 2.0**60 + 256.0]]))
rank0s = nn.Sequential(nn.BatchNorm2D(2))
rank0s[0]._mean.set_value(np.full(2, 5.0 + ranks.rank, "float32"))
rank0s[0]._variance.set_value(np.full(2, 7.0 + ranks.rank, "float32"))
ranks.agree_on_batch_norm(rank0s, RANK0)
ranks.agree_on_batch_norm(net, AVERAGE)
wrapped = ranks.parallel(net)

from harness.training.recipe import Schedule, TrainingStep
from pipelines.batch import Batch
paddle.seed(7 + ranks.rank)
line = ranks.parallel(nn.Linear(4, 3))
start = line.state_dict()["weight"].tolist()
optimizer = paddle.optimizer.Momentum(learning_rate=0.0, momentum=0.9, parameters=line.parameters())
train = TrainingStep(line, optimizer, Schedule(0.5, 0, 100), label_smoothing=0.1, seed=(0,))
images = np.arange(32, dtype="float32").reshape(8, 4) / 10
labels = np.array([0, 1, 2, 0, 2, 2, 1, 0])
own = slice(4 * ranks.rank, 4 * ranks.rank + 4)
for _ in range(3):
    train(Batch(paddle.to_tensor(images[own]), paddle.to_tensor(labels[own]), 4), lambda: None)
paddle.seed(7 + ranks.rank)
added = ranks.parallel(nn.Linear(4, 3))
optimizer = paddle.optimizer.Momentum(learning_rate=0.0, momentum=0.9, parameters=added.parameters())
adding = TrainingStep(added, optimizer, Schedule(0.5, 0, 100), label_smoothing=0.1, seed=(0,), accumulation_steps=2)
between = []
for _ in range(3):
    for half in (slice(own.start, own.start + 2), slice(own.start + 2, own.stop)):
        adding(Batch(paddle.to_tensor(images[half]), paddle.to_tensor(labels[half]), 2), lambda: None)
        between.append(added.state_dict()["weight"].tolist())
told = {
    "rank0s": [rank0s[0]._mean.tolist(), rank0s[0]._variance.tolist()],
    "between": between,
    "any": [ranks.any(ranks.rank == 0), ranks.any(ranks.rank == 1), ranks.any(True), ranks.any(False)],
    "broadcast": list(ranks.broadcast(bytes([0, 255, 7, 0]) if ranks.rank == 0 else b"not this")),
    "nothing": list(ranks.broadcast(b"")),
    "bytes": [list(part) for part in ranks.gather_bytes(bytes(range(256)) if ranks.rank else b"")],
    "neither": [list(part) for part in ranks.gather_bytes(b"")],
    "texts": ranks.exchange(["", "caf\u00e9 \u30c7"][ranks.rank]),
    "ranks": [ranks.rank, ranks.world_size],
    "gathered": gathered.tolist(),
    "means": [net[0]._mean.tolist(), net[2]._mean.tolist()],
    "variances": [net[0]._variance.tolist(), net[2]._variance.tolist()],
    "weight": net[1].weight.tolist(),
    "start": start,
    "trained": line.state_dict()["weight"].tolist(),
}
with line.no_sync():
    train(Batch(paddle.to_tensor(images[own]), paddle.to_tensor(labels[own]), 4), lambda: None)
told["apart"] = line.state_dict()["weight"].tolist()
(Path(sys.argv[2]) / f"{ranks.rank}.json").write_text(json.dumps(told))
"""


def test_two_ranks_share_figures_statistics_and_weights(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2",
         "--log_dir", str(tmp_path / "log"), str(script), str(ROOT), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["ranks"], second["ranks"]) == ([0, 2], [1, 2])
    # in order of rank, and in full double precision
    assert first["gathered"] == second["gathered"] == [[[0.1, 2.0**60 + 256.0]], [[1.1, 2.0**60 + 256.0]]]
    for told in (first, second):
        assert told["means"] == [[1.5, 2.5], [150.0, 151.0, 152.0]]
        assert told["variances"] == [[4.0, 4.0], [4.0, 4.0, 4.0]]
    # One rank is enough, whichever it is.
    assert first["any"] == second["any"] == [True, True, True, False]
    assert first["broadcast"] == second["broadcast"] == [0, 255, 7, 0]
    assert first["nothing"] == second["nothing"] == []
    # of unequal lengths, every value a byte may have
    assert first["bytes"] == second["bytes"] == [[], list(range(256))]
    assert first["neither"] == second["neither"] == [[], []]
    assert first["texts"] == second["texts"] == ["", "café デ"]
    assert first["weight"] == second["weight"]
    assert first["start"] == second["start"]
    assert first["rank0s"] == second["rank0s"] == [[5.0, 5.0], [7.0, 7.0]]
    # Two batches of 2 on each rank are as one of 4, and no weight moves before the second.
    assert first["between"] == second["between"]
    assert first["between"][0] == first["start"]
    assert first["between"][1] == first["between"][2] != first["between"][3]
    np.testing.assert_allclose(first["between"][-1], first["trained"], rtol=1e-5, atol=1e-7)
    assert first["trained"] == second["trained"]
    np.testing.assert_allclose(first["trained"], trained_alone(first["start"]), rtol=1e-5, atol=1e-7)
    assert not np.allclose(first["trained"], first["start"])
    # compute_no_sync: nobody told the other its gradients
    assert not np.allclose(first["apart"], second["apart"])


def trained_alone(start: list[list[float]]) -> FloatArray:
    """The same three steps on one rank, with the batches of both joined."""
    line = paddle.nn.Linear(4, 3)
    line.weight.set_value(np.array(start, np.float32))
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, momentum=0.9, parameters=line.parameters())
    train = TrainingStep(line, optimizer, Schedule(0.5, 0, 100), label_smoothing=0.1, seed=(0,))
    images = np.arange(32, dtype=np.float32).reshape(8, 4) / 10
    labels = np.array([0, 1, 2, 0, 2, 2, 1, 0])
    for _ in range(3):
        train(Batch(paddle.to_tensor(images), paddle.to_tensor(labels), 8), lambda: None)
    weight: FloatArray = line.weight.numpy()
    return weight


def test_one_rank_has_nothing_to_share() -> None:
    ranks = Ranks(0, 1)
    assert ranks.gather(np.array([1.0, 2.0])).tolist() == [[1.0, 2.0]]
    net = paddle.nn.Sequential(paddle.nn.BatchNorm2D(2))
    ranks.agree_on_batch_norm(net, AVERAGE)
    assert ranks.parallel(net) is net
    ranks.barrier()
    assert (ranks.any(True), ranks.any(False)) == (True, False)
    assert ranks.broadcast(b"\x00\xff") == b"\x00\xff"
    assert (ranks.gather_bytes(b"\x00\xff"), ranks.gather_bytes(b"")) == ([b"\x00\xff"], [b""])
    assert ranks.exchange("café") == ["café"]


class NumberedRanks(Ranks):
    """Ranks whose texts end with their numbers."""

    def exchange(self, text: str) -> list[str]:
        return [f"{text} of rank {rank}" for rank in range(self.world_size)]


def test_a_node_s_ranks_are_those_with_the_numbers_after_its_first() -> None:
    found = [NumberedRanks(rank, 6).exchange_on_node("cores", 2) for rank in range(6)]
    assert found == [[f"cores of rank {node}", f"cores of rank {node + 1}"] for node in (0, 0, 2, 2, 4, 4)]
    assert Ranks(0, 1).exchange_on_node("0-3", 1) == ["0-3"]
