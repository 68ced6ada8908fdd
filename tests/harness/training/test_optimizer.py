"""One operator that updates all weights leaves the same bytes as one operator for each, on one and two ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

import models
from harness import ROOT
from harness.machine.device_kinds import CPU, GPU, device_kind
from harness.training.ranks import Ranks, join
from harness.training.recipe import Schedule, TrainingStep, decay_groups, make_optimizer
from harness.training.state import Progress, gather_state, restore_state
from pipelines.batch import Batch
from pipelines.source import SourceState
from tests.support.plans import a_plan

STEPS, BATCH, PIXELS, CLASSES = 20, 4, 32, 10
SCHEDULE = Schedule(0.1, 5, STEPS)
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from harness.training.ranks import join
from tests.harness.training.test_optimizer import trained_by_both

ranks = join()
(Path(sys.argv[2]) / f"{ranks.rank}.json").write_text(json.dumps(trained_by_both(ranks)))
"""


class OneByOne(paddle.optimizer.Momentum):
    """Updates each weight by its own operator, and sets gradients to zero."""

    def __init__(self, model: Any, momentum: float, weight_decay: float) -> None:
        super().__init__(learning_rate=0.0, momentum=momentum, parameters=decay_groups(model, weight_decay))

    def clear_grad(self, set_to_zero: bool = True) -> None:
        super().clear_grad(set_to_zero=True)


def batches(rank: int, number: int) -> list[Batch]:
    """Random images and labels, others on each rank."""
    generator = np.random.default_rng(rank)
    return [
        Batch(
            paddle.to_tensor(generator.normal(size=(BATCH, 3, PIXELS, PIXELS)).astype("float32")),
            paddle.to_tensor(generator.integers(0, CLASSES, BATCH)),
            BATCH,
        )
        for _ in range(number)
    ]


def a_step(ranks: Ranks, make: Any, accumulation_steps: int = 1) -> tuple[Any, TrainingStep]:
    """A small network, and what trains it; the same initial weights every time."""
    paddle.seed(3)
    model = models.build("x0_25", CLASSES)
    model.train()
    train = TrainingStep(
        ranks.parallel(model), make(model, 0.9, 3e-5), SCHEDULE, 0.1, (0, ranks.rank),
        accumulation_steps=accumulation_steps,
    )  # fmt: skip
    return model, train


def digest(arrays: list[Any]) -> str:
    """One digest of the arrays' bytes, which must be finite."""
    assert all(np.isfinite(array).all() for array in arrays)
    return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def trained(ranks: Ranks, make: Any, accumulation_steps: int) -> list[str]:
    """Digests of the weights and of their momentum, in the model's order, after STEPS steps."""
    model, train = a_step(ranks, make, accumulation_steps)
    for batch in batches(ranks.rank, STEPS * accumulation_steps):
        train(batch, lambda: None)
    saved = train.optimizer.state_dict()
    weights = [p for p in model.parameters() if not p.stop_gradient]
    # The names under which a checkpoint looks for them; there is nothing else.
    momentum = [saved.pop(f"{weight.name}_velocity_0").numpy() for weight in weights]
    assert saved.keys() <= {"master_weights", "LR_Scheduler"}
    return [digest([parameter.numpy() for parameter in model.parameters()]), digest(momentum)]


def trained_by_both(ranks: Ranks) -> dict[str, list[list[str]]]:
    """What our optimizer and the plain one make of the same batches, with one and with two batches a step."""
    return {
        name: [trained(ranks, make, accumulation_steps) for make in (make_optimizer, OneByOne)]
        for name, accumulation_steps in (("single", 1), ("accumulated", 2))
    }


def test_the_weights_are_the_same_to_the_bit_on_one_rank() -> None:
    found = trained_by_both(Ranks(0, 1))
    for ours, plain in found.values():
        assert ours == plain
    assert found["single"] != found["accumulated"]


def test_the_weights_are_the_same_to_the_bit_on_two_ranks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2",
         "--log_dir", str(tmp_path / "log"), str(script), str(ROOT), str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for found in (first, second):
        for ours, plain in found.values():
            assert ours == plain
    # Momentum has the exchanged gradients only; batch norm's statistics are each rank's own.
    assert [first[name][0][1] for name in first] == [second[name][0][1] for name in second]


def test_all_weights_are_updated_in_one_operator_and_gradients_let_go() -> None:
    model, train = a_step(join_alone(), make_optimizer)
    assert train.optimizer._use_multi_tensor
    (batch,) = batches(0, 1)
    gradients: list[bool] = []

    def mark_split() -> None:
        gradients.append(all(p.grad is not None for p in model.parameters() if not p.stop_gradient))

    train(batch, mark_split)
    assert gradients == [False, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def join_alone() -> Ranks:
    """The ranks of a run of one, as a rank finds them."""
    ranks = join()
    assert ranks.world_size == 1
    return ranks


@pytest.mark.parametrize("saved_by", [make_optimizer, OneByOne])
def test_a_checkpoint_of_either_optimizer_resumes_in_the_other(saved_by: Any) -> None:
    """Half of the steps by one, a checkpoint, the rest by the other: the same weights as without a checkpoint."""
    given = batches(0, STEPS)
    whole, train = a_step(Ranks(0, 1), make_optimizer)
    for batch in given:
        train(batch, lambda: None)
    resumed_by = OneByOne if saved_by is make_optimizer else make_optimizer
    first, second = (a_trainer(*a_step(Ranks(0, 1), make)) for make in (saved_by, resumed_by))
    for batch in given[: STEPS // 2]:
        first.train(batch, lambda: None)
    checkpoint = gather_state(first, Progress(), {})
    assert len([name for name in checkpoint.arrays if name.startswith("velocity/")]) == len(
        [name for name in checkpoint.arrays if name.startswith("model/")]
    )
    restore_state(second, checkpoint)
    for batch in given[STEPS // 2 :]:
        second.train(batch, lambda: None)
    for one, other in zip(whole.parameters(), second.model.parameters(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def a_trainer(model: Any, train: TrainingStep) -> Any:
    """As much of a rank as a checkpoint asks for."""
    return SimpleNamespace(
        model=model, train=train, ranks=Ranks(0, 1), source=SimpleNamespace(state=SourceState), splits={},
        settings=None, bad=SimpleNamespace(known={}), segments=0, steps={}, plan=a_plan(), effective_settings={},
        read_from=lambda _: None,
    )  # fmt: skip


def test_a_plugin_updates_weights_one_by_one() -> None:
    """It may lack the kernel, and Paddle would then compute every step's update on the host."""
    assert [kind.multi_tensor for kind in (CPU, GPU, device_kind("npu"))] == [True, True, False]
    model = models.build("x0_25", CLASSES)
    assert not make_optimizer(model, 0.9, 3e-5, multi_tensor=False)._use_multi_tensor
