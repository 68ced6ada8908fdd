from __future__ import annotations

import pytest

from harness.artifacts.file_names import readable_part, unique_part


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
