"""docs/extending.md does what it says: its patches are applied to a copy of the code, which then has the new thing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import ROOT

PAGE = ROOT / "docs" / "extending.md"
COPIED = (
    "harness",
    "pipelines",
    "models",
    "tests/support",
    "docs",
    "results/bi_v100.csv",
    "run_bench.py",
    "pyproject.toml",
)
Check = Callable[..., str]


def patch_of(heading: str) -> str:
    """The patch in the section of the page with this heading."""
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    (patch,) = re.findall(r"^```diff\n(.*?)^```", sections[heading], re.MULTILINE | re.DOTALL)
    return str(patch)


def hunks_of(patch: str) -> Iterator[tuple[str, str, str]]:
    """Each hunk of a patch: the file it belongs to, the lines it replaces and those that take their place."""
    for part in re.split(r"^--- .*\n", patch, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        for hunk in body.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            yield name.removeprefix("+++ b/"), before, "".join(line[1:] for line in lines if line[0] != "-")


def apply(patch: str, checkout: Path) -> None:
    """Apply a patch whose hunks have no line numbers; the lines that a hunk replaces must be there exactly once."""
    for name, before, after in hunks_of(patch):
        path = checkout / name
        text = path.read_text(encoding="utf-8") if before else ""
        if before and text.count(before) != 1:
            raise ValueError(f"{name} does not have exactly once: {before}")
        path.write_text(text.replace(before, after) if before else after, encoding="utf-8")


@pytest.fixture
def extended(request: pytest.FixtureRequest, tmp_path: Path) -> Check:
    """A copy of the code with the patch of the section that the test names; runs Python code in it."""
    checkout = tmp_path / "checkout"
    for name in COPIED:
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    apply(patch_of(request.param), checkout)

    def run(*command: str, rc: int = 0) -> str:
        environment = {**os.environ, "PPLCNET_BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command], cwd=checkout, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout if rc == 0 else done.stderr

    return run


@pytest.mark.parametrize("extended", ["An option"], indirect=True)
def test_an_option_is_one_edit(extended: Check) -> None:
    assert "--max-gradient NORM" in extended("run_bench.py", "--help")
    said = extended("run_bench.py", "--max-gradient", "0", rc=2)
    assert said == "error: --max-gradient is 0.0; it must be above 0\n"
    assert "| `--max-gradient NORM` | Largest norm of a step's gradients. | no limit |" in extended(
        "-c", "from harness.report.docs import *; print(options_markdown())"
    )


@pytest.mark.parametrize("extended", ["A column"], indirect=True)
def test_a_column_is_written_read_and_documented(extended: Check) -> None:
    code = """
from pathlib import Path
from types import SimpleNamespace
from harness.artifacts.tables import TableWriter, read_table
from harness.artifacts.schema import EPOCHS, STEPS
from harness.machine.sampler import WindowTelemetry
from harness.report.docs import tables_markdown
from harness.training.loop import GlobalStep
from harness.training.recorder import TableRecorder

sampler = SimpleNamespace(window=lambda start, end: WindowTelemetry())
with TableWriter(Path("steps.csv"), STEPS) as steps, TableWriter(Path("epochs.csv"), EPOCHS) as epochs:
    step = GlobalStep(0, 32, 0.5, 0.5, 0.1, 0.0, 0.4, 0.1, 0.2, 0.1, 0.0, 0.0, 0, 0.0, 2.3)
    TableRecorder(steps, epochs, sampler).step(step, 0.0, phase="train", segment=1, step=1)
print(read_table(Path("steps.csv"), STEPS)["data_wait_share"].tolist())
print(*[line for line in tables_markdown().splitlines() if "data_wait_share" in line][:1])
"""
    value, row = extended("-c", code).splitlines()
    assert value == "[0.2]"
    assert row == "| `data_wait_share` | fraction | rank that got its batch last | data_wait_seconds / step_seconds |"


@pytest.mark.parametrize("extended", ["A phase"], indirect=True)
def test_a_phase_is_measured_and_shown(extended: Check) -> None:
    """Two simulated ranks, of which one computes twice as long as the other."""
    code = """
import io
from pathlib import Path
from types import SimpleNamespace
from rich.console import Console
from harness.report.findings import phases_table
from tests.support.simulation import BATCH, Simulation

figures, files = Simulation(ranks=2, compute=lambda rank, step: 0.1 * (1 + rank)).run(Path("."))
console = Console(file=io.StringIO(), width=100)
console.print(phases_table(SimpleNamespace(phases=figures.as_record()["phases"])))
print(list(figures.phases))
print(figures.phases["compute_aligned"].fps / (2 * BATCH / 0.2))
print(*[line.strip() for line in console.file.getvalue().splitlines() if "aligned" in line])
"""
    names, rate, shown = extended("-c", code).splitlines()
    assert names == "['train', 'pipeline', 'compute', 'compute_no_sync', 'compute_aligned']"
    assert float(rate) == pytest.approx(1.0)
    assert shown.startswith("compute, aligned")
    assert "320.0" in shown


@pytest.mark.parametrize("extended", ["A model size"], indirect=True)
def test_a_model_size_is_built_and_trained(extended: Check) -> None:
    code = """
import paddle
import models
from models.architecture import parameter_shapes
from models.flops import macs

model = models.build("x0_15", 10)
shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
images = paddle.randn([4, 3, 32, 32])
before = model.fc.weight.numpy()
loss = paddle.nn.functional.cross_entropy(model(images), paddle.to_tensor([0, 1, 2, 3]))
loss.backward()
paddle.optimizer.SGD(0.1, model.parameters()).step()
print(shapes == parameter_shapes(0.15, 10), (before != model.fc.weight.numpy()).any(), macs("x0_15") < macs("x0_25"))
"""
    assert extended("-c", code).splitlines()[-1] == "True True True"
    plan = extended("run_bench.py", "--model", "x0_15", "--device", "cpu", "--dry-run")
    assert "PPLCNet_x0_15, 10 classes" in plan


@pytest.mark.parametrize("extended", ["A data set"], indirect=True)
def test_a_built_in_set_is_made_and_planned_for(extended: Check) -> None:
    plan = extended("run_bench.py", "--data", "stripes", "--device", "cpu", "--gpus", "1", "--dry-run")
    assert "stripes: 40 training and 10 validation images" in plan
    assert "2 classes" in plan
    code = """
from pipelines.builtin import BUILTIN
from pipelines.dataset import open_dataset
made, declared = open_dataset("stripes"), BUILTIN["stripes"]
print({split: len(images) for split, images in made.splits.items()} == declared.images, made.name, made.classes.origin
      == declared.origin)
"""
    assert extended("-c", code).splitlines()[-1] == "True stripes True"


@pytest.mark.parametrize("extended", ["A remedy"], indirect=True)
def test_a_remedy_is_given_where_it_applies(extended: Check) -> None:
    code = """
from pathlib import Path
from tests.support.simulation import Simulation

for prefetch in (1, 2):
    Path(str(prefetch)).mkdir()
    slow = Simulation(decode=lambda rank, batch: 0.3, options={"prefetch": prefetch})
    print(*slow.run(Path(str(prefetch)))[0].verdict.remedies, "-", sep="\\n")
"""
    (text,) = re.findall(r'"(.*--prefetch 2.*)"', patch_of("A remedy"))
    given, not_given, _ = extended("-c", code).split("-\n")
    assert text in given.splitlines()
    assert text not in not_given.splitlines()


def test_a_patch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.py does not have exactly once: three"):
        apply("--- a/a.py\n+++ b/a.py\n three\n+four\n", tmp_path)
    apply("--- a/a.py\n+++ b/a.py\n one\n+more\n@@\n-two\n--- /dev/null\n+++ b/b.py\n+new\n", tmp_path)
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == "one\nmore\n"
    assert (tmp_path / "b.py").read_text(encoding="utf-8") == "new\n"
