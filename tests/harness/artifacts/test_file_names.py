from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.file_names import (
    GPU_DAY,
    LOCK,
    SUMMARY_FILE,
    check_run_name,
    readable_part,
    unique_part,
    verification_files,
)
from harness.artifacts.record import RunFiles
from harness.artifacts.reference_table import REFERENCE_FILE, reference_table_file
from harness.cli import main
from harness.errors import UsageError
from tests.support.plans import a_plan

# What is written to --results besides a run's own files, and the files of the run `a`.
OTHERS_FILES = [
    *verification_files(Path(), "digits")[:2],
    Path(SUMMARY_FILE),
    Path(SUMMARY_FILE).with_suffix(".1.csv"),
    Path(reference_table_file(a_plan())),
    REFERENCE_FILE,
    Path(f"{GPU_DAY}.json"),
    Path(f"{GPU_DAY}.md"),
    Path("README.md"),
    *(RunFiles(Path(), "a").table(name) for name in ("steps", "devices", "epochs", "bad_images", "scaling", "latency")),
    RunFiles(Path(), "a").checkpoints,
    RunFiles(Path(), "a").traces,
    Path("a.logs"),
    Path("a.node1.logs"),
]


@pytest.mark.parametrize("path", OTHERS_FILES, ids=str)
def test_no_run_has_the_name_of_a_file_that_is_another_s(path: Path) -> None:
    """Cases B6 and E2: neither with its ending nor without, nor in capital letters."""
    for name in {path.name, path.name.removesuffix(".csv").removesuffix(".json"), path.name.upper()}:
        with pytest.raises(UsageError, match="belong to") as caught:
            check_run_name(name)
        assert caught.value.cure == "Give another --run-name."


@pytest.mark.parametrize(
    "name", ["it", "v1.2", "a.r1", "a.n2", "verify", "my-verify-run", "tables", "bi_v1000", "x.step"]
)
def test_other_names_are_free(name: str) -> None:
    check_run_name(name)


@pytest.mark.parametrize("options", [(), ("--resume",), ("--dry-run",), ("--throughput-only", "--repeats", "2")])
@pytest.mark.parametrize("name", ["verify-digits", "bi_v100"])
def test_a_name_that_is_another_s_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: tuple[str, ...]
) -> None:
    """Cases B6 and E2."""
    results = tmp_path / "results"
    assert main(["--run-name", name, "--results", str(results), "--device", "cpu", *options]) == 2
    owner = {"bi_v100": "the published row"}.get(name, "a verification")
    assert capsys.readouterr().err == (
        f"error: --run-name {name!r} can't be the name of a run: in --results, files of that name belong to {owner}\n"
        "  Give another --run-name.\n"
    )
    assert not results.exists()


def test_a_data_set_s_files_are_its_verification_s() -> None:
    table, state, lock = verification_files(Path("r"), "a b")
    assert (table.name, state.name, lock.name) == (
        f"verify-{unique_part('a b')}.csv", f"verify-{unique_part('a b')}.json", f".verify-{unique_part('a b')}.lock"
    )  # fmt: skip
    assert lock.name != LOCK


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("NVIDIA A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB"),
        ("Iluvatar BI-V100", "Iluvatar-BI-V100"),
        ("cpu", "cpu"),
        ("a/b", "a-b"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "unnamed"),
        ("..", "unnamed"),
    ],
)
def test_a_device_s_name_stays_readable(name: str, part: str) -> None:
    assert readable_part(name) == part


def test_a_plain_name_is_its_own() -> None:
    assert unique_part("imagenet-1k_v2.0") == "imagenet-1k_v2.0"


def test_no_two_names_share_a_file() -> None:
    names = ["../../etc/passwd", "a/b", "a b", "a\nb", "a-b", "", ".", "é中", "=1+1", "x" * 500, "x" * 501, "\udcff",
             "\ud800", "-rf", "rf"]  # fmt: skip
    made = [unique_part(name) for name in names]
    assert len(set(made)) == len(names)
    for part in made:
        assert all(c.isascii() and (c.isalnum() or c in "._-") for c in part)
        assert part[0] not in "-."
        assert 0 < len(part) <= 69
    assert made == [unique_part(name) for name in names]
