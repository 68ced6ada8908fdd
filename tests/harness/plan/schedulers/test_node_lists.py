"""Slurm's lists of nodes, as its manual pages write them."""

from __future__ import annotations

import pytest

from harness.plan.schedulers.node_lists import MAX_NODES, expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu5", ["gpu5"]),
        ("node[01-03,07],gpu5", ["node01", "node02", "node03", "node07", "gpu5"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[5,3,4]", ["n5", "n3", "n4"]),
        ("tux[0-1][0-2]", ["tux00", "tux01", "tux02", "tux10", "tux11", "tux12"]),
        ("rack[1-2]-node[09-10].local", ["rack1-node09.local", "rack1-node10.local", "rack2-node09.local",
                                         "rack2-node10.local"]),
        ("a,b-1,c[1]", ["a", "b-1", "c1"]),
        ("10.77.31.[1-2]", ["10.77.31.1", "10.77.31.2"]),
    ],
)  # fmt: skip
def test_a_list_is_written_out_in_its_order(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no name of a node at ''"),
        ("a,", "no name of a node at ''"),
        (",a", "no name of a node at ',a'"),
        ("a b", "no comma at ' b'"),
        ("n[1-2", "no comma at '[1-2'"),
        ("n1-2]", "no comma at ']'"),
        ("n[]", "no range of numbers: ''"),
        ("n[2-1]", "no range of numbers: '2-1'"),
        ("n[1-x]", "no range of numbers: '1-x'"),
        ("n[1-2-3]", "no range of numbers: '1-2-3'"),
        ("n[0-4294967295]", "no range of numbers: '0-4294967295'"),
        ("n[0-9999][0-9999]", f"more than {MAX_NODES} nodes"),
    ],
)
def test_anything_else_is_no_list(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"no |more ") as caught:
        expand(text)
    assert str(caught.value) == said
