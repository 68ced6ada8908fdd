from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from harness.artifacts.record import RunFiles, RunRecord, write_record
from harness.artifacts.run_claim import exclusive_run_lock
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter, read_table
from harness.commands.resume import (
    Resumption,
    back_to_epoch_start,
    check_same_run,
    find_resumption,
    requested_config,
    resume_command,
    truncate_to_checkpoint,
)
from harness.errors import InvariantError, UsageError
from harness.plan.declaration import KEPT, SAME, flag
from harness.plan.given import check_given
from harness.plan.kinds import THROUGHPUT
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import settings_of
from tests.support.plans import DIGITS, a_config, a_plan, a_record


def save_run(folder: Path, name: str, **changes: Any) -> RunFiles:
    files = RunFiles(folder, name)
    files.checkpoints.mkdir()
    write_record(files.record, a_record(run=name, **changes))
    return files


def test_without_the_option_the_configuration_is_what_was_given() -> None:
    assert requested_config({"epochs": 3}) == RunConfig(epochs=3)


def test_a_named_run_resumes_as_it_was_asked_for_and_with_what_is_given_now(tmp_path: Path) -> None:
    save_run(tmp_path, "it", status="interrupted", config=a_config(seed=5))
    given = {"resume": "it", "results": str(tmp_path), "epochs": 30, "prefetch": 3}
    # 20 epochs were few enough for a batch and a warm-up that 30 would not change now.
    assert requested_config(given) == a_config(
        seed=5,
        resume="it",
        run_name="it",
        results=str(tmp_path),
        epochs=30,
        prefetch=3,
        batch_size=32,
        lr_warmup_epochs=5,
        hw_decoder_load=0.65,
    )


def test_one_command_line_begins_a_run_resumes_it_and_sees_that_it_is_finished(tmp_path: Path) -> None:
    given = {"run_name": "it", "resume": "auto", "results": str(tmp_path), "epochs": 20}
    assert requested_config(given) == RunConfig(run_name="it", results=str(tmp_path), epochs=20)
    (tmp_path / "it.json").touch()  # killed as it began
    assert requested_config(given) == RunConfig(run_name="it", results=str(tmp_path), epochs=20)
    assert list(tmp_path.iterdir()) == []
    save_run(tmp_path, "it", status="running")
    begun = requested_config(given)
    assert begun is not None
    assert begun.resume == "it"
    write_record(tmp_path / "it.json", a_record(run="it", status="finished"))
    assert requested_config(given) is None
    with pytest.raises(UsageError, match="run 'it' finished after 20 epochs"):
        requested_config({**given, "epochs": 30})


def test_a_batch_that_auto_batch_found_stays(tmp_path: Path) -> None:
    save_run(tmp_path, "it", status="interrupted", config=a_config(auto_batch=True, batch_size=64))
    found = requested_config({"resume": "it", "results": str(tmp_path), "auto_batch": True, "batch_size": 64})
    assert found is not None
    assert found.batch_size == 32


def test_members_of_a_series_can_not_be_resumed(tmp_path: Path) -> None:
    save_run(tmp_path, "s.r1", status="interrupted", series="s")
    with pytest.raises(UsageError, match="no unfinished run"):
        requested_config({"resume": "auto", "results": str(tmp_path)})
    with pytest.raises(UsageError, match="is part of the series 's'"):
        requested_config({"resume": "s.r1", "results": str(tmp_path)})


def test_a_run_whose_epochs_are_made_is_concluded_on_its_own_devices() -> None:
    with pytest.raises(UsageError, match="has finished all its epochs; with another number of devices"):
        check_same_run(before(epoch=21, steps=0), a_config(gpus=4), a_plan(ranks=4))


def test_attempts_that_made_nothing_break_nothing() -> None:
    def attempt(first_segment: int, ranks: int) -> dict[str, Any]:
        return {"first_segment": first_segment, "ranks": ranks, "step": 0, "started_unix_seconds": 0.0}

    record = a_record(attempts=(attempt(1, 2), attempt(9, 1), attempt(9, 2), attempt(12, 2)))
    assert record.breaks() == ([9, 12], 1)
    record = a_record(attempts=(attempt(1, 4), attempt(5, 2), attempt(9, 2)))
    assert record.breaks() == ([5, 9], 5)
    assert a_record().breaks() == ([], 1)


def test_without_a_name_the_latest_unfinished_run_is_resumed(tmp_path: Path) -> None:
    for age, (name, status) in enumerate([("new", "finished"), ("old", "interrupted"), ("older", "failed")]):
        files = save_run(tmp_path, name, status=status)
        os.utime(files.checkpoints, (1000 - age, 1000 - age))
    found = requested_config({"resume": "auto", "results": str(tmp_path)})
    assert found is not None
    assert found.resume == "old"


def test_without_a_name_a_run_of_another_process_is_passed_over(tmp_path: Path) -> None:
    """Case E8: the newest interrupted run is resumed, not a newer one that is running."""
    newest, newer, older = (save_run(tmp_path, name, status="running") for name in ("newest", "newer", "older"))

    def chosen(*running: RunFiles) -> str | None:
        with ExitStack() as stack:
            for files in running:
                stack.enter_context(exclusive_run_lock(files))
            for age, files in enumerate((newest, newer, older)):
                os.utime(files.checkpoints, (1000 - age, 1000 - age))
            found = requested_config({"resume": "auto", "results": str(tmp_path)})
        assert found is not None
        return found.resume

    assert (chosen(), chosen(newest), chosen(newest, newer), chosen(newer)) == ("newest", "newer", "older", "newest")
    with pytest.raises(UsageError) as caught:
        chosen(newest, newer, older)
    assert caught.value.message == (
        f"no interrupted run in {str(tmp_path)!r}; running in other processes: 'newest', 'newer' and 'older'"
    )
    assert caught.value.cure == "Wait for their end, or give another folder with --results."


def test_a_dry_run_leaves_an_empty_record_where_it_is(tmp_path: Path) -> None:
    """Case E5: a run makes it its own; a dry run says what that run would be, and changes nothing."""
    given = {"run_name": "it", "resume": "auto", "results": str(tmp_path), "epochs": 20}
    (tmp_path / "it.json").touch()
    (tmp_path / "it.checkpoints").mkdir()
    (tmp_path / "it.checkpoints" / ".lock").touch()
    before = sorted(tmp_path.rglob("*"))
    asked = requested_config(given, dry_run=True)
    assert asked == RunConfig(run_name="it", results=str(tmp_path), epochs=20)
    assert sorted(tmp_path.rglob("*")) == before
    assert requested_config(given) == asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["it.checkpoints/000001.json", "it.checkpoints/export.safetensors", "it.steps.csv"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_an_empty_record_beside_other_files_is_not_a_run_that_has_yet_to_begin(
    tmp_path: Path, other: str, dry_run: bool
) -> None:
    """Case E5: what lost its record is not cleared away."""
    (tmp_path / "it.json").touch()
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_bytes(b"kept")
    with pytest.raises(UsageError, match=r"it\.json is empty, but run 'it' has other files: .*/it\.") as caught:
        requested_config({"run_name": "it", "resume": "auto", "results": str(tmp_path)}, dry_run=dry_run)
    assert caught.value.cure == "Put its record back, or give another --run-name."
    assert (tmp_path / other).read_bytes() == b"kept"


def test_nothing_to_resume_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no unfinished run in"):
        requested_config({"resume": "auto", "results": str(tmp_path)})
    with pytest.raises(UsageError, match="no run 'it' in"):
        requested_config({"resume": "it", "results": str(tmp_path)})
    with pytest.raises(UsageError, match=r"--resume '../it' is not the name of a run"):
        requested_config({"resume": "../it", "results": str(tmp_path)})


def test_a_throughput_run_is_started_again_instead(tmp_path: Path) -> None:
    save_run(tmp_path, "it", status="interrupted", plan=a_plan(kind=THROUGHPUT))
    with pytest.raises(UsageError, match="measures throughput"):
        requested_config({"resume": "it", "results": str(tmp_path)})
    with pytest.raises(UsageError, match="--resume is for a run of epochs"):
        check_given({"resume": "it", "throughput_only": True})


def test_other_nodes_leave_the_checkpoint_to_node_0() -> None:
    given = {"resume": "it", "nnodes": 2, "master": "10.0.0.1:6170", "node_rank": 1}
    found = requested_config(given)
    assert found is not None
    assert found.resume is None


def before(record: RunRecord | None = None, epoch: int = 3, steps: int = 7) -> Resumption:
    values = {"progress": {"epoch": epoch, "steps": steps}, "optimizer_steps": 51, "segments": 9, "rows": {"steps": 60}}
    return Resumption(record or a_record(), "000004", values)


def test_an_equal_run_resumes_without_a_note() -> None:
    assert check_same_run(before(), a_config(), a_plan()) == ()
    assert (before().first_segment, before().step, before().rows) == (10, 51, {"steps": 60})


STRICT: dict[str, Any] = {
    "model": "x1_0", "seed": 3, "image_size": 32, "batch_size": 16, "learning_rate": 0.1, "lr_warmup_epochs": 2,
    "momentum": 0.8, "weight_decay": 0.1, "label_smoothing": 0.0, "hw_decoder_load": 0.1, "preprocessing": "dali",
    "auto_augment": True, "accumulation_steps": 2, "pretrained": "a.pdparams",
    "pretrained_head": "new", "bn_stats": "rank0", "amp": "bf16", "loader": "opencv", "shuffle_window": 5000,
    "cache": "ram",
    "amp_level": "O2", "layout": "nhwc", "to_static": True,
    "tf32": "off", "amp_depthwise": True, "master_grad": True, "strides": "height",
}  # fmt: skip


@pytest.mark.parametrize("name", STRICT)
def test_what_decides_the_weights_must_be_as_it_was(name: str) -> None:
    with pytest.raises(UsageError, match="can't be resumed with other settings") as caught:
        check_same_run(before(), a_config(), a_plan(**{name: STRICT[name]}))
    assert [line for line in caught.value.cure.splitlines() if line.startswith(flag(name))] == [
        f"{flag(name)}: {settings_of(a_plan())[name]} before, {STRICT[name]} now"
    ]


def test_what_must_be_the_same_is_said_where_the_options_are_declared() -> None:
    fixed = {name for name, declared in run_options().items() if declared.resume in (SAME, KEPT)}
    assert fixed == set(STRICT)


def test_all_differences_are_named_at_once() -> None:
    plan = a_plan(image_size=32, model="x1_0", device="gpu", data=replace(DIGITS, train_images=9, name="other"))
    with pytest.raises(UsageError) as caught:
        check_same_run(before(), a_config(), plan)
    lines = caught.value.cure.splitlines()
    assert lines[:4] == [
        "--model: x0_25 before, x1_0 now",
        "--image-size: 64 before, 32 now",
        "--device: cpu before, gpu now",
        "--data (train images): 1347 before, 9 now",
    ]
    assert len(lines) == 5
    assert lines[4] == (
        "Omit these options. Make the images and their lists again what they were, or start another run."
    )


def test_no_option_is_blamed_where_the_data_alone_have_changed() -> None:
    """What an adversary found: labels that changed between two attempts were called other settings."""
    with pytest.raises(UsageError, match="can't be resumed with other data") as caught:
        check_same_run(before(), a_config(), a_plan(data=replace(DIGITS, train_images=9)))
    assert caught.value.cure.splitlines()[1:] == [
        "Make the images and their lists again what they were, or start another run."
    ]


@pytest.mark.parametrize(
    ("plan", "note"),
    [
        (a_plan(decode_threads=7, prefetch=4, telemetry_interval=2.0, telemetry_library="lib.so"), None),
        (a_plan(data=replace(DIGITS, source="/elsewhere", name="moved")), None),
        (a_plan(epochs=30), "30 epochs instead of 20: from here on the learning rate's cosine ends later"),
        (a_plan(compute_threads=2), "--compute-threads: 1 before, 2 now; sums may round differently"),
    ],
)
def test_what_does_no_harm_is_at_most_noted(plan: Any, note: str | None) -> None:
    assert check_same_run(before(), a_config(), plan) == ((note,) if note else ())


def test_fewer_epochs_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        check_same_run(before(), a_config(), a_plan(epochs=10))
    assert "--epochs: 20 before, 10 now; more epochs are possible, fewer are not" in caught.value.cure


def test_another_number_of_devices_is_for_an_epochs_start() -> None:
    plan = a_plan(ranks=4, steps_per_epoch=11, learning_rate=0.05)
    with pytest.raises(UsageError, match="is within epoch 3; with another number of devices") as caught:
        check_same_run(before(), a_config(gpus=4), plan)
    assert caught.value.cure == "Resume it with --gpus 2 until the end of the epoch."
    assert check_same_run(before(steps=0), a_config(gpus=4), plan) == (
        "4 devices instead of 2 from epoch 3 on: 128 images per step instead of 64,"
        " learning rate 0.05 instead of 0.025",
    )


@pytest.mark.parametrize(
    ("before_nodes", "before_ranks", "nodes", "gpus", "cure"),
    [
        (2, 2, 1, 1, "--gpus 2"),
        (2, 8, 4, 1, "--gpus 2"),
        (1, 4, 2, 1, "--gpus 2"),
        (1, 1, 2, 1, "--gpus 1 --nnodes 1"),
        (3, 3, 2, 2, "--gpus 1 --nnodes 3"),
    ],
)
def test_the_devices_of_before_are_named_for_the_nodes_of_now(
    before_nodes: int, before_ranks: int, nodes: int, gpus: int, cure: str
) -> None:
    """Case B9: following the cure gives the number of ranks of before."""
    old = before(a_record(plan=a_plan(nodes=before_nodes, ranks=before_ranks)))
    with pytest.raises(UsageError) as caught:
        check_same_run(old, a_config(gpus=gpus), a_plan(nodes=nodes, ranks=nodes * gpus))
    assert caught.value.cure == f"Resume it with {cure} until the end of the epoch."
    counts = dict(zip(cure.split()[::2], map(int, cure.split()[1::2]), strict=True))
    assert counts["--gpus"] * counts.get("--nnodes", nodes) == before_ranks


def test_other_nodes_of_a_scheduler_go_back_to_the_epochs_start(tmp_path: Path) -> None:
    """Nobody is there to give the run the devices of before."""
    files = save_run(tmp_path, "it", plan=a_plan(ranks=2, nodes=2))
    alone, both = a_plan(ranks=1, nodes=1), a_plan(ranks=2, nodes=2)

    def saved(epoch: int, steps: int, made: int) -> Resumption:
        progress = {"epoch": epoch, "steps": steps}
        write_checkpoint(files.checkpoints, Checkpoint({}, {"ranks": 2, "progress": progress, "optimizer_steps": made}))
        return find_resumption(files)

    within = saved(1, 4, 4)
    # The start of epoch 1 is the run's.
    back, notes = back_to_epoch_start(within, files, alone)
    assert (back.checkpoint, back.step, back.rows) == (None, 0, {})
    assert notes == ("4 steps of epoch 1 will be made again, as 1 device can't continue within an epoch of 2",)
    lost = saved(2, 4, 25)
    assert back_to_epoch_start(lost, files, alone) == (lost, ())
    start = saved(3, 0, 42)
    assert back_to_epoch_start(start, files, alone) == (start, ())
    saved(3, 1, 43)
    saved(3, 2, 44)
    within = saved(3, 3, 45)
    assert back_to_epoch_start(within, files, both) == (within, ())
    back, notes = back_to_epoch_start(within, files, a_plan(ranks=4, nodes=2))
    assert (back.checkpoint, back.step) == (start.checkpoint, 42)
    assert notes == ("3 steps of epoch 3 will be made again, as 4 devices can't continue within an epoch of 2",)
    assert find_resumption(files) == within


def test_the_learning_rate_of_other_devices_is_the_users_if_given() -> None:
    record = a_record(config=a_config(learning_rate=0.3), plan=a_plan(learning_rate=0.3))
    plan = a_plan(ranks=4, learning_rate=0.4)
    with pytest.raises(UsageError) as caught:
        check_same_run(before(record, steps=0), a_config(gpus=4, learning_rate=0.4), plan)
    assert "--learning-rate: 0.3 before, 0.4" in caught.value.cure


def test_tables_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    rows: dict[Any, Callable[[int], dict[str, Any]]] = {
        STEPS: lambda n: {"phase": "train", "step": n},
        EPOCHS: lambda n: {"epoch": n},
        DEVICES: lambda n: {"device": f"gpu{n}"},
        BAD_IMAGES: lambda n: {"path": str(n)},
    }
    for table, row in rows.items():
        with TableWriter(files.table(table.name), table) as writer:
            for number in range(1, 6):
                writer.write(row(number))
    truncate_to_checkpoint(files, None, {"steps": 4, "epochs": 1, "devices": 5})
    assert [len(read_table(files.table(table.name), table)) for table in rows] == [4, 1, 5, 0]
    assert read_table(files.table("steps"), STEPS)["step"].tolist() == [1, 2, 3, 4]


def test_telemetry_may_be_shorter_after_a_power_failure_and_no_other_table(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    for table, row in ((STEPS, {"phase": "train"}), (EPOCHS, {"epoch": 1}), (DEVICES, {"device": "cpu"})):
        with TableWriter(files.table(table.name), table) as writer:
            writer.write(row)
    truncate_to_checkpoint(files, None, {"steps": 1, "epochs": 1, "devices": 5})
    assert len(read_table(files.table("devices"), DEVICES)) == 1
    with pytest.raises(InvariantError, match=r"it\.steps\.csv has 1 row, but 2 had been written"):
        truncate_to_checkpoint(files, None, {"steps": 2, "epochs": 1})
    files.table("epochs").unlink()
    with pytest.raises(InvariantError, match=r"it\.epochs\.csv is missing, but the run needs 1 of its rows"):
        truncate_to_checkpoint(files, None, {"steps": 1, "epochs": 1})


def test_what_a_kill_left_half_done_is_cleared_away_and_other_runs_files_are_not(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    files.checkpoints.mkdir()
    names = [write_checkpoint(files.checkpoints, Checkpoint({}, {"optimizer_steps": step})) for step in (1, 2, 3)]
    for name in (".it.steps.csv.12.34", ".it.json.12.34", ".it.r1.json.12.34"):
        (tmp_path / name).touch()
    truncate_to_checkpoint(files, names[1], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".it.r1.json.12.34", "it.checkpoints"]
    assert newest_checkpoint(files.checkpoints) == ("000002", {"optimizer_steps": 2})


def test_a_run_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, "it")
    with (
        exclusive_run_lock(files),
        pytest.raises(UsageError, match="run 'it' is running in another process"),
        exclusive_run_lock(files),
    ):
        pass
    with exclusive_run_lock(files):
        pass


def test_the_newest_whole_checkpoint_is_found_with_its_record(tmp_path: Path) -> None:
    files = save_run(tmp_path, "it", status="running")
    found = find_resumption(files)
    assert (found.checkpoint, found.step, found.first_segment, found.rows) == (None, 0, 1, {})
    write_checkpoint(files.checkpoints, Checkpoint({}, {"optimizer_steps": 5, "segments": 2}))
    found = find_resumption(files)
    assert (found.checkpoint, found.step, found.first_segment) == ("000001", 5, 3)
    assert found.record.run == "it"


def test_the_command_survives_a_shell(tmp_path: Path) -> None:
    assert resume_command("it", RunConfig()) == "python run_bench.py --resume it"
    hostile = resume_command("it", RunConfig(results="a b'; rm -rf $HOME"))
    assert shlex.split(hostile) == ["python", "run_bench.py", "--resume", "it", "--results", "a b'; rm -rf $HOME"]
