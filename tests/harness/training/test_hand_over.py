"""Batches on their way to a device: on the stand-in accelerator, whose copies take time and read the host late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT
from harness.training.loop import STEPS_IN_FLIGHT
from tests.support.accelerator import Accelerator

HAND_OVER = ROOT / "harness" / "training" / "loading" / "hand_over.py"

# Sums of the batches as the device has them. The source's buffers are overwritten once nothing holds a batch's tensors,
# as DALI's are.
PROGRAM = """
import gc, json, sys, types, weakref
import numpy as np
import paddle
from pipelines.batch import Batch
from pipelines.source import SourceState
from pipelines.sampling import Position

module = types.ModuleType("hand_over")
exec(compile(open(sys.argv[1]).read(), "hand_over", "exec"), module.__dict__)
paddle.set_device("standin:0")

class Source:
    taken, left_out = 0, []

    def __next__(self):
        self.taken += 1
        buffer = np.full((64, 64), float(self.taken), np.float32)
        images = paddle.base.core.eager.Tensor(buffer, paddle.CPUPlace(), zero_copy=True)
        labels = paddle.to_tensor([self.taken], place=paddle.CPUPlace())
        assert images.data_ptr() == buffer.ctypes.data
        weakref.finalize(images, buffer.fill, -1.0)
        return Batch(images, labels, 64)

    def state(self, *, with_dali=True):
        return SourceState(Position(0, self.taken), dali=b"random" if with_dali else None)

    def leave_out(self, bad, since=None):
        self.left_out.append([sorted(bad), None if since is None else since.step])
        return bool(bad)

source = Source()
batches = module.HandOver(source, saves_state=bool(int(sys.argv[2])))
sums, places = [], set()
for _ in range(6):
    batch = next(batches)
    batch.arrive()
    gc.collect()
    places.add(str(batch.images.place))
    sums.append(float(batch.images.mean()))
ahead = batches.state()
saved = [ahead.position.step, (ahead.dali or b'').decode()]
batches.leave_out([])
batches.leave_out([3])
print("result:", json.dumps({
    "sums": [value if value == value else None for value in sums], "places": sorted(places), "taken": source.taken,
    "left_out": source.left_out, "saved_ahead": saved,
}))
"""


def run(accelerator: Accelerator, code: Path, *, saves_state: bool = True, **options: float) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(code), str(int(saves_state))],
        cwd=ROOT,
        env={**os.environ, **accelerator.environment(**options), "GLOG_minloglevel": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.rpartition("result:")[2])
    return result


@pytest.mark.parametrize(("saves_state", "dali"), [(True, "random"), (False, "")])
def test_batches_arrive_whole_while_the_next_one_is_copied(
    accelerator: Accelerator, saves_state: bool, dali: str
) -> None:
    found = run(accelerator, HAND_OVER, saves_state=saves_state, copy_ms=300)
    assert found["sums"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert found["places"] == ["Place(standin:0)"]
    # One batch is on its way; leaving out an image sends that one again.
    assert found["taken"] == 7
    assert found["left_out"] == [[[], 6], [[3], 6]]
    assert found["saved_ahead"] == [6, dali]


@pytest.mark.parametrize(
    ("line", "without"),
    [
        ("device.current_stream().wait_event(arrived)", "arrived.query()"),
        ("            arrived.record(self._stream)\n", ""),
        ("arrive, on_host)", "arrive)"),
    ],
)
def test_each_of_its_waits_is_needed(accelerator: Accelerator, tmp_path: Path, line: str, without: str) -> None:
    """Taken out one at a time: the wait for a copy, the event that it waits for, and the lifetime of the buffers."""
    text = HAND_OVER.read_text(encoding="utf-8")
    assert text.count(line) == 1
    (tmp_path / "mutant.py").write_text(text.replace(line, without), encoding="utf-8")
    found = run(accelerator, tmp_path / "mutant.py", copy_ms=300)
    assert found["sums"] != [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


# What the device is asked for by steps of the loop, and by the same training on a batch that it has already.
STEPS = """
import json, sys
from dataclasses import asdict
import numpy as np
import paddle
import models
from harness.machine.clock import PollingClock
from harness.training import recipe
from harness.training.loading.hand_over import HandOver
from harness.training.loop import run_steps
from harness.training.ranks import Ranks
from pipelines.batch import Batch
from pipelines.source import SourceState
from tests.support.accelerator import read_counters

paddle.set_device("standin:0")
model = models.build("x0_25", 10)
model.train()
step = recipe.TrainingStep(model, recipe.make_optimizer(model, 0.9, 0.0), recipe.Schedule(0.01, 0, 100), 0.1, (0, 1))

class Source:
    def __next__(self):
        images, labels = np.ones((4, 3, 32, 32), np.float32), np.arange(4)
        tensor = paddle.base.core.eager.Tensor
        return Batch(*(tensor(one, paddle.CPUPlace(), zero_copy=True) for one in (images, labels)), 4)

    def state(self, *, with_dali):
        return SourceState()

batches, clock = HandOver(Source(), saves_state=True), PollingClock()
batch = next(batches)
batch.arrive()
for _ in range(4):
    step(batch, clock.mark)
ran = []
before = read_counters(sys.argv[1])
for _ in range(4):
    step(batch, clock.mark)
bare = read_counters(sys.argv[1]) - before
before = read_counters(sys.argv[1])
edges = []
run_steps(batches, step, clock, Ranks(0, 1), ran.append, max_steps=4, at_edge=lambda: edges.append(len(ran)))
loop = read_counters(sys.argv[1]) - before
before = read_counters(sys.argv[1])
float(paddle.ones([]))
reading = read_counters(sys.argv[1]) - before
counted = [{**asdict(one), "waits": one.waits} for one in (bare, loop)]
print("result:", json.dumps([len(ran), len(edges) - 1, reading.waits, *counted]))
"""


def test_a_step_waits_for_nothing_and_copies_its_batch_alone(accelerator: Accelerator, tmp_path: Path) -> None:
    """The losses of a burst are read at its end, by one copy; a step or two of 4 are a burst.

    Paddle stacks them on the CPU here, with a copy of each there and of all back.
    When a batch that two later steps have followed is released, Paddle's allocator waits for the events of its two
    copies, which have passed long before.
    """
    counters = tmp_path / "counters"
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(counters)],
        cwd=ROOT,
        env={**os.environ, **accelerator.environment(counters=counters), "GLOG_minloglevel": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, bursts, reading_waits, bare, loop = json.loads(done.stdout.rpartition("result:")[2])
    # Bursts of 1, 2 and the last one.
    assert (steps, bursts) == (4, 3)
    assert (bare["waits"], bare["h2d_queued"]) == (0, 0)
    # Images and labels of each step.
    assert loop["h2d_queued"] == 2 * steps
    assert loop["h2d"] - loop["h2d_queued"] == bare["h2d"] + bursts
    assert loop["d2h"] == bare["d2h"] + steps + bursts
    assert loop["d2d"] == bare["d2d"]
    assert loop["synchronize_event"] == 2 * (steps - STEPS_IN_FLIGHT)
    assert loop["waits"] - loop["synchronize_event"] == bursts * reading_waits
