"""Loss scaling and precision as far as a CPU shows them: Paddle's own scaler and autocast are the GPU's alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from harness.errors import MachineError
from harness.machine.device import lack_of
from harness.training.mixed_precision import MixedPrecision
from harness.training.recipe import Schedule, TrainingStep, make_optimizer
from pipelines.augmentation import MEAN, STD
from pipelines.batch import Batch
from tests.support.paddle_amp import AUTO_CAST, FACTOR_PRINTED, NO_EFFECT, decorate_as_on_a_gpu, scale_as_on_a_gpu

pytestmark = pytest.mark.filterwarnings(NO_EFFECT, FACTOR_PRINTED)
# Paddle's GradScaler begins with this factor.
FIRST_FACTOR = 65536.0


def nothing(dtype: str) -> str:
    """What a device lacks that computes in every format."""
    return ""


@pytest.fixture
def autocasts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What autocast was entered with; Paddle's scaler then works here as on a GPU."""
    entered: list[dict[str, Any]] = []
    auto_cast = paddle.amp.auto_cast

    def recorded(**options: Any) -> Any:
        entered.append(options)
        return auto_cast(**options)

    monkeypatch.setattr(paddle.amp, "auto_cast", recorded)
    scale_as_on_a_gpu(monkeypatch)
    return entered


def a_step(precision: MixedPrecision, accumulation_steps: int = 1) -> tuple[nn.Layer, TrainingStep]:
    model = nn.Linear(2, 2, weight_attr=nn.initializer.Constant(0.1))
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, momentum=0.9, parameters=model.parameters())
    schedule = Schedule(0.5, 0, 1_000_000)
    return model, TrainingStep(
        model, optimizer, schedule, 0.0, (0,), accumulation_steps=accumulation_steps, precision=precision
    )


def a_batch(size: float) -> Batch:
    return Batch(paddle.full([2, 2], size) * paddle.to_tensor([[1.0, -1.0]]), paddle.to_tensor([0, 0]), 2)


def test_float32_is_neither_scaled_nor_cast(autocasts: list[dict[str, Any]]) -> None:
    precision = MixedPrecision()
    _, train = a_step(precision)
    train(a_batch(1.0), lambda: None)
    assert autocasts == []
    assert precision.state() == {}
    assert train.logits_dtype == "float32"


@pytest.mark.parametrize(("dtype", "level"), [("bfloat16", "O1"), ("bfloat16", "O2"), ("float16", "O2")])
def test_the_network_runs_at_the_level_and_in_the_format_asked_for(
    dtype: str, level: str, autocasts: list[dict[str, Any]]
) -> None:
    _, train = a_step(MixedPrecision(dtype, level, nothing))
    train(a_batch(1.0), lambda: None)
    assert autocasts == [{"level": level, "dtype": dtype}]


def test_depthwise_convolutions_are_added_to_paddle_s_list_where_asked_for(autocasts: list[dict[str, Any]]) -> None:
    _, train = a_step(MixedPrecision("bfloat16", "O1", nothing, depthwise=True))
    train(a_batch(1.0), lambda: None)
    assert autocasts == [{"level": "O1", "dtype": "bfloat16", "custom_white_list": {"depthwise_conv2d"}}]


def test_images_of_16_bits_are_converted_to_the_format_that_dali_lacks(autocasts: list[dict[str, Any]]) -> None:
    """float16 keeps all levels of a pixel apart, and bfloat16 of it is at most its last bit from that of float32."""
    mean, deviation = np.array(MEAN, np.float32), np.array(STD, np.float32)
    levels = (np.arange(256, dtype=np.float32)[:, None] / 255 - mean) / deviation
    passed = levels.astype(np.float16)
    assert all(len(np.unique(channel)) == 256 for channel in passed.T)
    images = MixedPrecision("bfloat16", "O1", nothing).images(paddle.to_tensor(passed))
    assert images.dtype == paddle.bfloat16
    converted, direct = (bits(one) for one in (images, paddle.to_tensor(levels).astype("bfloat16")))
    assert np.abs(converted - direct).max() <= 1
    for dtype in ("float32", "float16", "bfloat16"):
        batch = paddle.to_tensor(levels).astype(dtype)
        assert MixedPrecision(dtype, "O2", nothing).images(batch) is batch
    assert MixedPrecision().images(paddle.to_tensor(passed)).dtype == paddle.float16


def bits(tensor: Any) -> Any:
    """bfloat16 values as whole numbers, of which neighbours differ by 1."""
    return tensor.view("int16").numpy().astype(int)


class Scaled(nn.Layer):
    """Images times a weight, which every processor multiplies in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.create_parameter([2, 2])

    def forward(self, images: Any) -> Any:
        return images * self.weight


@pytest.mark.parametrize("master_grad", [False, True])
def test_gradients_are_converted_to_float32_where_asked_for(
    master_grad: bool, autocasts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paddle's own conversion, behind every backward pass; the next pass finds no float32 gradient in its way."""
    state = import_module(AUTO_CAST).amp_global_state()
    monkeypatch.setattr(state, "use_master_grad", False)
    monkeypatch.setattr(state, "model_parameters", [])
    model = Scaled()
    optimizer = make_optimizer(model, 0.9, 0.0)
    precision = MixedPrecision("bfloat16", "O2", nothing, master_grad=master_grad)
    with pytest.MonkeyPatch.context() as patch:
        decorate_as_on_a_gpu(patch)
        precision.prepare(model, optimizer)
    arriving: list[Any] = []
    model.weight.register_hook(lambda gradient: arriving.append(gradient.dtype))
    for _ in range(2):
        with precision.forward():
            values = model(precision.images(paddle.ones([2, 2], "float16")))
        precision.backward(values.astype("float32").sum())
        assert model.weight.grad.dtype == (paddle.float32 if master_grad else paddle.bfloat16)
        optimizer.clear_grad(set_to_zero=False)
    assert arriving == [paddle.bfloat16] * 2


def test_the_loss_is_computed_in_float32_outside_of_the_network_s_precision(
    monkeypatch: pytest.MonkeyPatch, autocasts: list[dict[str, Any]]
) -> None:
    """In bfloat16 a smoothed label of 0.9001 would be 0.8984, and a loss near 7 known to 0.03."""
    inside = [False]
    network, cross_entropy = nn.Linear(2, 2), paddle.nn.functional.cross_entropy
    given: list[tuple[str, bool]] = []

    @contextmanager
    def auto_cast(**_: Any) -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    def recorded(logits: Any, *arguments: Any, **options: Any) -> Any:
        given.append((str(logits.dtype).rpartition(".")[2], inside[0]))
        return cross_entropy(logits, *arguments, **options)

    class Half(nn.Layer):
        def forward(self, images: Any) -> Any:
            return network(images).astype("bfloat16")

    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    monkeypatch.setattr(paddle.nn.functional, "cross_entropy", recorded)
    optimizer = paddle.optimizer.Momentum(learning_rate=0.0, parameters=network.parameters())
    train = TrainingStep(
        Half(), optimizer, Schedule(0.5, 0, 9), 0.1, (0,), precision=MixedPrecision("bfloat16", "O1", nothing)
    )
    loss = train(a_batch(1.0), lambda: None)
    assert given == [("float32", False)]
    assert (str(loss.dtype), train.logits_dtype) == (str(paddle.float32), "bfloat16")


def test_a_scaled_loss_moves_the_weights_as_an_unscaled_one_does(autocasts: list[dict[str, Any]]) -> None:
    plain, by_plain = a_step(MixedPrecision())
    scaled, by_scaled = a_step(MixedPrecision("float16"))
    losses = [[float(train(a_batch(1.0), lambda: None)) for _ in range(3)] for train in (by_plain, by_scaled)]
    assert losses[0] == losses[1]
    np.testing.assert_allclose(scaled.weight.numpy(), plain.weight.numpy(), rtol=1e-6)
    assert np.abs(plain.weight.numpy() - 0.1).max() > 0.1
    assert by_scaled.overflowed == set()


def test_an_overflowing_step_is_counted_and_changes_no_weight(autocasts: list[dict[str, Any]]) -> None:
    precision = MixedPrecision("float16")
    model, train = a_step(precision)
    before = model.weight.numpy().copy()
    # Gradients are float32 here: one of 7.5e33 times 65536 is beyond its range (3.4e38), times 32768 it isn't.
    for number in (1, 2):
        train(a_batch(1.5e34), lambda: None)
        assert train.optimizer_steps == number
        assert precision.state()["scale"] == [FIRST_FACTOR / 2]
        assert np.array_equal(model.weight.numpy(), before) == (number == 1)
    assert train.overflowed == {0}


def test_the_factor_and_its_counts_continue_from_a_saved_state(autocasts: list[dict[str, Any]]) -> None:
    first = MixedPrecision("float16")
    _, train = a_step(first)
    for size in (1.5e34, 1e-3):
        train(a_batch(size), lambda: None)
    state = json.loads(json.dumps(first.state()))
    assert (state["scale"], state["incr_count"], state["use_dynamic_loss_scaling"]) == ([FIRST_FACTOR / 2], 1, True)
    second = MixedPrecision("float16")
    second.restore(state)
    assert second.state() == state
    third = MixedPrecision("float16")
    third.restore({})
    assert third.state()["scale"] == [FIRST_FACTOR]


@pytest.mark.parametrize(
    ("dtype", "level", "weights"),
    [("float32", "O2", "float32"), ("bfloat16", "O1", "float32"), ("bfloat16", "O2", "bfloat16"),
     ("float16", "O2", "float16")],
)  # fmt: skip
def test_o2_gives_the_weights_16_bits_and_keeps_float32_copies(
    dtype: str, level: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_as_on_a_gpu(monkeypatch)
    decorate_as_on_a_gpu(monkeypatch)
    model = nn.Linear(2, 2)
    optimizer = paddle.optimizer.Momentum(parameters=model.parameters())
    MixedPrecision(dtype, level, nothing).prepare(model, optimizer)
    assert model.weight.dtype == getattr(paddle, weights)
    assert optimizer._multi_precision == (weights != "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_gpu_without_the_format_is_refused(dtype: str) -> None:
    with pytest.raises(MachineError, match=rf"--amp \w\w16 needs a device that computes in {dtype} .*: no {dtype}"):
        MixedPrecision(dtype, "O1", lambda asked: f"no {asked}" if asked == dtype else "")
    MixedPrecision("float32", "O1", lambda _: "all of them")


@pytest.mark.parametrize("answer", [True, False])
def test_paddle_decides_what_the_device_computes_in(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: answer)
    assert lack_of("bfloat16") == ("" if answer else "Paddle finds that this one doesn't")


def test_no_test_asks_the_processor_what_it_computes_in() -> None:
    """tests/conftest.py holds this for the whole suite, so that it passes or fails alike on every processor."""
    with pytest.raises(AssertionError, match="set the answer instead"):
        MixedPrecision("bfloat16")


@pytest.mark.parametrize("accumulation_steps", [2, 3])
def test_accumulated_batches_are_one_update_by_their_mean(accumulation_steps: int) -> None:
    """Without batch norm and dropout, N batches of 2 are one of 2 N."""
    together, whole = a_step(MixedPrecision())
    apart, parts = a_step(MixedPrecision(), accumulation_steps)
    generator = np.random.default_rng(1)
    laps: list[int] = []
    for update in range(3):
        images = generator.normal(size=(2 * accumulation_steps, 2)).astype("float32")
        labels = generator.integers(0, 2, 2 * accumulation_steps)
        whole_loss = float(whole(Batch(paddle.to_tensor(images), paddle.to_tensor(labels), len(labels)), lambda: None))
        losses = []
        for part in range(accumulation_steps):
            assert parts.optimizer_steps == update
            rows = slice(2 * part, 2 * part + 2)
            batch = Batch(paddle.to_tensor(images[rows]), paddle.to_tensor(labels[rows]), 2)
            losses.append(float(parts(batch, partial(laps.append, update))))
        assert parts.optimizer_steps == update + 1
        assert laps.count(update) == 2 * accumulation_steps
        assert np.mean(losses) == pytest.approx(whole_loss, rel=1e-5)
        np.testing.assert_allclose(apart.weight.numpy(), together.weight.numpy(), rtol=1e-5, atol=1e-7)
