"""The Dockerfiles: what hadolint would say of them, and what their steps do, without Docker."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT

FILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
KNOWN = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ARG", "ENV", "ENTRYPOINT", "CMD"}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a file with their arguments, lines that go on joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    found = [re.fullmatch(r"([A-Z]+) (.+)", line) for line in lines]
    assert all(found), lines
    return [(one[1], one[2]) for one in found if one is not None]


@each_file
def test_a_file_keeps_the_rules(path: Path) -> None:
    found = instructions(path)
    kinds = [kind for kind, _ in found]
    assert set(kinds) <= KNOWN
    image = dict(found)["FROM"]
    assert ":" in image, "DL3006: the base image has a tag"
    assert not image.endswith(":latest"), "DL3007"
    for kind, rest in found:
        if kind in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list), "DL3025: a JSON list, so that signals reach the process"
        if kind == "WORKDIR":
            assert rest.startswith("/"), "DL3000"
        if kind == "RUN" and "apt-get" in rest:
            assert "--yes" in rest, "DL3014"
            assert "--no-install-recommends" in rest, "DL3015"
            assert rest.endswith("rm -rf /var/lib/apt/lists/*"), "DL3009"
        if kind == "RUN":
            assert not re.search(r"\bsudo\b|\bcd \S|\|(?!\|)", rest), "DL3004, DL3003, DL4006"
    assert kinds.index("USER") < kinds.index("ENTRYPOINT"), "DL3002: the last user is not root"
    assert dict(found)["USER"] != "root"
    assert kinds.count("CMD") == kinds.count("ENTRYPOINT") == 1, "DL4003, DL4004"


def test_the_steps_for_cpus_install_the_bench_and_start_it(tmp_path: Path) -> None:
    """The installed packages are taken as they are: downloading them again would test the network."""
    root, inside = tmp_path / "bench", "/bench"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    kept = [name for name in listed if name and not is_ignored(name) and (ROOT / name).is_file()]
    assert {"run_bench.py", "Makefile", "results/bi_v100.csv", "requirements/cpu.txt"} <= set(kept)
    ran = 0
    started: dict[str, list[str]] = {}
    for kind, rest in instructions(ROOT / "containers" / "cpu.Dockerfile"):
        if kind == "COPY":
            assert shlex.split(rest)[-2:] == [".", "."]
            for name in kept:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
            installed_packages(root)
        elif kind == "RUN" and rest.startswith("make "):
            done = subprocess.run(["sh", "-c", rest], cwd=root, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            ran += 1
        elif kind in ("ENTRYPOINT", "CMD"):
            started[kind] = [word.replace(inside, str(root)) for word in json.loads(rest)]
    assert ran == 1
    command = [*started["ENTRYPOINT"], *started["CMD"], "--dry-run"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "plan (" in done.stdout


def installed_packages(root: Path) -> None:
    """What `make install` would leave: an environment with the packages, newer than what they follow from."""
    environment = Path(sys.prefix)
    if not (environment / "installed-cpu").exists():
        pytest.skip("these tests don't run in an environment that make install made")
    (root / ".venv").symlink_to(environment)
    for name in ("Makefile", "requirements/cpu.txt"):
        os.utime(root / name, (0, 0))


def is_ignored(name: str) -> bool:
    """Whether a file is left out of the image, by the last pattern that matches it."""
    ignored = False
    for pattern in IGNORED:
        wanted = pattern.removeprefix("!")
        parts = name.split("/")
        matches = any(fnmatch.fnmatch("/".join(parts[: size + 1]), wanted) for size in range(len(parts)))
        if matches or (wanted.startswith("**/") and any(fnmatch.fnmatch(part, wanted[3:]) for part in parts)):
            ignored = not pattern.startswith("!")
    return ignored
