"""Options carry their own rules: what is declared in one place holds everywhere."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import ROOT
from harness.errors import UsageError
from harness.plan.declaration import Limits, first_sentence, home_path, option, options_of, parse_values

# One option more, as an author would declare it.
DECLARATION = """\
    fog: float = option(
        0.25, "data", "Share of fog in training images. Weather follows.", metavar="SHARE", at_least=0, at_most=1,
    )  # fmt: skip
"""
USES = """
import json, sys
from dataclasses import replace
from pathlib import Path
from harness.analysis.comparing.run_diff import differences
from harness.artifacts.record import RunRecord, read_record, write_record
from harness.commands.resume import Resumption, check_same_run
from harness.errors import UsageError
from harness.machine.device import Devices
from harness.plan.options import RunConfig
from harness.plan.decisions import make_plan
from harness.plan.nodes import check_signatures, run_signature
from harness.plan.plan import IMAGENET
from harness.plan.published import marks
from harness.report.docs import options_markdown

def refusal(call, *arguments):
    try:
        call(*arguments)
    except UsageError as error:
        return f"{error.message} {error.cure}"

config = RunConfig(fog=0.5, epochs=2)
plan = make_plan(config, Devices("cpu", 2, "CPU"), IMAGENET, {})
write_record(Path("a.json"), RunRecord("a", "running", config, plan, {}))
record = read_record(Path("a.json"))
other = replace(config, fog=0.75)
signatures = [run_signature(one, plan) for one in (config, other)]
print(json.dumps({
    "recorded": record.config.fog,
    "resumed": refusal(check_same_run, Resumption(record, None, {}), other, plan),
    "nodes": refusal(check_signatures, signatures, [0, 1]),
    "compared": [one.name for one in differences(record, replace(record, config=other))],
    "marked": [marks(one, plan)[-1] for one in (config, replace(config, fog=0.25))],
    "documented": "| `--fog SHARE` | Share of fog in training images. Weather follows. | 0.25 |" in options_markdown(),
}))
"""


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with one declaration more, and nothing else changed."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("harness", "models", "pipelines"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("run_bench.py", "pyproject.toml"):
        shutil.copy(ROOT / file, copy)
    config = copy / "harness" / "plan" / "option_groups" / "data.py"
    before, mark, after = config.read_text(encoding="utf-8").partition("    bad_images: str = option(")
    assert mark
    config.write_text(f"{before}{DECLARATION}{mark}{after}", encoding="utf-8")
    return copy


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )


def test_adding_an_option_is_one_edit(edited: Path) -> None:
    """One declaration gives its flag, help, TOML key, limits, record, documentation and rules."""
    help_text = run(edited, "run_bench.py", "--help").stdout
    assert "  --fog SHARE " in help_text
    assert "Share of fog in training images (default: 0.25)." in help_text
    assert "Weather" not in help_text
    (edited / "it.toml").write_text("fog = 1.5", encoding="utf-8")
    refused = run(edited, "run_bench.py", "--dry-run", "--config", "it.toml")
    assert (refused.returncode, refused.stderr) == (2, "error: --fog is 1.5; it must be at least 0 and at most 1\n")
    used = run(edited, "-c", USES)
    assert used.returncode == 0, used.stderr
    found = json.loads(used.stdout)
    assert found["recorded"] == 0.5
    assert "--fog: 0.5 before, 0.75" in found["resumed"]
    assert "--fog: 0.5 on node 0, 0.75 on node 1" in found["nodes"]
    assert found["compared"] == ["fog"]
    assert found["marked"][0] == "fog 0.5"
    assert "fog" not in found["marked"][1]
    assert found["documented"]


@dataclass(frozen=True)
class Declared:
    share: float | None = option(None, "any", "A share of something. More about it.", at_least=0, below=1)
    count: int = option(1, "any", "A number.", above=0)
    switch: bool = option(False, "any", "A switch.")


@pytest.mark.parametrize(
    ("limits", "value", "message"),
    [
        (Limits(at_least=1), 0, "--it is 0; it must be at least 1"),
        (Limits(above=0), 0.0, "--it is 0.0; it must be above 0"),
        (Limits(at_most=3), 4, "--it is 4; it must be at most 3"),
        (Limits(at_least=0, below=1), 1.0, "--it is 1.0; it must be at least 0 and below 1"),
        (Limits(), math.nan, "--it is nan; it must be finite"),
        (Limits(above=0), math.inf, "--it is inf; it must be finite"),
    ],
)
def test_a_value_outside_its_limits_is_named_with_them(limits: Limits, value: float, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        limits.check("it", value)
    assert caught.value.message == message


def test_what_an_option_is_comes_from_its_declaration() -> None:
    found = options_of(Declared)
    assert [(one.name, one.kind, one.default) for one in found.values()] == [
        ("share", float, None), ("count", int, 1), ("switch", bool, False)
    ]  # fmt: skip
    found["share"].check(None)
    found["share"].check(0.5)
    for value in (1.0, -0.1):
        with pytest.raises(UsageError, match="--share is"):
            found["share"].check(value)
    with pytest.raises(UsageError, match="at most 2147418111"):
        found["count"].check(2**40)
    assert options_of(Declared) is found  # read once


def test_a_limit_is_given_with_its_reason() -> None:
    with pytest.raises(UsageError) as caught:
        Limits(at_least=32).check("it", 3, "Because of that.")
    assert (caught.value.message, caught.value.cure) == ("--it is 3; it must be at least 32", "Because of that.")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "/home/me"), ("~/a b/c", "/home/me/a b/c"), ("~root/x", "/root/x"), ("./digits", "./digits"),
        ("digits", "digits"), ("a/~", "a/~"), ("", ""), ("/data/~me", "/data/~me"), ("./~x", "./~x"),
    ],
)  # fmt: skip
def test_a_path_in_a_home_folder(text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case C7: only where a shell would replace it, too."""
    monkeypatch.setenv("HOME", "/home/me")
    assert home_path(text) == path


@pytest.mark.parametrize("text", ["~nobody-here", "~nobody-here/data"])
def test_the_home_folder_of_an_unknown_user_is_refused(text: str) -> None:
    """Case C7: the cure names a folder in the current one, which is taken as it is."""
    with pytest.raises(UsageError, match="a user 'nobody-here', whom this machine doesn't have") as caught:
        home_path(text)
    cure = caught.value.cure.partition(": ")[2]
    assert home_path(cure) == f"./{text}"


def test_the_first_sentence_is_what_the_help_shows() -> None:
    assert first_sentence("A share of something. More about it.") == "A share of something."
    assert first_sentence("Stop at +/-0.5 %.") == "Stop at +/-0.5 %."


def test_values_are_checked_for_names_and_types() -> None:
    assert parse_values(Declared, {"share": 1, "count": 2}, "it.toml") == {"share": 1.0, "count": 2}
    with pytest.raises(UsageError, match=r"it\.toml: unknown key 'shares'") as caught:
        parse_values(Declared, {"shares": 1}, "it.toml")
    assert caught.value.cure == "Did you mean 'share'?"
