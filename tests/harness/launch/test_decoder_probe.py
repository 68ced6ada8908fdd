"""The trial of a decoder before a run: one that works, and stand-ins in its process that fail in every way."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from harness import ROOT
from harness.launch.decoder_probe import Answer, ask_all, concluded, loads_to_try, probe_decoder, request_of
from harness.machine.device import Devices
from harness.machine.nvml import Gpu
from pipelines.dataset import open_dataset
from pipelines.decoder_versions import decoder_versions
from pipelines.image_lists import ImageList, spread
from pipelines.settings import PipelineSettings
from tests.support.bad_files import encoded, picture
from tests.support.plans import a_plan

SETTINGS = PipelineSettings(batch_size=8, image_size=32, decode_threads=1, decode_region=False)
# What runs in place of the decoder, with the trial around it.
FAILING = """
import json, sys
from pipelines import decoder_trial
from pipelines.bad_image_probe import decoder_error

def rate(images, settings, seconds):
    raise decoder_error("encountered:\\nnvImageCodec failure: '#8'", settings)

decoder_trial.rate = rate
print(json.dumps(decoder_trial.answer(json.load(sys.stdin))))
"""


def request(folder: Path, settings: PipelineSettings, loads: Sequence[float] = (0.65,)) -> dict[str, Any]:
    return request_of(folder / "list", open_dataset("photos").train.part(range(16)), settings, loads, 0.0)


def test_a_decoder_that_works_is_measured_in_every_environment(tmp_path: Path) -> None:
    answers = ask_all(request(tmp_path, SETTINGS, (0.0, 0.65)), [os.environ, os.environ])
    assert [(answer.error, list(answer.rates)) for answer in answers] == [("", ["0.0", "0.65"])] * 2
    assert all(rate > 0 for answer in answers for rate in answer.rates.values())


def test_a_damaged_image_among_them_is_not_the_decoder_s_fault(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(4)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(picture(number), quality=90)[: None if number else 300])
    images = ImageList(tmp_path, names, [0] * len(names))
    asked = request_of(tmp_path / "list", images, dataclasses.replace(SETTINGS, batch_size=4), (0.65,), 0.0)
    assert [answer.error for answer in ask_all(asked, [os.environ])] == [""]
    alone = dataclasses.replace(SETTINGS, batch_size=1)
    (answer,) = ask_all(request_of(tmp_path / "bad", images.part([0]), alone, (0.65,), 0.0), [os.environ])
    assert answer.error == "none of the 1 training images can be used"


def test_a_gpu_s_decoder_without_a_gpu_is_an_answer_too(tmp_path: Path) -> None:
    """The real trial of the real mixed decoder, which needs CUDA's driver."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    (answer,) = ask_all(request(tmp_path, dataclasses.replace(SETTINGS, decoder="mixed", device_id=0)), [os.environ])
    assert answer.error.startswith("RuntimeError: ")
    assert "CUDA" in answer.error


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process was ended by SIGSEGV"),
        ("import sys; print('driver is gone', file=sys.stderr); sys.exit(4)", "its process failed: driver is gone"),
        ("import sys; sys.exit(4)", "its process failed: exit code 4"),
        ("import time; time.sleep(600)", "no answer within 3 s"),
        ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)", "no answer within 3 s"),
    ],
)
def test_a_decoder_that_crashes_or_hangs_ends_with_its_reason(script: str, error: str, tmp_path: Path) -> None:
    assert ask_all(request(tmp_path, SETTINGS), [os.environ], (sys.executable, "-c", script), 3.0) == [Answer(error)]


def test_a_decoder_that_fails_on_good_images_is_named_with_its_versions(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, decoder="mixed", device_id=0)
    (answer,) = ask_all(request(tmp_path, settings), [os.environ], (sys.executable, "-c", FAILING))
    assert answer.error.startswith("the mixed decoder failed on a batch of whole images, though each of its images can")
    assert "nvImageCodec failure: '#8' (DALI " in answer.error
    for regions in (False, True):
        found = concluded([Answer(rates={"0.65": 900.0}), answer], 640, 480, regions=regions)
        assert found.obstacle.startswith("GPU 1: the mixed decoder failed")
        assert found.obstacle.count(decoder_versions()) == 1
        assert found.obstacle.endswith("; --decode-region off") == regions


@pytest.mark.parametrize("error", ["its process was ended by SIGSEGV", "no answer within 90 s"])
def test_a_decoder_that_says_nothing_is_named_with_its_versions(error: str) -> None:
    found = concluded([Answer(error), Answer()], 640, 480, regions=True)
    known = "; known: NVIDIA/nvImageCodec issue 55 reports this for regions of images; --decode-region off"
    assert found.obstacle == f"GPU 0: {error}; {decoder_versions()}{known if 'SIGSEGV' in error else ''}"


def test_a_batch_may_be_larger_than_the_data_set(tmp_path: Path) -> None:
    """The trial decodes batches of the plan's size, with a CPU's decoder in the place of two GPUs'."""
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number), quality=90))
    images = ImageList(tmp_path, tuple(f"{number}.jpg" for number in range(5)), (0,) * 5)
    gpus = tuple(Gpu(number, f"GPU-{number}", "X", f"00000000:0{number}:00.0") for number in range(2))
    plan = a_plan(device="gpu", decoder="cpu", decode_region=False, batch_size=12, image_size=32)
    found = probe_decoder(plan, Devices("gpu", 2, "X", gpus), images, os.environ, (0.65,))
    assert (found.obstacle, list(found.rates)) == ("", ["0.65"])
    with Image.open(tmp_path / "0.jpg") as image:
        assert (found.width_hint, found.height_hint) == image.size


def test_the_images_that_are_tried_are_from_all_over_the_list() -> None:
    assert spread(1000, 4) == [0, 250, 500, 750]
    assert spread(3, 4) == [0, 1, 2]
    assert spread(0, 4) == []


INTERRUPTED = """
import os, sys
from harness.launch.decoder_probe import ask_all
trial = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
ask_all({}, [os.environ], (sys.executable, "-c", trial, sys.argv[1]))
"""


def test_ctrl_c_ends_a_trial_at_once(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(place)], cwd=ROOT, stderr=subprocess.PIPE)
    while not (place.exists() and place.read_text()):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    # The trial would have taken 90 s.
    _, complaint = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in complaint
    assert not psutil.pid_exists(int(place.read_text()))


@pytest.mark.parametrize(
    ("rates", "load"),
    [
        ([{"0.0": 100.0, "0.65": 300.0, "1.0": 200.0}], 0.65),
        ([{"0.0": 100.0, "0.65": 300.0, "1.0": 400.0}], 1.0),
        ([{"0.0": 310.0, "0.65": 300.0, "1.0": 200.0}], 0.65),  # 3 % faster
        # The slowest GPU decides.
        ([{"0.0": 400.0, "0.65": 300.0, "1.0": 500.0}, {"0.0": 390.0, "0.65": 300.0, "1.0": 100.0}], 0.0),
        ([{"0.25": 120.0}], 0.25),
        ([], 0.65),
    ],
)
def test_the_share_of_the_jpeg_engine_is_the_fastest_by_far(rates: list[dict[str, float]], load: float) -> None:
    found = concluded([Answer(rates=one) for one in rates], 640, 480, regions=False)
    assert (found.obstacle, found.hw_decoder_load) == ("", load)
    assert (found.width_hint, found.height_hint) == (640, 480)


def test_what_is_tried() -> None:
    assert loads_to_try(None) == (0.0, 0.65, 1.0)
    assert loads_to_try(0.25) == (0.25,)
