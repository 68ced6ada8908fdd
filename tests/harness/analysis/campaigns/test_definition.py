"""A campaign's TOML file: the runs that it asks for, and what it can't mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT
from harness.analysis.campaigns.definition import MAX_CELLS, Cell, config_of, parse_campaign
from harness.errors import UsageError
from harness.plan.option_checks import RUN_NAME

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parsed(text: str) -> Any:
    return parse_campaign(tomllib.loads(text), "it.toml")


MATRIX = """
repeats = 2
[options]
throughput_only = true
[matrix]
model = ["x0_25", "x1_0"]
batch_size = [8, "auto"]
[[exclude]]
model = "x1_0"
batch_size = 8
[[include]]
model = "x2_5"
image_size = 160
"""


def test_a_matrix_is_every_combination_with_what_is_included_and_without_what_is_excluded() -> None:
    campaign = parsed(MATRIX)
    assert [(cell.name, cell.reason) for cell in campaign.cells] == [
        ("model=x0_25, batch-size=8", ""), ("model=x0_25, batch-size=auto", ""),
        ("model=x1_0, batch-size=8", "excluded"),
        ("model=x1_0, batch-size=auto", ""), ("model=x2_5, image-size=160", ""),
    ]  # fmt: skip
    config = config_of(campaign.cells[0], run_name="a", results="there")
    assert (config.model, config.batch_size, config.throughput_only, config.results) == ("x0_25", 8, True, "there")
    assert config_of(campaign.cells[1]).batch_size is None


def test_sizes_of_images_are_numbers_and_texts() -> None:
    campaign = parsed('[matrix]\nimage_size = [64, "80x160", "96X96"]\n')
    assert [cell.name for cell in campaign.cells] == ["image-size=64", "image-size=80x160", "image-size=96"]
    assert [cell.run(1) for cell in campaign.cells][1] == "image-size-80x160.r1"
    assert [config_of(cell).image_size for cell in campaign.cells] == [64, "80x160", 96]
    with pytest.raises(UsageError) as caught:
        parsed('[matrix]\nimage_size = [64, "80x"]\n')
    assert caught.value.message == "it.toml: matrix: image_size is '80x', which is not a size in pixels"
    with pytest.raises(UsageError, match="image_size has a value twice"):
        parsed('[matrix]\nimage_size = [64, "64x64"]\n')


def test_repeats_are_interleaved_over_the_cells() -> None:
    runs = [cell.run(repeat) for cell, repeat in parsed(MATRIX).runs]
    assert runs[:4] == [
        "model-x0_25--batch-size-8.r1", "model-x0_25--batch-size-auto.r1", "model-x1_0--batch-size-auto.r1",
        "model-x2_5--image-size-160.r1",
    ]  # fmt: skip
    assert runs[4:] == [name.removesuffix("1") + "2" for name in runs[:4]]


def test_without_a_matrix_there_is_one_cell() -> None:
    campaign = parsed("[options]\nepochs = 3\n")
    assert [(cell.name, cell.run(1)) for cell in campaign.cells] == [("the only cell", "run.r1")]


@pytest.mark.parametrize("value", ["/data/a b/ä", "-x", "a" * 200, "=1+1", "../up", "\n", "\x00", "a/b"])
def test_every_name_can_be_that_of_a_run(value: str) -> None:
    name = Cell({"data": value, "telemetry_library": value}, {}).run(1)
    assert RUN_NAME.fullmatch(name)
    assert name != Cell({"data": value + "'", "telemetry_library": value}, {}).run(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matrx = 1", "it.toml: unknown 'matrx'"),
        ("repeats = 0", "it.toml: repeats is 0; it must be a whole number from 1 to 100"),
        ("repeats = true", "it.toml: repeats is True; it must be a whole number from 1 to 100"),
        ("options = 1", "it.toml: options is not a table"),
        ("[options]\nbatchsize = 1", "batchsize"),
        ("[options]\nrun_name = 'a'", "it.toml: options: --run-name is the campaign's own"),
        ("[matrix]\nresults = ['a']", "it.toml: matrix: --results is the campaign's own"),
        ("[matrix]\nmodel = 'x1_0'", "it.toml: matrix: model is 'x1_0'; it must be a list of values"),
        ("[matrix]\nmodel = []", "it.toml: matrix: model is []; it must be a list of values"),
        ("[matrix]\nmodel = ['x1_0', 'x1_0']", "it.toml: matrix: model has a value twice"),
        ("[matrix]\nmodel = ['x1_0', 'x9']", "it.toml: the cell 'model=x9': unknown model 'x9'"),
        ("[matrix]\nbatch_size = [8, 'big']", "type"),
        ("include = 1", "it.toml: include is not a list of tables"),
        ("[[include]]\nmodel='x1_0'\n[[include]]\nmodel='x1_0'", "it.toml: the cell 'model=x1_0' is there twice"),
        ("[options]\nthroughput_only=true\neval_only=true", "it.toml: the cell 'the only cell': "),
        (f"[matrix]\nseed = {list(range(MAX_CELLS + 1))}", "it.toml: 1,001 cells are more than 1,000"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_the_file_s_name(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert message in caught.value.message


@pytest.mark.parametrize("path", sorted((ROOT / "campaigns").glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_campaigns_can_be_run(path: Path) -> None:
    campaign = parsed(path.read_text(encoding="utf-8"))
    assert len(campaign.runs) > 3
    for cell, repeat in campaign.runs:
        config_of(cell, run_name=cell.run(repeat))
