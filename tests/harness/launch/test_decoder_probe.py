"""The trial of a decoder before a run: one that works, and stand-ins in its process that fail in every way."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.launch.decoder_probe import Answer, ask_all, concluded, loads_to_try
from pipelines.dataset import open_dataset
from pipelines.settings import PipelineSettings
from tests.support.bad_files import encoded, picture

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


def request(settings: PipelineSettings, loads: Sequence[float] = (0.65,)) -> dict[str, Any]:
    photos = open_dataset("photos").train
    return {
        "root": str(photos.root),
        "paths": photos.paths[:16],
        "settings": dataclasses.asdict(settings),
        "loads": list(loads),
        "seconds": 0.0,
    }


def test_a_decoder_that_works_is_measured_in_every_environment() -> None:
    answers = ask_all(request(SETTINGS, (0.0, 0.65)), [os.environ, os.environ])
    assert [(answer.error, list(answer.rates)) for answer in answers] == [("", ["0.0", "0.65"])] * 2
    assert all(rate > 0 for answer in answers for rate in answer.rates.values())


def test_a_damaged_image_among_them_is_not_the_decoder_s_fault(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(4)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(picture(number), quality=90)[: None if number else 300])
    asked = {**request(dataclasses.replace(SETTINGS, batch_size=4)), "root": str(tmp_path), "paths": names}
    assert [answer.error for answer in ask_all(asked, [os.environ])] == [""]
    (tmp_path / "good").mkdir()
    none = {**asked, "paths": names[:1], "settings": dataclasses.asdict(dataclasses.replace(SETTINGS, batch_size=1))}
    (answer,) = ask_all(none, [os.environ])
    assert answer.error == "none of the 1 training images of a rank's shard can be used"


def test_a_gpu_s_decoder_without_a_gpu_is_an_answer_too() -> None:
    """The real trial of the real mixed decoder, which needs CUDA's driver."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    (answer,) = ask_all(request(dataclasses.replace(SETTINGS, decoder="mixed", device_id=0)), [os.environ])
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
def test_a_decoder_that_crashes_or_hangs_ends_with_its_reason(script: str, error: str) -> None:
    assert ask_all(request(SETTINGS), [os.environ], (sys.executable, "-c", script), 3.0) == [Answer(error)]


def test_a_decoder_that_fails_on_good_images_is_named_with_its_versions() -> None:
    settings = dataclasses.replace(SETTINGS, decoder="mixed", device_id=0)
    (answer,) = ask_all(request(settings), [os.environ], (sys.executable, "-c", FAILING))
    assert answer.error.startswith("the mixed decoder failed on a batch of whole images, though each of its images can")
    assert "nvImageCodec failure: '#8' (DALI " in answer.error
    found = concluded([Answer(rates={"0.65": 900.0}), answer], 640, 480)
    assert found.obstacle.startswith("GPU 1: the mixed decoder failed")
    assert found.obstacle.endswith("known: NVIDIA/nvImageCodec issue 55 reports this for regions of images")


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
    found = concluded([Answer(rates=one) for one in rates], 640, 480)
    assert (found.obstacle, found.hw_decoder_load) == ("", load)
    assert (found.width_hint, found.height_hint) == (640, 480)


def test_what_is_tried() -> None:
    assert loads_to_try(None) == (0.0, 0.65, 1.0)
    assert loads_to_try(0.25) == (0.25,)
