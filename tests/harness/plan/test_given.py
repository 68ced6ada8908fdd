"""Options as a command line gives them, before a run's record or node 0 completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.record import RunFiles, write_record
from harness.cli import main
from harness.commands.resume import node_options, requested_config
from harness.errors import UsageError
from harness.plan.declaration import SAME
from harness.plan.given import check_given, completed, shared_options
from harness.plan.options import RunConfig, run_options
from tests.support.plans import a_config, a_record

NODES: dict[str, Any] = {"nnodes": 2, "master": "10.0.0.1:6170", "node_rank": 0}
# What a resumed run was asked for, what its command line adds, and an option that the latter alone is refused for.
JOINED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"amp": "fp16"}, {"amp_level": "O2"}, "--amp is off"),
    ({"amp": "bf16", "amp_level": "O2"}, {"master_grad": True}, "--master-grad has no effect without"),
    ({"amp": "fp16"}, {"amp_depthwise": True}, "--amp-depthwise has no effect without --amp"),
    ({"epochs": 500}, {"lr_warmup_epochs": 400}, "is longer than the run's 360 epochs"),
    (NODES, {"node_rank": 0}, "--nnodes is 1"),
    (NODES, {"master": "10.0.0.1:7000"}, "--nnodes is 1"),
    (NODES, {"nnodes": 2}, "needs --master and --node-rank"),
    (NODES, {"nnodes": 2, "node_rank": 0}, "needs --master"),
]


def save(folder: Path, **asked: Any) -> None:
    files = RunFiles(folder, "main")
    files.checkpoints.mkdir()
    write_record(files.record, a_record(run="main", status="interrupted", config=a_config(**asked)))


@pytest.mark.parametrize(("asked", "added", "alone"), JOINED)
def test_options_that_need_those_of_the_record(
    tmp_path: Path, asked: dict[str, Any], added: dict[str, Any], alone: str
) -> None:
    """Case B8: they are checked together with the record's, and without it as they are."""
    save(tmp_path, **asked)
    given = {"resume": "main", "results": str(tmp_path), **added}
    check_given(given)
    found = requested_config(given)
    assert found is not None
    assert {name: getattr(found, name) for name in (*asked, *added)} == {**asked, **added}
    with pytest.raises(UsageError, match=alone):
        check_given(added)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"amp_level": "O3"}, "unknown amp_level 'O3'"),
        ({"epochs": 0}, "--epochs is 0; it must be at least 1"),
        ({"stall_timeout": 1.0}, "--stall-timeout is 1.0; it must be at least 5"),
        ({"throughput_only": True}, "--resume is for a run of epochs"),
        ({"repeats": 2}, "--resume is for a run of epochs"),
        ({"eval_only": True}, "--eval-only needs weights"),
        ({"eval_only": True, "pretrained": "x"}, "--eval-only does not train, but --resume is"),
        ({"run_name": "../x"}, "can't be the name of a run"),
        ({"device": "../x"}, "is not the name of a kind of device"),
    ],
)
def test_what_no_record_makes_right_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    """Case B8."""
    with pytest.raises(UsageError, match=said):
        check_given({"resume": "no-such-run", **given})


@pytest.mark.parametrize(
    ("asked", "added", "said"),
    [
        ({}, {"amp_level": "O2"}, "--amp-level O2 is for mixed precision, and --amp is off"),
        ({"lr_warmup_epochs": 5, "epochs": 9}, {"epochs": 4}, "--lr-warmup-epochs 5 is longer than the run's 4 epochs"),
        ({"amp": "fp16", "amp_level": "O2"}, {"tf32": "on"}, "--tf32 on has no effect at --amp-level O2"),
    ],
)
def test_options_that_don_t_fit_the_record_are_refused_with_a_cure_that_leads_on(
    tmp_path: Path, asked: dict[str, Any], added: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case B8: the run resumes once they are omitted, as the cure says; from a file they are the same."""
    save(tmp_path, **asked)
    toml = tmp_path / "run.toml"
    values = {name: f'"{value}"' if isinstance(value, str) else value for name, value in added.items()}
    toml.write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
    assert main(["--resume", "main", "--results", str(tmp_path), "--config", str(toml), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: run 'main' can't be resumed with these options: {said}")
    assert error.endswith("\n  Omit the options that you added, or start another run.\n")
    found = requested_config({"resume": "main", "results": str(tmp_path)})
    assert found is not None
    assert (found.resume, found.epochs, found.amp) == ("main", a_config(**asked).epochs, a_config(**asked).amp)


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({}, (2, "10.0.0.1:6170", 0)),
        ({"nnodes": 3}, (3, "10.0.0.1:6170", 0)),
        ({"master": "10.0.0.9:1"}, (2, "10.0.0.9:1", 0)),
        ({"nnodes": 1}, (1, None, None)),
        # Another node has no record to look at.
        ({"nnodes": 2, "master": "10.0.0.9:1", "node_rank": 1}, (2, "10.0.0.9:1", 1)),
    ],
)
def test_a_resumed_run_knows_the_way_to_the_other_nodes(
    tmp_path: Path, given: dict[str, Any], way: tuple[int, str | None, int | None]
) -> None:
    """Case B9; on one machine, what led to the others is left out, instead of being refused there."""
    save(tmp_path, **NODES)
    given = {"resume": "main", "results": str(tmp_path), **given}
    for config in (node_options(given), requested_config(given)):
        assert config is not None
        assert (config.nnodes, config.master, config.node_rank) == way


def test_a_record_that_can_t_be_read_leaves_the_way_as_given(tmp_path: Path) -> None:
    """Its error is for all nodes."""
    (tmp_path / "main.json").write_text("{}")
    given = {"resume": "main", "results": str(tmp_path), **NODES}
    assert node_options(given).nnodes == 2
    with pytest.raises(UsageError, match="is not the record of a run"):
        requested_config(given)


def test_a_node_gets_what_it_was_not_given(tmp_path: Path) -> None:
    """Case B9: more epochs on node 0 keep the batch and warm-up of the run, which node 1 knows from there."""
    save(tmp_path, **NODES, epochs=20, seed=5)
    first = requested_config({"resume": "main", "results": str(tmp_path), "epochs": 30})
    assert first is not None
    given = {**NODES, "node_rank": 1, "resume": "main", "data": "/mnt/own", "gpus": 2, "batch_size": None}
    second = completed(given, shared_options(first))
    assert (second.epochs, second.seed, second.lr_warmup_epochs, second.batch_size) == (30, 5, 5, 32)
    assert (second.node_rank, second.resume, second.run_name, second.data) == (1, None, None, "/mnt/own")
    # A given one stays: the nodes compare their runs, and name it.
    assert completed({**given, "epochs": 20}, shared_options(first)).epochs == 20


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ({"epochs": "3"}, "node 0's options: epochs is '3', of type str; it must be of type int"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"epoch": 3}, "node 0's options: unknown key 'epoch'"),
        ({"bn_stats": ["x"]}, "node 0's options: bn_stats is"),
        ({"model": "../../x"}, "unknown model"),
    ],
)
def test_what_comes_from_node_0_is_checked_as_if_it_had_been_typed(shared: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        completed({**NODES, "node_rank": 1}, shared)


def test_no_path_is_taken_from_node_0() -> None:
    """The file of weights is node 0's to read; its name only says that the run starts from weights."""
    paths = {name for name, option in run_options().items() if option.metavar in ("PATH", "FILE")}
    assert {name for name in paths if run_options()[name].nodes == SAME} == {"pretrained"}
    hostile = {"data": "/etc", "results": "/etc", "run_name": "x", "resume": "x", "telemetry_library": "/tmp/x.so"}
    found = completed({**NODES, "node_rank": 1}, hostile)
    assert found == RunConfig(**{**NODES, "node_rank": 1})


def test_every_shared_option_comes_through() -> None:
    config = a_config(**NODES, epochs=7, layout="nhwc", auto_augment=True, crop_area_min=0.2)
    found = completed({**NODES, "node_rank": 1}, shared_options(config))
    assert shared_options(found) == shared_options(config)
