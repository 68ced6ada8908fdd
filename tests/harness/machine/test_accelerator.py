"""The stand-in accelerator (tests/support/standin) is a device: what Paddle does on it, and how it fails."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT
from tests.support.accelerator import Accelerator

pytestmark = pytest.mark.slow


def script(program: Callable[[], Any]) -> str:
    """The text of a program that prints what the function returns."""
    call = f"print('result:', json.dumps({program.__name__}()), flush=True)"
    return f"from __future__ import annotations\nimport json\n{inspect.getsource(program)}\n{call}\n"


def result_in(text: str) -> Any:
    lines = [line for line in text.splitlines() if line.startswith("result: ")]
    assert lines, text
    return json.loads(lines[-1].removeprefix("result: "))


def start(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


def run(program: Callable[[], Any], environment: dict[str, str]) -> Any:
    """What the function returns in another process."""
    done = start([sys.executable, "-c", script(program)], environment)
    return result_in(done.stdout + done.stderr)


def run_ranks(program: Callable[[], Any], environment: dict[str, str], folder: Path, ranks: int = 2) -> list[Any]:
    """What the function returns on each rank of a job of Paddle's launcher."""
    path = folder / "program.py"
    path.write_text(script(program), encoding="utf-8")
    devices = ",".join(str(rank) for rank in range(ranks))
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--devices", devices, "--log_dir", str(folder)]
    done = start([*launcher, str(path)], environment)
    logs = [folder / f"workerlog.{rank}" for rank in range(ranks)]
    assert all(log.exists() for log in logs), done.stdout + done.stderr
    return [result_in(log.read_text(encoding="utf-8")) for log in logs]


def training() -> Any:
    import hashlib
    import itertools
    import os

    import numpy as np
    import paddle

    from models import build
    from tests.support.accelerator import read_counters

    paddle.set_device("cpu")
    paddle.seed(0)
    state = {name: value.numpy() for name, value in build("x0_25", 10).state_dict().items()}
    random = np.random.default_rng(0)
    images = random.standard_normal((4, 3, 64, 64)).astype("float32")
    labels = random.integers(0, 10, (4,))

    def train(device: str) -> Any:
        paddle.set_device(device)
        model = build("x0_25", 10)
        model.set_state_dict(state)
        model.train()
        # What dropout leaves out is drawn by the CPU in either case.
        paddle.seed(1)
        optimizer = paddle.optimizer.Momentum(0.05, parameters=model.parameters(), weight_decay=1e-4)
        batch, target = paddle.to_tensor(images), paddle.to_tensor(labels)
        losses, counted = [], []
        for _ in range(3):
            loss = paddle.nn.functional.cross_entropy(model(batch), target)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(loss)
            counted += [read_counters(os.environ["STANDIN_COUNTERS"])] if device != "cpu" else []
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        place = str(losses[0].place)
        steps = [after - before for before, after in itertools.pairwise(counted)]
        copied = [(step.h2d, step.d2h, step.h2d_bytes, step.d2h_bytes, step.waits) for step in steps]
        return place, [float(loss).hex() for loss in losses], hashlib.sha256(weights).hexdigest(), copied

    return train("cpu"), train("standin:0")


@pytest.mark.parametrize("delay_ms", [0, 5])
def test_training_gives_what_it_gives_on_the_cpu(accelerator: Accelerator, tmp_path: Path, delay_ms: int) -> None:
    on_cpu, on_device = run(training, accelerator.environment(counters=tmp_path / "counters", delay_ms=delay_ms))
    assert on_cpu[0] == "Place(cpu)"
    assert on_device[0] == "Place(standin:0)"
    assert on_device[1:3] == on_cpu[1:3]
    # Paddle computes on the CPU, with copies there and back, each of which the host waits for: the same every step.
    second, third = on_device[3]
    assert second == third
    *copies, waits = second
    assert all(count > 100 for count in copies)
    assert waits == 0
    counted = accelerator.counters(tmp_path / "counters")
    assert counted.peak_bytes >= counted.live_bytes
    assert counted.operations >= counted.h2d + counted.d2h
    assert counted.collectives == 0


def memory() -> Any:
    import ctypes

    import numpy as np
    import paddle

    paddle.set_device("standin:0")
    values = np.arange(1, 65, dtype="float32")
    tensor = paddle.to_tensor(values)
    stored = np.ctypeslib.as_array((ctypes.c_float * 64).from_address(tensor.data_ptr()))
    seen = stored.copy()
    # A megabyte that no tensor had before.
    fresh = paddle.empty([1 << 18]).numpy()
    return {
        "copied": bool((tensor.numpy() == values).all()),
        "seen by the host": int((seen == values).sum()),
        "fresh is not a number": bool(np.isnan(fresh).all()),
    }


def test_the_host_reads_no_device_memory(accelerator: Accelerator) -> None:
    expected = {"copied": True, "seen by the host": 0, "fresh is not a number": True}
    assert run(memory, accelerator.environment()) == expected


def second_stream() -> Any:
    import ctypes
    import os

    import numpy as np
    import paddle

    from tests.support.accelerator import read_counters

    def host() -> Any:
        return paddle.to_tensor(np.arange(4096, dtype="float32"), place=paddle.CPUPlace())

    def sent(tensor: Any) -> float:
        return float(tensor.numpy()[5])

    paddle.set_device("standin:0")
    place = paddle.CustomPlace("standin", 0)
    # Before the device's default stream is there.
    stream = paddle.device.Stream("standin:0")
    paddle.zeros([1]).numpy()

    def copy(source: Any) -> Any:
        with paddle.device.stream_guard(stream):
            copied = source._copy_to(place, False)
            event = paddle.device.Event()
            event.record(stream)
        return copied, event

    before = read_counters(os.environ["STANDIN_COUNTERS"])
    source = host()
    copied, event = copy(source)
    after = read_counters(os.environ["STANDIN_COUNTERS"]) - before
    found: dict[str, Any] = {
        "copies, synchronisations": [after.h2d_queued, after.h2d, after.synchronize_stream, after.synchronize_device],
        "over at once": event.query(),
        "read at once": repr(sent(copied)),
    }
    paddle.device.current_stream().wait_event(event)
    found["waits by then"] = (read_counters(os.environ["STANDIN_COUNTERS"]) - before).waits
    found["read after the event"] = sent(copied)
    found["over then"] = event.query()

    source = host()
    copied, event = copy(source)
    ctypes.memset(source.data_ptr(), 0, 4096)
    event.synchronize()
    found["source overwritten"] = sent(copied)

    source = host()
    copied = source._copy_to(place, False)
    ctypes.memset(source.data_ptr(), 0, 4096)
    found["source overwritten, default stream"] = sent(copied)
    return found


def test_a_copy_on_a_second_stream_is_over_at_its_event_alone(accelerator: Accelerator, tmp_path: Path) -> None:
    assert run(second_stream, accelerator.environment(copy_ms=1000, counters=tmp_path / "counters")) == {
        "copies, synchronisations": [1, 1, 0, 0],
        "over at once": False,
        "read at once": "nan",
        # The reading.
        "waits by then": 1,
        "read after the event": 5.0,
        "over then": True,
        "source overwritten": 0.0,
        "source overwritten, default stream": 5.0,
    }


def test_events_that_block(accelerator: Accelerator, tmp_path: Path) -> None:
    environment = accelerator.environment(copy_ms=300, counters=tmp_path / "counters", blocking_events=1)
    found = run(second_stream, environment)
    assert found["over at once"]
    assert found["read at once"] == repr(found["read after the event"]) == "5.0"
    assert found["source overwritten"] == 5.0


def failing() -> Any:
    import paddle

    kept = []

    def fill(mebibytes: int) -> str:
        try:
            kept.append(paddle.zeros([mebibytes << 18]))
            kept[-1].numpy()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    paddle.set_device("standin:0")
    return [fill(mebibytes) for mebibytes in (1, 64, 2, 1)]


@pytest.mark.parametrize(
    ("options", "fails", "type_name", "message"),
    [
        (
            {"memory_bytes": 32 << 20},
            [False, True, False, False],
            "MemoryError",
            "Out of memory error on standin:0. Cannot allocate 64.000000MB memory on standin:0, available memory"
            " is only 31.000000MB.",
        ),
        (
            {"memory_bytes": 32 << 20, "allocation_error": 1},
            [False, True, False, False],
            "OSError",
            "CustomDevice error, the error code is : 3.",
        ),
        ({"fail": "alloc@2"}, [False, True, True, True], "MemoryError", "Out of memory error on standin:0."),
        ({"fail": "lost@3"}, [False, True, True, True], "OSError", "CustomDevice error, the error code is : 2."),
        ({"fail": "rank1:lost@3"}, [False] * 4, "", ""),
    ],
)
def test_failures_as_paddle_reports_them(
    accelerator: Accelerator, options: dict[str, Any], fails: list[bool], type_name: str, message: str
) -> None:
    caught = run(failing, accelerator.environment(**options))
    assert [bool(error) for error in caught] == fails
    assert all(error.startswith(type_name) and message in error for error in caught if error)


def hanging() -> Any:
    import json
    import os
    import threading
    import time

    import paddle

    from tests.support.accelerator import read_counters

    reached: list[str] = []

    def watch() -> None:
        time.sleep(2)
        print("result:", json.dumps([reached, read_counters(os.environ["STANDIN_COUNTERS"]).operations]), flush=True)
        os._exit(0)

    paddle.set_device("standin:0")
    # The thread runs while the other waits for the device: Paddle lets it.
    threading.Thread(target=watch).start()
    tensor = paddle.zeros([4])
    for _ in range(1000):
        tensor = tensor + 1
    reached.append("the end")


def test_a_device_that_hangs_takes_the_calling_thread_alone(accelerator: Accelerator, tmp_path: Path) -> None:
    assert run(hanging, accelerator.environment(fail="hang@40", counters=tmp_path / "counters")) == [[], 40]


def exchange() -> Any:
    import os

    import numpy as np
    import paddle
    from paddle import distributed

    distributed.init_parallel_env()
    rank = int(os.environ["PADDLE_TRAINER_ID"])
    found: dict[str, Any] = {"device": paddle.get_device()}
    for dtype in ("float32", "float64", "int32", "int64", "float16", "bfloat16", "uint8"):
        for operation in ("SUM", "MAX", "MIN", "PROD"):
            tensor = paddle.to_tensor(np.array([1, 2, 3]) * (rank + 1)).astype(dtype)
            distributed.all_reduce(tensor, op=getattr(distributed.ReduceOp, operation))
            found.setdefault(operation, []).append(tensor.astype("float64").numpy().tolist())
    # More than the ranks' shared memory holds at once.
    many = paddle.arange(2_500_000, dtype="float32") * (rank + 1)
    distributed.all_reduce(many)
    found["many"] = bool((many.numpy() == 3 * np.arange(2_500_000, dtype="float32")).all())
    sent = paddle.full([2], rank, dtype="float64")
    received: list[Any] = []
    distributed.all_gather(received, sent)
    found["all_gather"] = [tensor.numpy().tolist() for tensor in received]
    distributed.broadcast(sent, src=1)
    found["broadcast"] = sent.numpy().tolist()
    total = paddle.full([1], rank + 1.0)
    distributed.reduce(total, dst=1)
    found["reduce"] = float(total)
    part = paddle.zeros([1])
    distributed.reduce_scatter(part, [paddle.full([1], 10.0 * place + rank) for place in range(2)])
    found["reduce_scatter"] = float(part)
    layer = paddle.nn.Linear(2, 1)
    parallel = paddle.DataParallel(layer)
    parallel(paddle.full([1, 2], rank + 1.0)).sum().backward()
    found["gradient"] = layer.weight.grad.numpy().ravel().tolist()
    try:
        distributed.barrier()
        for _ in range(1000):
            distributed.all_reduce(total)
    except OSError as error:
        found["error"] = str(error)
    return found


def test_ranks_exchange_and_a_collective_fails(accelerator: Accelerator, tmp_path: Path) -> None:
    """Paddle's launcher gives the ranks their devices and the collectives, so it takes the real one."""
    environment = accelerator.environment(
        name="iluvatar_gpu", delay_ms=3, counters=tmp_path / "counters", fail="collective_error@100"
    )
    found = run_ranks(exchange, environment, tmp_path)
    for rank, rank_found in enumerate(found):
        assert rank_found.pop("device") == f"iluvatar_gpu:{rank}"
        assert rank_found.pop("reduce") == [1.0, 3.0][rank]
        assert rank_found.pop("reduce_scatter") == [1.0, 21.0][rank]
        assert "CustomDevice error, the error code is : 2." in rank_found.pop("error")
        assert rank_found == {
            "SUM": [[3, 6, 9]] * 7,
            "MAX": [[2, 4, 6]] * 7,
            "MIN": [[1, 2, 3]] * 7,
            "PROD": [[2, 8, 18]] * 7,
            "many": True,
            "all_gather": [[0.0, 0.0], [1.0, 1.0]],
            "broadcast": [1.0, 1.0],
            "gradient": [1.5, 1.5],
        }
        assert accelerator.counters(tmp_path / "counters", rank).collectives == 100


def devices() -> Any:
    import paddle

    return paddle.device.get_available_custom_device()


def test_name_and_number_of_the_devices(accelerator: Accelerator) -> None:
    environment = accelerator.environment(name="iluvatar_gpu", devices=3)
    assert run(devices, environment) == ["iluvatar_gpu:0", "iluvatar_gpu:1", "iluvatar_gpu:2"]


def test_options_that_do_not_exist_are_refused(accelerator: Accelerator) -> None:
    with pytest.raises(TypeError, match="no option sleep_ms; it has name, devices, delay_ms"):
        accelerator.environment(sleep_ms=3)
    done = start([sys.executable, "-c", script(failing)], accelerator.environment(fail="melt@3"))
    assert done.returncode == 2
    assert "stand-in accelerator: STANDIN_FAIL knows no melt" in done.stderr
