"""The examples: a batch script for Slurm, which tests/whole_runs/test_schedulers.py runs, and a Job for Kubernetes."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness import ROOT
from harness.cli import parse
from harness.errors import INTERRUPTED_EXIT_CODE, GateError, MachineError, TrainingError, UsageError
from harness.launch.signals import STOP_SIGNALS
from harness.plan.options import RunConfig
from harness.plan.schedulers.found import placed
from pipelines.errors import DataError

SLURM, KUBERNETES = ROOT / "examples" / "slurm.sh", ROOT / "examples" / "kubernetes.yaml"
# The first version that has all of it for good, and the newest one whose schema is there.
VERSIONS = ("1.31", "1.37")


@pytest.fixture
def objects() -> dict[str, Any]:
    """The objects of the file, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))}


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def variables_of_pod(job: dict[str, Any], index: int) -> dict[str, str]:
    """What the pod of that index has in its environment: its env, and what Kubernetes adds."""
    own = {one["name"]: one["value"] for one in container(job)["env"]}
    return {**own, "JOB_COMPLETION_INDEX": str(index), "HOSTNAME": f"{job['metadata']['name']}-{index}"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_objects_keep_kubernetes_s_schema(objects: dict[str, Any], version: str) -> None:
    assert set(objects) == {"Service", "Job"}
    for one in objects.values():
        kubernetes_validate.validate(one, version, strict=True)


def test_the_schema_refuses_what_is_misspelled(objects: dict[str, Any]) -> None:
    job = copy.deepcopy(objects["Job"])
    job["spec"]["template"]["spec"]["terminationGracePeriod"] = 120
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[0], strict=True)


def test_the_pods_find_one_another(objects: dict[str, Any]) -> None:
    service, job = objects["Service"], objects["Job"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    assert (service["spec"]["clusterIP"], pod["subdomain"]) == ("None", domain)
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert (spec["completionMode"], spec["parallelism"]) == ("Indexed", spec["completions"])
    for index in range(spec["completions"]):
        given, place = placed(parse(container(job)["args"])[0], variables_of_pod(job, index))
        config = RunConfig(**given)
        assert (config.nnodes, config.node_rank) == (spec["completions"], index)
        assert config.master_address()[0] == f"{name}-0.{domain}"
        assert place is not None
        assert (place.launcher, place.job) == ("Kubernetes", name)


def test_a_pod_that_saved_is_replaced_and_one_that_can_not_do_better_is_not(objects: dict[str, Any]) -> None:
    spec, pod = objects["Job"]["spec"], objects["Job"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy needs
    actions: dict[int, str] = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"values": [], "containerName": container(objects["Job"])["name"]})
        assert codes["containerName"] == container(objects["Job"])["name"]
        actions |= dict.fromkeys(codes["values"], rule["action"])
    assert actions == {
        INTERRUPTED_EXIT_CODE: "Ignore",
        **dict.fromkeys((GateError.exit_code, UsageError.exit_code, DataError.exit_code), "FailJob"),
    }
    assert not {MachineError.exit_code, TrainingError.exit_code} & set(actions)


def test_a_pod_has_memory_to_share_and_time_to_save(objects: dict[str, Any]) -> None:
    pod = objects["Job"]["spec"]["template"]["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container(objects["Job"])["volumeMounts"]}
    assert set(mounts) == {"/results", "/data", "/dev/shm"}
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    config = RunConfig(**{**parse(container(objects["Job"])["args"])[0], "nnodes": 1})
    assert {config.results, config.data} < set(mounts)
    assert pod["terminationGracePeriodSeconds"] == 120


def test_the_batch_script_is_one(tmp_path: Path) -> None:
    """Bash reads it, and Slurm's directives come before its first command."""
    assert subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, check=False).stderr == b""
    lines = SLURM.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert max(directives) < first
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", "\n".join(lines), flags=re.MULTILINE))
    assert len(asked) == len(directives)
    assert (asked["ntasks-per-node"], asked["signal"]) == ("1", "B:USR1@120")
    assert f"SIG{asked['signal'][2:].partition('@')[0]}" in {one.name for one in STOP_SIGNALS}
