"""What differs between two runs, and whether they did the same job."""

from __future__ import annotations

import dataclasses

from harness.analysis.comparing.run_diff import Job, SettingDifference, differences, job_of, settings
from harness.plan.plan import IMAGENET
from tests.support.compared_runs import (
    ENVIRONMENT,
    PLAN,
    planned,
    record,
)


def test_runs_alike_differ_in_nothing_and_names_are_no_setting() -> None:
    a, b = record("a", 100.0), record("b", 90.0)
    b = planned(b, notes=("a note",))
    b = dataclasses.replace(b, config=dataclasses.replace(b.config, results="elsewhere", run_name="b"))
    assert differences(a, b) == []


def test_settings_are_what_was_decided() -> None:
    a = record("a", 100.0)
    flat = settings(a)
    assert flat["device"] == "cpu"  # asked for: auto
    assert flat["ranks"] == 2
    assert flat["data.augmentation.crop_area_min"] == 0.08
    assert flat["prefetch"] == 2
    assert not {"gpus", "classes", "data", "run_name", "results", "notes", "crop_area_min"} & set(flat)
    # The same batch, once given and once by default.
    b = dataclasses.replace(a, config=dataclasses.replace(a.config, batch_size=32, gpus=2))
    assert differences(a, b) == []


def test_what_differs_has_its_place_and_dotted_name() -> None:
    a = record("a", 100.0)
    b = planned(a, batch_size=64, prefetch=4, data=dataclasses.replace(PLAN.data, train_images=10))
    b = dataclasses.replace(
        b,
        profile={**a.profile, "images": 10, "page_cache": {"state": "cold"}},
        environment={
            **ENVIRONMENT,
            "platform": "Linux-6.2",
            "cpu_quota_cores": 2.0,
            "gpus": [{"index": 0, "uuid": "GPU-a", "name": "H100", "pci_bus_id": "0"}],
            "packages": {"numpy": "2.2", "paddlepaddle-gpu": "3.3.1"},
            "git": None,
            "recorded_later": 1,
        },
    )
    assert differences(a, b) == [
        SettingDifference("settings", "data.train_images", 1024, 10),
        SettingDifference("settings", "batch_size", 32, 64),
        SettingDifference("settings", "prefetch", 2, 4),
        SettingDifference("files", "page_cache.state", "warm", "cold"),
        SettingDifference("environment", "cpu_quota_cores", None, 2.0),
        SettingDifference("environment", "packages.numpy", "2.3.5", "2.2"),
        SettingDifference("environment", "packages.paddlepaddle", "3.3.1", None),
        SettingDifference("environment", "git.commit", "c0ffee", None),
        SettingDifference("environment", "git.dirty", False, None),
        SettingDifference("environment", "gpus.0.name", None, "H100"),
        SettingDifference("environment", "packages.paddlepaddle-gpu", None, "3.3.1"),
    ]


def test_where_ranks_ran_is_a_setting() -> None:
    a = record("a", 100.0)
    b = planned(a, affinity="pin", rank_cores=("0-3", "4-7"))
    assert differences(a, b) == [
        SettingDifference("settings", "affinity", "none", "pin"),
        SettingDifference("settings", "rank_cores.0", None, "0-3"),
        SettingDifference("settings", "rank_cores.1", None, "4-7"),
    ]


def test_a_job_is_what_was_trained_on_what() -> None:
    job = job_of(record("a", 100.0))
    assert job == Job("x0_25", 64, "photos", "cpu", 2, 32)
    assert job.unlike(job) == []
    published = Job("x0_25", 64, "photos", "cpu", 2, 32)
    assert job.unlike(published) == []
    others = dataclasses.replace(published, auto_augment=True, preprocessing="dali", mixed_precision="bf16-O1")
    assert published.unlike(others) == [
        "mixed precision (off, bf16-O1)", "auto augment (False, True)", "preprocessing (paddleclas, dali)"
    ]  # fmt: skip
    assert job_of(planned(record("a", 1.0), preprocessing="dali")).preprocessing == "dali"
    high = job_of(planned(record("a", 1.0), image_size="80x160", strides="height"))
    assert job.unlike(high) == ["image size (64, 80x160)", "strides (both, height)"]
    other = Job("x1_0", 64, "digits", "cpu", 4, 32)
    assert job.unlike(other) == ["model (x0_25, x1_0)", "data set (photos, digits)", "devices (2, 4)"]
    named = dataclasses.replace(IMAGENET, name="my-imagenet", source="/data")
    assert job_of(planned(record("a", 1.0), data=named)).data_set == "ILSVRC2012"
