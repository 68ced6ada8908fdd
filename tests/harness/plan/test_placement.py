"""Which cores ranks run on, and how many threads they then have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import harness.plan.decisions
import harness.plan.placement
from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.machine.nvml import Gpu
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.placement import decide_placement
from harness.plan.plan import IMAGENET, PlacementPlan, RunPlan
from harness.report.console import plan_facts
from tests.support.made_up_machines import two_sockets, write_machine
from tests.support.plans import a_plan

BUS = {"0000:17:00.0": 0, "0000:65:00.0": 0, "0000:c1:00.0": 1, "0000:e3:00.0": 1}
GPUS = tuple(Gpu(index, f"GPU-{index}", "A", f"0000{name.upper()}") for index, name in enumerate(BUS))
CPUS = Devices("cpu", 2, "CPU")


def gpus(*indices: int) -> Devices:
    """The devices that a run has when CUDA_VISIBLE_DEVICES is this list."""
    return Devices("gpu", len(indices), "A", tuple(GPUS[index] for index in indices))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sockets with 16 cores and two GPUs each."""
    monkeypatch.setattr(harness.plan.placement, "allowed_cores", lambda: frozenset(range(32)))
    return two_sockets(tmp_path, gpus=BUS)


def placed(devices: Devices, root: Path, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The cores of the ranks, where nothing is noted."""
    placement, notes = decide_placement("pin", devices, environment or {}, root)
    assert (placement.affinity, notes) == ("pin", ())
    return placement.rank_cores


@pytest.mark.parametrize("affinity", ["auto", "none"])
@pytest.mark.parametrize("devices", [CPUS, gpus(0, 1), Devices("npu", 2, "npu")])
def test_without_pin_the_operating_system_places(affinity: str, devices: Devices, server: Path) -> None:
    bound = {"OMP_PROC_BIND": "close"}
    assert decide_placement(affinity, devices, bound, server) == (PlacementPlan("none", ()), ())


def test_ranks_run_next_to_their_gpus(server: Path) -> None:
    assert placed(gpus(0, 1, 2, 3), server) == ("0-3,16-19", "4-7,20-23", "8-11,24-27", "12-15,28-31")
    # As CUDA_VISIBLE_DEVICES has them.
    assert placed(gpus(3, 0), server) == ("8-15,24-31", "0-7,16-23")
    assert placed(gpus(2), server) == ("8-15,24-31",)
    assert placed(CPUS, server) == ("0-7,16-23", "8-15,24-31")


def test_only_allowed_cores_are_shared(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.plan.placement, "allowed_cores", lambda: frozenset({1, 3, 5, 7, 9, 11}))
    assert placed(gpus(0, 1, 2), server) == ("1,3", "5,7", "9,11")
    assert placed(CPUS, server) == ("1,3,5,7", "9,11")


def test_what_is_not_known_of_a_device_is_noted(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    equal = PlacementPlan("pin", ("0-7,16-23", "8-15,24-31"))
    unknown = "the NUMA nodes that the {} hang on aren't known here: each rank's cores are chosen without"
    # A dry run looks for no GPUs.
    assert decide_placement("pin", Devices("gpu", 2, "GPU"), {}, server) == (equal, (unknown.format("GPUs"),))
    nameless = Devices("gpu", 2, "A", (GPUS[3], replace(GPUS[2], pci_bus_id="")))
    assert decide_placement("pin", nameless, {}, server) == (equal, (unknown.format("GPUs"),))
    accelerators = Devices("npu", 2, "npu")
    assert decide_placement("pin", accelerators, {}, server) == (equal, (unknown.format("npu devices"),))

    monkeypatch.setattr(harness.plan.placement, "allowed_cores", lambda: frozenset({0, 1, 2, 3}))
    assert decide_placement("pin", gpus(3, 0), {}, server) == (
        PlacementPlan("pin", ("0-1", "2-3")),
        ("GPUs hang on NUMA node 1, where no core may be used: each rank's cores are chosen without",),
    )
    assert placed(gpus(0, 1), server) == ("0-1", "2-3")


def test_a_machine_with_one_node_needs_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.plan.placement, "allowed_cores", lambda: frozenset(range(4)))
    machine = write_machine(tmp_path, {0: [(0,), (1,), (2,), (3,)]}, gpus=dict.fromkeys(BUS, -1))
    assert placed(gpus(0, 1), machine) == ("0-1", "2-3")
    assert placed(Devices("gpu", 2, "GPU"), machine) == ("0-1", "2-3")


@pytest.mark.parametrize(
    "variable", ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "DALI_AFFINITY_MASK"]
)
def test_two_who_choose_cores_are_refused(variable: str, server: Path) -> None:
    with pytest.raises(UsageError, match=f"{variable} puts threads on cores") as caught:
        decide_placement("pin", CPUS, {variable: "close"}, server)
    assert f"unset {variable}" in caught.value.cure
    assert placed(CPUS, server, {variable: ""}) == ("0-7,16-23", "8-15,24-31")


def test_a_system_that_keeps_no_process_on_cores(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.plan.placement, "can_pin", lambda: False)
    with pytest.raises(MachineError, match="--affinity pin needs Linux") as caught:
        decide_placement("pin", CPUS, {}, server)
    assert caught.value.cure == "Omit --affinity pin."
    assert decide_placement("auto", CPUS, {}, server) == (PlacementPlan(), ())


def planned(
    monkeypatch: pytest.MonkeyPatch, rank_cores: tuple[str, ...], cores: int, config: RunConfig | None = None
) -> RunPlan:
    """The plan of ranks with these cores, that may use `cores` of them at a time."""
    placement = PlacementPlan("pin", rank_cores)
    monkeypatch.setattr(harness.plan.decisions, "decide_placement", lambda *_: (placement, ("placed",)))
    monkeypatch.setattr(harness.plan.decisions, "available_cores", lambda: cores)
    return make_plan(config or RunConfig(), Devices("cpu", len(rank_cores), "CPU"), IMAGENET, {})


@pytest.mark.parametrize(
    ("rank_cores", "cores", "threads"),
    [
        (("0-3", "4-7"), 8, 4),
        (("0-1", "2"), 3, 1),
        # The smallest share, as all ranks have the same number.
        (("0-7,16-23", "8-10,24-26", "11-13,27-29", "14-15,30-31"), 32, 4),
        # A quota of 4 cores leaves 2 to each rank, however many it may choose from.
        (("0-7", "8-15"), 4, 2),
        # More ranks than cores.
        (("0-1", "0-1", "0-1"), 2, 1),
        (("0",), 1, 1),
        (("0-15,32-47",), 32, 32),
    ],
)
def test_ranks_have_as_many_threads_as_cores(
    rank_cores: tuple[str, ...], cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(monkeypatch, rank_cores, cores)
    assert plan.placement.rank_cores == rank_cores
    assert "placed" in plan.notes
    assert plan.training.compute_threads == threads
    assert plan.pipeline.decode_threads == min(8, threads)


def test_threads_that_are_given_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, ("0", "1"), 2, RunConfig(compute_threads=3, decode_threads=5))
    assert (plan.training.compute_threads, plan.pipeline.decode_threads) == (3, 5)


@pytest.mark.parametrize(
    ("placement", "printed"),
    [
        (PlacementPlan("pin", ("0-3", "4-7")), "rank 0: cores 0-3, rank 1: cores 4-7"),
        (PlacementPlan("pin", ("0", "1,3")), "rank 0: core 0, rank 1: cores 1,3"),
        (PlacementPlan("pin", ("0-1", "0-1", "0-1")), "every rank: cores 0-1"),
        (PlacementPlan("pin", ("7",)), "every rank: core 7"),
    ],
)
def test_a_plan_shows_the_cores(placement: PlacementPlan, printed: str) -> None:
    assert dict(plan_facts(a_plan(**asdict(placement))))["affinity"] == printed


def test_a_plan_that_leaves_the_cores_to_the_system_does_not_mention_them() -> None:
    assert "affinity" not in dict(plan_facts(a_plan()))
