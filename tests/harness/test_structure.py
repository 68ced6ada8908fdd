"""The arrangement of the code: imports go downward only, and each kind of process loads what it needs alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from harness import ROOT
from tests.support.rooms import LEVELS

LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
PACKAGES = ("harness", "pipelines", "models")
# Comparisons with the name of a kind of device; `harness.machine.device_kinds` has what follows from the kind.
NAME = r"""["'](?:cpu|gpu)["']"""
ASKS_FOR_A_KIND = re.compile(rf"(?:==|!=|\bin) *\(?{NAME}|{NAME} *(?:==|!=)|\.kind (?:==|is) (?:CPU|GPU)\b")
MAX_LINES, MAX_MODULES = 350, 15


@cache
def modules() -> dict[str, Path]:
    """The product's modules by dotted name, a package by its own."""
    paths = [ROOT / "run_bench.py", *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def room_of(module: str) -> str:
    """The room a module is in: a package, or a folder or module directly below harness."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "harness" else parts[0]


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Each module of ours that a file imports, and whether it does so when it is loaded itself."""
    known = modules()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_load = {id(node) for node in _executed_at_load(tree)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in whole]
        for name in names:
            if name in known:
                yield name, id(node) in at_load


def _executed_at_load(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the file is imported: nothing inside functions or under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        guarded = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if not guarded and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from _executed_at_load(node)


def test_every_room_has_its_level() -> None:
    assert {room_of(module) for module in modules()} == set(LEVEL_OF)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_downward(module: str) -> None:
    room = room_of(module)
    wrong = [
        name
        for name, _ in imports_of(modules()[module])
        if (other := room_of(name)) != room and LEVEL_OF[other] >= LEVEL_OF[room]
    ]
    assert wrong == []


def test_only_the_command_line_imports_what_ranks_do() -> None:
    found = {
        module: at_load
        for module, path in modules().items()
        for name, at_load in imports_of(path)
        if room_of(name) == "harness.training" and room_of(module) != "harness.training"
    }
    assert found == {"harness.cli": False}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {name for name, at_load in imports_of(path) if at_load} for module, path in modules().items()}
    while free := {module for module, names in graph.items() if not names & set(graph)}:
        graph = {module: names for module, names in graph.items() if module not in free}
    assert graph == {}


def test_modules_and_rooms_stay_small() -> None:
    lengths = {module: path.read_text(encoding="utf-8").count("\n") for module, path in modules().items()}
    assert {module: lines for module, lines in lengths.items() if lines > MAX_LINES} == {}
    folders = [path.parent for path in modules().values() if path.name != "__init__.py" and path.parent != ROOT]
    crowded = {str(folder.relative_to(ROOT)): folders.count(folder) for folder in folders}
    crowded = {name: count for name, count in crowded.items() if count > MAX_MODULES and name.startswith("harness")}
    assert crowded == {}


def test_the_harness_is_its_rooms() -> None:
    rooms = {room.partition(".")[2] for room in LEVEL_OF if room.startswith("harness.")}
    found = {
        path.stem for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__"} == rooms


def branches() -> Iterator[tuple[str, str]]:
    """Each condition of the harness, with the module that has it."""
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            tests = node.ifs if isinstance(node, ast.comprehension) else [getattr(node, "test", None)]
            for test in tests:
                if isinstance(test, ast.expr):
                    yield module, ast.unparse(test)


def test_few_branches_ask_what_kind_of_run_it_is() -> None:
    asked = re.compile(r"\bkind\.(trains|resumable)|\b(config|plan)\.kind is\b|throughput_only|eval_only")
    found = [(module, test) for module, test in branches() if asked.search(test) and module != "harness.plan.kinds"]
    assert len(found) <= 8, found


def test_no_branch_asks_whether_there_is_a_node() -> None:
    assert [(module, test) for module, test in branches() if re.search(r"\bnode is (not )?None", test)] == []


@pytest.mark.parametrize(
    ("loads", "absent"),
    [
        ("harness.training.worker", "pandas"),
        ("harness.commands.run, harness.commands.resume, harness.analysis.summarize", "paddle"),
        ("harness.commands.run, harness.commands.resume, harness.analysis.summarize", "nvidia.dali"),
        ("harness.cli, harness.commands.run", "pandas"),
        ("harness.cli, harness.commands.run", "scipy"),
        ("harness.launch.paddle_launcher", "numpy"),
        ("harness.cli, harness.commands.run", "filelock"),
        ("harness.training.worker", "filelock"),
        ("harness.training.phases", "paddle"),
        ("harness.training.phases", "nvidia.dali"),
    ],
)
def test_a_process_loads_what_it_needs_alone(loads: str, absent: str) -> None:
    code = f"import sys, {loads}; sys.exit({absent!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tests_share_what_is_in_support_alone() -> None:
    """A test module that another imports is a helper that nobody finds."""
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    found = {
        str(path.relative_to(ROOT)): node.module
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and re.match(r"tests(?!\.support\b)", node.module or "")
    }
    assert found == {}


def test_only_the_table_of_devices_knows_in_what_they_differ() -> None:
    asking = [
        f"{module}: {line.strip()}"
        for module, path in modules().items()
        for line in path.read_text(encoding="utf-8").splitlines()
        if ASKS_FOR_A_KIND.search(line)
    ]
    assert asking == []
    for line in ('if plan.device == "gpu":', "kind != 'cpu'", 'x if "cpu" == kind else y', "devices.kind is GPU"):
        assert ASKS_FOR_A_KIND.search(line)
