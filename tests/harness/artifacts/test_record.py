from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.analysis.comparing.run_diff import differences
from harness.artifacts.record import SCHEMA_VERSION, RunFiles, RunRecord, read_record, write_record
from harness.errors import MachineError, UsageError
from harness.plan.kinds import THROUGHPUT
from harness.plan.options import RunConfig
from tests.support.plans import a_plan, a_record, a_throughput_record

PLAN = a_plan(notes=("batch of 32 images per rank, not 512: few", "another"))
RECORD = a_record(
    plan=PLAN,
    environment={"python": "3.11.7", "cores": 2, "gpus": [{"index": 0, "uuid": "GPU-a"}], "packages": {"numpy": "2.3"}},
    profile={"images": 1347, "mean_bytes": 812.5, "bits_per_pixel": None},
    warnings=("first", "second"),
)


def round_trip(folder: Path, record: RunRecord) -> RunRecord:
    write_record(folder / "run.json", record)
    return read_record(folder / "run.json")


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    assert round_trip(tmp_path, RECORD) == RECORD
    assert RECORD.schema_version == SCHEMA_VERSION


def test_where_ranks_run_comes_back(tmp_path: Path) -> None:
    pinned = a_plan(affinity="pin", rank_cores=("0-3", "4-7"))
    assert round_trip(tmp_path, dataclasses.replace(RECORD, plan=pinned)).plan == pinned


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_throughput_record()
    back = round_trip(tmp_path, record)
    assert back == record
    assert back.verdict is not None
    assert (back.verdict["bottleneck"], back.verdict["data_gain"]["value"]) == ("shared", 1.1728)
    assert back.phases["compute_no_sync"]["fps"] == 110.0


def test_a_record_of_defaults_comes_back_as_it_was(tmp_path: Path) -> None:
    """Options that are None, a plan without an end and everything that isn't known yet."""
    plan = a_plan(kind=THROUGHPUT)
    record = RunRecord("run", "running", RunConfig(), plan, {})
    back = round_trip(tmp_path, record)
    assert back == record
    assert (back.config.gpus, back.config.learning_rate, back.plan.kind) == (None, None, THROUGHPUT)
    assert (back.profile, back.summary, back.warnings, back.plan.notes) == ({}, {}, (), ())
    found = (
        back.effective_settings,
        back.phases,
        back.steady,
        back.ledger,
        back.outliers,
        back.interference,
        back.verdict,
    )
    assert found == ({}, {}, {}, {}, {}, {}, None)
    assert back.series is None
    assert (back.attempts, back.bad_images, back.checkpoint) == ((), (), None)


def test_attempts_bad_images_and_the_checkpoint_come_back(tmp_path: Path) -> None:
    bad = {"split": "train", "index": 7, "path": "a.jpg", "label": 0, "reason": "0 bytes", "rank": None, "epoch": None}
    attempts = tuple(
        {"first_segment": segment, "step": step, "started_unix_seconds": 1.75e9 + step, "ranks": 2}
        for segment, step in ((1, 0), (5, 40))
    )
    record = dataclasses.replace(RECORD, attempts=attempts, bad_images=(bad,), checkpoint="000003")
    assert round_trip(tmp_path, record) == record


def test_a_size_that_is_no_square_comes_back(tmp_path: Path) -> None:
    plan = a_plan(image_size="80x160", preprocessing="whole", strides="height")
    record = dataclasses.replace(RECORD, config=RunConfig(image_size="80x160", strides="height"), plan=plan)
    assert round_trip(tmp_path, record) == record
    stored = json.loads((tmp_path / "run.json").read_text())
    assert (stored["config"]["image_size"], stored["plan"]["pipeline"]["image_size"]) == ("80x160", "80x160")


def test_a_record_from_before_strides_could_be_chosen_is_read_and_compared_like_today_s(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    stored = json.loads((tmp_path / "run.json").read_text())
    assert (stored["config"]["image_size"], stored["plan"]["pipeline"]["image_size"]) == (64, 64)
    del stored["config"]["strides"], stored["plan"]["training"]["strides"]
    (tmp_path / "old.json").write_text(json.dumps(stored))
    old = read_record(tmp_path / "old.json")
    assert old == RECORD
    assert differences(old, RECORD) == []


def test_every_option_comes_back(tmp_path: Path) -> None:
    config = RunConfig(
        throughput_only=True,
        model="x2_5",
        gpus=3,
        device="cpu",
        epochs=7,
        warmup=0,
        target_ci=0.5,
        max_seconds=1e-3,
        repeats=5,
        stall_timeout=5.5,
        bad_images="fail",
        max_bad_images=7,
        seed=2147418111,
        data="a folder",
        classes=12,
        image_size="32x64",
        shuffle_window=5000,
        cache="ram",
        strides="height",
        crop_area_min=0.1,
        flip_probability=0.0,
        batch_size=1,
        learning_rate=1 / 3,
        lr_warmup_epochs=0,
        momentum=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        compute_threads=2,
        decode_threads=3,
        prefetch=4,
        hw_decoder_load=1.0,
        width_hint=4000,
        height_hint=3000,
        results="elsewhere",
        run_name="named",
        telemetry_interval=0.1,
        telemetry_library="lib/libixml.so",
        checkpoint_minutes=2.5,
        preprocessing="dali",
        auto_augment=True,
        accumulation_steps=2,
        pretrained="a.pdparams",
        pretrained_head="new",
        train_list="a.txt",
        val_list="b.txt",
        image_root="images",
        bn_stats="rank0",
        amp="fp16",
        amp_level="O1",
        layout="nhwc",
        to_static=True,
        profile=3,
        metrics="prometheus,mllog",
        tf32="off",
        amp_depthwise=True,
    )
    # --device-counts, which decides the devices, can't be given with --gpus, nor --repeats on several nodes or with
    # --resume.
    unset = [name for name, value in dataclasses.asdict(config).items() if value is None]
    assert unset == ["resume", "device_counts", "master", "node_rank"]
    scaled = RunConfig(throughput_only=True, device_counts="1,2,4")
    resumed = RunConfig(resume="first")
    several = RunConfig(nnodes=2, master="10.0.0.1:6170", node_rank=1, rendezvous_timeout=9.5)
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=several)).config == several
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=resumed)).config == resumed
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=scaled)).config == scaled
    assert round_trip(tmp_path, dataclasses.replace(RECORD, config=config)).config == config


@pytest.mark.parametrize("name", ['"quoted"', "a\nb\tc", "データ", "\\", "'", "caf\udce9", "\x00\x1b[31m"])
def test_any_name_of_a_data_set_comes_back(tmp_path: Path, name: str) -> None:
    """The last but one is a file name that isn't UTF-8, as Python reads it."""
    data = dataclasses.replace(PLAN.data, name=name, source=name)
    record = dataclasses.replace(
        RECORD, plan=dataclasses.replace(PLAN, data=data), config=RunConfig(data=name, results=name), warnings=(name,)
    )
    assert round_trip(tmp_path, record) == record


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    values = json.loads(text)
    assert text.endswith("}\n")
    assert list(values) == [
        *(
            "run",
            "status",
            "config",
            "plan",
            "environment",
            "profile",
            "warnings",
            "series",
            "effective_settings",
            "window_end",
            "phases",
        ),
        *("steady", "ledger", "outliers", "interference", "verdict", "summary", "attempts", "bad_images", "checkpoint"),
        *("loaders", "pretrained", "decoding", "schema_version"),
    ]
    assert (values["schema_version"], values["status"]) == (SCHEMA_VERSION, "finished")
    assert values["config"]["batch_size"] is None
    assert values["plan"]["kind"] == "epochs"
    assert values["plan"]["data"]["augmentation"]["crop_area_min"] == 0.5
    assert values["summary"]["top1"] == 0.95333
    assert values["verdict"] is None


def read(folder: Path, text: str) -> RunRecord:
    (folder / "run.json").write_text(text, encoding="utf-8")
    return read_record(folder / "run.json")


@pytest.fixture
def written(tmp_path: Path) -> str:
    write_record(tmp_path / "run.json", RECORD)
    return (tmp_path / "run.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1, 0, 99, str(SCHEMA_VERSION), None, 1.5])
def test_a_record_of_a_version_that_is_not_known(tmp_path: Path, written: str, version: object) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, json.dumps({**json.loads(written), "schema_version": version}))
    assert caught.value.message == f"run.json has schema version {version}; this version reads {SCHEMA_VERSION}"
    assert "version of this project that wrote it" in caught.value.cure


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", f'{{"schema_version": {SCHEMA_VERSION}}}'])
def test_a_file_that_is_not_a_record(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/run.json is not a run's record: ")
    assert "<run>.json" in caught.value.cure


@pytest.mark.parametrize(
    ("found", "changed"),
    [('"ranks": 2', '"rank": 2'), ('"notes"', '"remarks"'), ('"status"', '"state"'), ('"kind": "epochs"', '"kind": 1')],
)
def test_a_record_that_was_altered(tmp_path: Path, written: str, found: str, changed: str) -> None:
    assert found in written
    with pytest.raises(UsageError, match="is not a run's record"):
        read(tmp_path, written.replace(found, changed))
    with pytest.raises(UsageError, match="is not a run's record"):
        read(tmp_path, written[: len(written) // 2])


def test_bytes_that_are_no_text_are_no_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(UsageError, match="is not a run's record"):
        read_record(tmp_path / "run.json")


def test_a_record_with_a_configuration_that_makes_no_sense(tmp_path: Path, written: str) -> None:
    with pytest.raises(UsageError, match=r"run\.json: unknown key 'epoch'"):
        read(tmp_path, written.replace('"epochs": 20', '"epoch": 20', 1))
    with pytest.raises(UsageError, match="--prefetch is 0; it must be at least 1"):
        read(tmp_path, written.replace('"prefetch": 2,', '"prefetch": 0,', 1))


def test_one_more_warning(tmp_path: Path) -> None:
    warned = RECORD.warned("third")
    assert warned.warnings == ("first", "second", "third")
    assert RECORD.warnings == ("first", "second")
    assert dataclasses.replace(warned, warnings=RECORD.warnings) == RECORD
    assert round_trip(tmp_path, warned) == warned


def test_a_record_that_is_written_again_replaces_the_first(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    assert round_trip(tmp_path, dataclasses.replace(RECORD, status="failed")).status == "failed"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="can't write"):
        write_record(tmp_path / "missing" / "run.json", RECORD)


def test_a_run_s_files() -> None:
    files = RunFiles(Path("results"), "20261124-153012-x1_0-cpu2")
    assert files.record == Path("results/20261124-153012-x1_0-cpu2.json")
    assert files.table("steps") == Path("results/20261124-153012-x1_0-cpu2.steps.csv")
    assert files.checkpoints == Path("results/20261124-153012-x1_0-cpu2.checkpoints")
    # A name with dots keeps all of them.
    assert RunFiles(Path("r"), "v1.2").record == Path("r/v1.2.json")


def test_any_file_of_a_run_takes_its_name(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "first")
    assert files.existing() == []
    tables = [files.table(name) for name in ("steps", "devices", "epochs", "bad_images", "scaling")]
    for path in (files.record, *tables):
        path.touch()
        assert files.existing() == [path]
        path.unlink()
    files.checkpoints.mkdir()
    assert files.existing() == [files.checkpoints]
