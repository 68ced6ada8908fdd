"""docs/environment.md names every environment variable that the code names, where it is read, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import ROOT
from harness.machine.device import LAUNCHER_VARIABLES
from tests.support.pages import first_cells, read, sections

CODE = [path for folder in ("harness", "pipelines", "models") for path in sorted((ROOT / folder).rglob("*.py"))]
# Libraries' own variables, and the usual ones of a shell.
NAME = re.compile(
    r"(PPLCNET|CUSTOM|PADDLE|FLAGS|CUDA|NVIDIA|NCCL|GLOO|OMP|MKL|KMP|XDG|GIT|DALI|GLOG|MASTER|NSYS|POD|LC)_\w*|no_proxy|NO_PROXY"
    r"|(SLURMD?|OMPI|PMIX?|MPI|PET|TORCHELASTIC|LOCAL_WORLD|WORLD|JOB_COMPLETION)_\w*|RANK|HOSTNAME"
)
# What looks like one and is not.
OTHERS = {"CUDA_ERROR_OUT_OF_MEMORY"}
PAGE = read("environment.md")
SECTIONS = sections(PAGE)


def named_in(path: Path) -> Iterator[str]:
    """The names of variables that a module has as whole texts, as bytes or as the start of names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if NAME.fullmatch(text) and text not in OTHERS:
                yield text


def named_on_the_page() -> set[str]:
    return {word.rstrip(".") for word in re.findall(r"`([^`]+)`", PAGE) if NAME.fullmatch(word.rstrip("."))}


def test_the_page_and_the_code_name_the_same_variables() -> None:
    assert named_on_the_page() - {"GIT_DIR"} == {name for path in CODE for name in named_in(path)}


def test_every_access_to_the_environment_is_of_a_named_variable() -> None:
    """A name that is put together, or an unusual one, would escape the comparison above."""
    access = re.compile(r"environ(?:ment)?(?:\.get\(|\[|\.pop\()(b?\"?\w+\"?)|\benv(?:\.get\(|\[|\.pop\()(b?\"?\w+\"?)")
    texts = [path.read_text(encoding="utf-8") for path in CODE]
    found = {(one or other).strip('b"') for text in texts for one, other in access.findall(text)}
    # The others are keys of the machine's description, which the record calls environment, too.
    found = {name for name in found if name.isupper() or "_proxy" in name}
    assert found - {"RUN_PID", "CACHE_VARIABLE", "PLUGIN_ROOT", "GPU", "TF32_OVERRIDE"} <= named_on_the_page()
    assert len(found) >= 8


@pytest.mark.parametrize(
    "section",
    [
        "For you to set",
        "Set for the ranks",
        "Set by schedulers, and read",
        "Set by Paddle's launcher, and read",
        "Set by Nsight Systems, and read",
    ],
)
def test_the_page_says_where(section: str) -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", SECTIONS[section], re.MULTILINE)[2:]
    assert rows
    for variables, modules in rows:
        for module in re.findall(r"`([^`]+)`", modules):
            names = set(named_in(ROOT / module))
            for variable in re.findall(r"`([^`]+)`", variables):
                assert variable in names or variable == "OMP_NUM_THREADS", (variable, module)
    for prefix in LAUNCHER_VARIABLES:
        assert f"`{prefix}`" in SECTIONS["Set for the ranks"]


def test_make_has_the_variables_that_the_page_lists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+) \?=", makefile, re.MULTILINE) == sorted(
        first_cells(SECTIONS["For make"]), key=["VENV", "PYTHON", "DEVICE", "WHEEL"].index
    )
