"""Checks of devices, ranks and pipeline: ok on this CPU and on the stand-in accelerator, and each finds its fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import ROOT
from harness.doctor import devices, pipeline, ranks
from harness.doctor.check import FAIL, OK, SKIP, Context, Finding
from harness.doctor.isolation import run_isolated
from tests.support.accelerator import Accelerator
from tests.support.broken_start import broken, module_that_fails
from tests.support.data_sets import write_colours

# Paddle may take long to load while other tests run.
LIMIT_SECONDS = 120.0
CPU = Context(device="cpu", gpus=2)
STANDIN = Context(device="standin", gpus=2)
DOCTOR = ("doctor", "all-reduce", "--device", "cpu", "--gpus", "2", "--json")


def run(check: Callable[[Context], Finding], context: Context = CPU, /, **environment: str) -> Finding:
    return run_isolated(check, context, LIMIT_SECONDS, environment={**os.environ, **environment})


def paddle_that_fails(folder: Path) -> str:
    return module_that_fails(folder, "paddle", "libcuda.so.1: cannot open shared object file")


@pytest.mark.slow
def test_on_a_cpu(tmp_path: Path) -> None:
    assert run(devices.paddle_loads).found.endswith("with cpu")
    device = run(devices.each_device)
    assert device.status == SKIP
    assert "no GPU or plugin device" in device.reason
    assert run(devices.training_step).status == OK
    assert run(pipeline.decode).status == OK
    assert run(pipeline.hand_over).found == "one address: no copy"


def test_one_rank_adds_up_nothing() -> None:
    assert run(ranks.all_reduce, Context(device="cpu", gpus=1)).status == SKIP


# In a namespace with its own host name and /etc/hosts: "$@" runs under the name $0.
UNDER_A_NAME = 'mount --bind "$HOSTS" /etc/hosts && hostname "$0" && exec "$@"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hosts"),
    [("nowhere.invalid", ""), ("moved", "203.0.113.9 moved\n")],
    ids=["no address", "the address of another machine"],
)
def test_ranks_on_a_cpu_whose_host_name_leads_nowhere(name: str, hosts: str, tmp_path: Path) -> None:
    """Case C4: through Paddle's launcher and gloo, as in a run."""
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    command = [sys.executable, str(ROOT / "run_bench.py"), *DOCTOR]
    done = subprocess.run(
        ["unshare", "--uts", "--mount", "sh", "-c", UNDER_A_NAME, name, *command],
        env={**os.environ, "HOSTS": str(tmp_path / "hosts")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr or "hostname:" in done.stderr:
        # This system makes no such namespace: then at least under its own name.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    (found,) = json.loads(done.stdout)["checks"]
    assert (found["status"], found["found"].partition(", gloo")[0]) == (OK, "3 on 2 ranks"), found


@pytest.mark.slow
def test_on_the_standin(accelerator: Accelerator) -> None:
    environment = accelerator.environment()
    assert run(devices.paddle_loads, STANDIN, **environment).found.endswith("with cpu, 2 x standin")
    device = run(devices.each_device, STANDIN, **environment)
    assert device.status == OK, device
    assert device.found.startswith("2 x standin")
    assert run(devices.training_step, STANDIN, **environment).status == OK
    summed = run(ranks.all_reduce, STANDIN, **environment)
    assert (summed.status, summed.found.partition(", xccl")[0]) == (OK, "3 on 2 ranks"), summed


def test_a_device_that_is_not_there(accelerator: Accelerator) -> None:
    found = run(devices.paddle_loads, Context(device="standin", gpus=3), **accelerator.environment())
    assert (found.status, found.reason) == (FAIL, "3 devices of type standin requested, 2 found")
    assert "--gpus 2" in found.cure


def test_paddle_that_does_not_load(tmp_path: Path) -> None:
    found = run(devices.paddle_loads, PYTHONPATH=paddle_that_fails(tmp_path))
    assert (found.status, found.found) == (FAIL, "ImportError")
    assert found.reason == "libcuda.so.1: cannot open shared object file"


def test_paddle_that_does_not_offer_the_device(accelerator: Accelerator, tmp_path: Path) -> None:
    """It offered it to the process that counted the devices, and offers none to the next one."""
    code = (
        "import sys\nif 'harness.doctor' in ' '.join(sys.orig_argv):\n"
        "    import paddle\n    paddle.device.get_available_custom_device = list"
    )
    found = run(devices.paddle_loads, STANDIN, **accelerator.environment(), PYTHONPATH=broken(tmp_path, code))
    assert found.status == FAIL
    assert found.reason == "a run would take 2 x standin, which Paddle doesn't offer"
    assert "run_check" in found.cure


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "how"),
    [({"fail": "lost@2"}, "CustomDevice error"), ({"memory_bytes": 64 * 2**20}, "emory"), ({"fail": "hang@2"}, "")],
)
def test_a_device_that_fails(accelerator: Accelerator, tmp_path: Path, failure: dict[str, Any], how: str) -> None:
    """Where it hangs, the limit is shorter than a user's."""
    code = "" if how else "import harness.doctor.devices as d\nd.DEVICE_SECONDS = 15.0"
    path = os.pathsep.join([broken(tmp_path, code), str(Path(devices.__file__).parents[2])])
    found = run(devices.each_device, STANDIN, **accelerator.environment(**failure), PYTHONPATH=path)
    assert found.status == FAIL
    assert "standin:0" in found.found
    assert "standin:1" in found.found
    assert how in found.reason
    assert "STANDIN_VISIBLE_DEVICES" in found.cure
    if not how:
        assert "no answer within" in found.found


def test_a_network_that_is_computed_wrongly(tmp_path: Path) -> None:
    code = "import paddle.nn.functional as F\nF.hardswish = F.relu6"
    found = run(devices.training_step, PYTHONPATH=broken(tmp_path, code))
    assert found.status == FAIL
    assert found.cure.startswith("make install")


@pytest.mark.parametrize(
    ("stored", "status"),
    [((2.0, 1.5, 1.0), OK), ((2.0001, 1.5, 1.0), OK), ((2.001, 1.5, 1.0), FAIL), ((2.0, 1.5, float("nan")), FAIL)],
)
def test_losses_beside_the_stored_ones(stored: tuple[float, ...], status: str) -> None:
    assert devices.judge_losses((2.0, 1.5, 1.0), 1e-4, stored).status == status
    assert devices.judge_losses((float("nan"), 1.5, 1.0), 1e-4, (2.0, 1.5, 1.0)).status == FAIL


def test_a_launcher_that_cannot_start(tmp_path: Path) -> None:
    found = run(ranks.all_reduce, PYTHONPATH=paddle_that_fails(tmp_path))
    assert (found.status, found.found) == (FAIL, "no sum from rank 0, 1")
    assert "libcuda.so.1: cannot open shared object file" in found.reason
    assert found.cure


@pytest.mark.slow
def test_a_collective_that_fails(accelerator: Accelerator) -> None:
    found = run(ranks.all_reduce, STANDIN, **accelerator.environment(fail="rank1:collective_error@1"))
    assert found.status == FAIL
    assert found.found.startswith("no sum from rank")


@pytest.mark.slow
def test_a_collective_that_hangs_names_who_waits(accelerator: Accelerator, tmp_path: Path) -> None:
    code = "import harness.doctor.ranks as r\nr.WAIT_SECONDS = 18.0"
    environment = accelerator.environment(fail="rank1:collective_hang@2")
    path = os.pathsep.join([broken(tmp_path, code), str(Path(ranks.__file__).parents[2])])
    found = run(ranks.all_reduce, STANDIN, **environment, PYTHONPATH=path)
    assert found.status == FAIL
    assert found.found.startswith("no sum within 18 s; rank ")
    assert found.found.endswith("waits for the sum")
    assert "NCCL_P2P_DISABLE=1" in found.cure


def test_sums_that_are_wrong() -> None:
    sums = [{"sum": 3.0, "seconds": 0.1}, {"sum": 2.0, "seconds": 0.1}]
    found = ranks.judge_sums(sums, 2, "gloo", "")
    assert (found.status, found.found) == (FAIL, "rank 1: 2")


def test_pixels_that_differ() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    near, far = grey + 2, grey + 3
    assert pipeline.judge_pixels(["a.jpg"], [near], [grey]).status == OK
    found = pipeline.judge_pixels(["a.jpg"], [far.astype(np.uint8)], [grey])
    assert (found.status, found.found) == (FAIL, "a.jpg: 3.0 grey levels")
    assert found.cure.startswith("make install")


def test_a_file_that_the_decoders_see_differently(tmp_path: Path) -> None:
    """Pillow leaves an image as it lies in the file, DALI turns it by its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 24)).save(tmp_path / "turned.jpg", exif=exif)
    found = pipeline.compare_decoders([tmp_path / "turned.jpg"])
    assert (found.status, found.found) == (FAIL, "turned.jpg: DALI (40, 24, 3), Pillow (24, 40, 3)")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("d.from_dlpack = lambda batch: whole(batch).clone()", "two addresses: a copy"),
        ("d.from_dlpack = lambda batch: whole(batch) + 1", "other values"),
    ],
)
def test_a_hand_over_that_copies(tmp_path: Path, code: str, found: str) -> None:
    path = broken(tmp_path, f"import paddle.utils.dlpack as d\nwhole = d.from_dlpack\n{code}")
    finding = run(pipeline.hand_over, PYTHONPATH=path)
    assert (finding.status, finding.found) == (FAIL, found)


def test_the_first_images_of_a_data_set(tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "colours")
    found = run(pipeline.data, Context(data=str(folder)))
    assert (found.status, found.found.partition(" images")[0]) == (OK, "41 of 41"), found
    broken_one = next((folder / "train").rglob("*.jpg"))
    broken_one.write_bytes(broken_one.read_bytes()[:100])
    found = run(pipeline.data, Context(data=str(folder)))
    assert (found.status, found.found) == (FAIL, "1 can't")
    assert broken_one.name in found.reason
    assert found.cure == f"python run_bench.py verify {folder}"
    assert run(pipeline.data).status == SKIP
    missing = run(pipeline.data, Context(data=str(tmp_path / "none")))
    assert missing.status == FAIL
    assert missing.reason


def test_a_builtin_set_is_not_made_where_a_run_would_make_it(tmp_path: Path) -> None:
    found = run(pipeline.data, Context(data="digits"), PPLCNET_BENCH_CACHE=str(tmp_path))
    assert found.status == OK
    assert list(tmp_path.iterdir()) == []
