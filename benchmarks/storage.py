"""Takes the images' storage away from runs and verifications, brings it back, and compares with undisturbed ones.

The data set's folder is moved away (mv), removed and restored (rm), or closed to its readers (chmod), or its disk, a
tmpfs, is unmounted (umount), for some seconds, during training, an evaluation or a verification. A run's losses,
accuracies and weights must be those of an undisturbed run, bit for bit, with no image left out; a verification must
find the same. A trial that the disturbance missed, as nothing waited for the storage then, is repeated. Prints a line
per trial, and exits with 1 unless all are right.

Mounts are made in a mount namespace (unshare --mount), which nothing outside sees and which ends with the campaign.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.disturbed import MAX_SECONDS, Job, finish, strike
from harness import ROOT
from harness.artifacts.bad_image import LEFT_OUT_COLUMNS
from harness.artifacts.file_names import verification_files
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, EVALUATE, STEPS, TRAIN
from harness.artifacts.tables import read_table
from tests.support.data_sets import write_noise
from tests.support.results import Result, result_of

VERIFY = "verify"
MOMENTS = (TRAIN, EVALUATE, VERIFY)
MOVE, REMOVE, FORBID, UNMOUNT = "mv", "rm", "chmod", "umount"
WAYS = (MOVE, REMOVE, FORBID, UNMOUNT)
EPOCH = 2
# Without these, root has no more access than a file's mode allows.
UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
# Each image of the verified set is so large that decoding takes a few seconds on one thread.
VERIFIED_IMAGES, VERIFIED_SIZE = 800, (640, 480)
# A disturbance may come when everything is read that the moment needs.
MAX_ATTEMPTS = 5
NOTE = "the data could not be read from"
# Lines of a verification that may differ: how long it took, what the decoder says each time it meets a damaged image.
OTHERWISE = (NOTE, "images verified in", "[ERROR]")


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder for data sets that can be taken away and brought back: a tmpfs, if it can be unmounted.

    folder is where its data sets are. The same is kept in a copy of each, and the mounted tmpfs at another place.
    """

    folder: Path
    kept: Path
    mounts: bool

    @staticmethod
    def under(folder: Path, *, mounts: bool) -> Disk:
        """Make a disk in this folder."""
        disk = Disk(folder / "disk", folder / "kept", mounts)
        disk.folder.mkdir()
        disk.kept.mkdir()
        if mounts:
            (folder / "tmpfs").mkdir()
            _run("mount", "-t", "tmpfs", "pplcnet", str(disk._tmpfs))
            disk._mount()
        return disk

    @property
    def _tmpfs(self) -> Path:
        return self.folder.parent / "tmpfs"

    def _mount(self) -> None:
        _run("mount", "--bind", str(self._tmpfs), str(self.folder))

    def keep(self, data: Path) -> None:
        """Keep a copy of a data set that is whole now."""
        shutil.copytree(data, self.kept / data.name)

    def disturb(self, data: Path, way: str, seconds: float) -> None:
        """Take a data set away for this number of seconds."""
        aside, mode = self.folder / "aside", data.stat().st_mode
        if way == MOVE:
            data.rename(aside)
        elif way == REMOVE:
            shutil.rmtree(data)
        elif way == FORBID:
            data.chmod(0)
        else:
            _run("umount", "--lazy", str(self.folder))
        time.sleep(seconds)
        if way == MOVE:
            aside.rename(data)
        elif way == REMOVE:
            shutil.copytree(self.kept / data.name, data)
        elif way == FORBID:
            data.chmod(mode)
        else:
            self._mount()

    def close(self) -> None:
        """Unmount."""
        if self.mounts:
            for place in (self.folder, self._tmpfs):
                with suppress(RuntimeError):
                    _run("umount", "--lazy", str(place))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification says: its exit code, its table, how many images it has checked and what it printed."""

    code: int
    table: str
    state: Mapping[str, object]
    printed: str

    def differs(self, other: Verdict) -> list[str]:
        """What isn't equal."""
        return [name for name in ("code", "table", "state", "printed") if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What all trials share, and what undisturbed runs and verifications ended with."""

    job: Job
    disk: Disk
    verified: Path
    runs: Mapping[int, Result]
    verdict: Verdict | None

    def trial(self, way: str, seconds: float, moment: str, ranks: int, name: str) -> tuple[list[str], str]:
        """Disturb once. Returns what is wrong, and what was seen; that is empty if the disturbance missed."""
        if moment == VERIFY:
            assert self.verdict is not None
            folder = self.job.results / name
            verdict, note = verify(
                self.job, self.verified, folder, lambda: self.disk.disturb(self.verified, way, seconds)
            )
            return verdict.differs(self.verdict), note

        def disturb(_: Mapping[str, psutil.Process]) -> bool:
            self.disk.disturb(self.job.data, way, seconds)
            return True

        struck = strike(self.job, name, ranks, moment, EPOCH, 0.0, disturb)
        files = RunFiles(self.job.results, name)
        if struck.code:
            return [f"exit {struck.code}"], struck.seen
        faults = _learnt(result_of(files)).differs(self.runs[ranks])
        record = json.loads(files.record.read_text(encoding="utf-8"))
        if any(record["summary"][column] for column in LEFT_OUT_COLUMNS.values()):
            faults.append("images left out by the record")
        if len(read_table(files.table(BAD_IMAGES.name), BAD_IMAGES)):
            faults.append(BAD_IMAGES.name)
        steps = read_table(files.table(STEPS.name), STEPS)
        longest = steps.nlargest(1, "step_seconds").iloc[0]
        hit = longest["phase"] == moment and longest["step_seconds"] >= seconds / 2
        notes = [line for line in record["warnings"] if NOTE in line]
        if not faults and not (hit and notes):
            return [], ""
        return faults, f"{longest['phase']} waited {longest['step_seconds']:.1f} s"


def _learnt(result: Result) -> Result:
    """A result without DALI's own state, which counts the batches that failed; later losses follow from the rest."""
    return replace(result, arrays={name: value for name, value in result.arrays.items() if not name.endswith("/dali")})


def _run(*words: str) -> None:
    """Run a command. Raises RuntimeError with what it printed if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def write_verified(folder: Path) -> Path:
    """A data set of large images, of which one is empty and one is cut off."""
    write_noise(folder, VERIFIED_IMAGES, 8)
    image = Image.effect_noise(VERIFIED_SIZE, 100.0).convert("RGB")
    image.save(folder / "large.jpg")
    content = (folder / "large.jpg").read_bytes()
    (folder / "large.jpg").unlink()
    paths = sorted((folder / "train").rglob("*.jpg"))
    for path in paths:
        path.write_bytes(content)
    paths[3].write_bytes(b"")
    paths[-5].write_bytes(content[: len(content) // 3])
    return folder


def verify(job: Job, data: Path, results: Path, disturb: Callable[[], None] | None = None) -> tuple[Verdict, str]:
    """Verify a data set, and disturb the verification in its middle. Returns its verdict, and what it waited for."""
    size = sum(path.stat().st_size for path in data.rglob("*.jpg"))
    table, state, _ = verification_files(results, data.name)
    words = [*job.prefix, sys.executable, str(ROOT / "run_bench.py"), "verify", str(data), "--results", str(results)]
    words += ["--threads", "1"]
    results.mkdir()
    # Lines are not broken to fit a terminal.
    environment = {**os.environ, "COLUMNS": "1000"}
    with (results / "output").open("w+b") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            if disturb is not None:
                _until_read(process.pid, size // 2, table)
                disturb()
            code = process.wait(MAX_SECONDS)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        lines = output.read().decode(errors="replace").replace(str(results), "").splitlines()
    values = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    rows = table.read_text(encoding="utf-8") if table.exists() else ""
    printed = "\n".join(line for line in lines if not any(text in line for text in OTHERWISE))
    return Verdict(code, rows, values, printed), "; ".join(line for line in lines if NOTE in line)


def _until_read(pid: int, size: int, table: Path) -> None:
    """Return when a process has read this number of bytes since the table was there, or has ended."""
    deadline, before = time.monotonic() + MAX_SECONDS, None
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
        while time.monotonic() < deadline:
            read = psutil.Process(pid).io_counters().read_chars
            if before is None and table.exists():
                before = read
            if before is not None and read - before >= size:
                return
            time.sleep(0.002)


def campaign(
    ways: Sequence[str],
    times: Sequence[float],
    moments: Sequence[str],
    trials: int,
    ranks: Sequence[int],
    say: Callable[[str], None],
    job: Job,
    disk: Disk,
) -> int:
    """Disturb once per trial of each way, time and moment. Returns how many trials ended otherwise than undisturbed."""
    write_noise(job.data, 160, 800)
    verified = write_verified(disk.folder / "verified")
    for data in (job.data, verified):
        disk.keep(data)
    training = any(moment != VERIFY for moment in moments)
    runs = {count: _learnt(finish(job, f"undisturbed{count}", count)) for count in ranks} if training else {}
    verdict = verify(job, verified, job.results / "undisturbed")[0] if VERIFY in moments else None
    all_trials = Campaign(job, disk, verified, runs, verdict)
    wrong = 0
    for trial, moment, seconds, way in itertools.product(range(trials), moments, times, ways):
        count = ranks[trial % len(ranks)]
        for attempt in range(MAX_ATTEMPTS):
            name = f"{way}-{seconds:g}s-{moment}-{trial}-{attempt}"
            faults, seen = all_trials.trial(way, seconds, moment, count, name)
            if seen or faults:
                break
            say(f"{name}: missed")
        else:
            faults = ["never hit"]
        wrong += bool(faults)
        where = "" if moment == VERIFY else f" on {count} rank{'s' * (count > 1)}"
        say(f"{name}{where}: {seen}: {'wrong: ' + ', '.join(faults) if faults else 'equal'}")
    return wrong


def main() -> int:
    """Run the campaign and print each trial. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seconds", nargs="+", type=float, default=(1.0, 5.0), help="how long the storage is away")
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=MOMENTS)
    parser.add_argument("--trials", type=int, default=1, help="of each way, time and moment")
    parser.add_argument("--ranks", nargs="+", type=int, default=(2, 1), help="the trials take turns in these numbers")
    parser.add_argument("--device", default="cpu", help="kind of device, as run_bench.py knows it")
    parser.add_argument("--unshared", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    mounts = UNMOUNT in given.ways
    if mounts and not given.unshared:
        # Also without root, in a user namespace in which this user is called root.
        mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
        words = ["unshare", *mapped, "--mount", sys.executable, "-m", "benchmarks.storage", *sys.argv[1:], "--unshared"]
        os.execvp(words[0], words)  # noqa: S606
    folder = Path(tempfile.mkdtemp(prefix="pplcnet-storage-"))
    disk = Disk.under(folder, mounts=mounts)
    job = Job(given.device, disk.folder / "data", folder, UNPRIVILEGED if os.geteuid() == 0 else ())
    try:
        wrong = campaign(
            given.ways, given.seconds, given.moments, given.trials, given.ranks,
            lambda line: print(line, flush=True), job, disk,
        )  # fmt: skip
    finally:
        disk.close()
        shutil.rmtree(folder, ignore_errors=True)
    count = given.trials * len(given.moments) * len(given.seconds) * len(given.ways)
    print(f"{count - wrong} of {count} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
