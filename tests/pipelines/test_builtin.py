from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, JpegImagePlugin

from pipelines.augmentation import Augmentation
from pipelines.builtin import BUILTIN, digits, photos
from pipelines.builtin.cache import cache_folder, make_once
from pipelines.dataset import open_dataset
from pipelines.errors import CacheFolderError, DataError
from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList
from pipelines.profile import profile


def digest_of_each_file(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def digests(images: ImageList) -> list[str]:
    return [hashlib.sha256((images.root / path).read_bytes()).hexdigest() for path in images.paths]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PPLCNET_BENCH_CACHE", str(folder))
    return folder


def write_whole(folder: Path) -> None:
    (folder / "a").write_text("whole")


def test_the_cache_is_where_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("PPLCNET_BENCH_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.setenv("PPLCNET_BENCH_CACHE", "")
    assert cache_folder() == Path("/xdg/pplcnet-bench")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/someone/.cache/pplcnet-bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("PPLCNET_BENCH_CACHE")
    assert cache_folder() == Path("/home/someone/.cache/pplcnet-bench")


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PPLCNET_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match="no home folder") as caught:
        cache_folder()
    assert "PPLCNET_BENCH_CACHE=" in caught.value.cure


def test_a_set_is_made_once_per_version(cache: Path) -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        write_whole(folder)

    assert make_once("x", 1, build) == cache / "x-v1"
    assert make_once("x", 1, build) == cache / "x-v1"
    assert len(calls) == 1
    assert make_once("x", 2, build) == cache / "x-v2"
    assert len(calls) == 2
    assert all(folder.parent == cache for folder in calls)  # elsewhere the rename could not be atomic
    assert sorted(file.name for file in cache.iterdir()) == ["x-v1", "x-v2"]
    assert (cache / "x-v1").stat().st_mode & 0o777 == 0o755


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def build(folder: Path) -> None:
        write_whole(folder)
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        make_once("x", 1, build)
    assert list(cache.iterdir()) == []


def test_a_killed_build_leaves_nothing_that_passes_for_whole(cache: Path) -> None:
    script = (
        "import os, signal\n"
        "from pipelines.builtin.cache import make_once\n"
        "def build(folder):\n"
        "    (folder / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_once('x', 1, build)\n"
    )
    root = Path(photos.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == -signal.SIGKILL
    assert len(list(cache.iterdir())) == 1  # the half, under its own name
    assert not (cache / "x-v1").exists()
    assert (make_once("x", 1, write_whole) / "a").read_text() == "whole"


def test_of_two_at_once_the_first_to_finish_wins_and_both_succeed(cache: Path) -> None:
    def overtaken(folder: Path) -> None:
        (folder / "a").write_text("slower")
        make_once("x", 1, write_whole)

    assert make_once("x", 1, overtaken) == cache / "x-v1"
    assert (cache / "x-v1" / "a").read_text() == "whole"
    assert [file.name for file in cache.iterdir()] == ["x-v1"]


def test_a_cache_that_cannot_be_made_is_named_with_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPLCNET_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError) as caught:
        make_once("x", 1, write_whole)
    assert caught.value.message == (
        f"the built-in data set x cannot be written to '{tmp_path}/file/cache': Not a directory"
    )
    assert "PPLCNET_BENCH_CACHE=" in caught.value.cure


def test_a_full_disk_is_reported_and_leaves_nothing(cache: Path) -> None:
    def build(folder: Path) -> None:
        write_whole(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="No space left on device"):
        make_once("x", 1, build)
    assert list(cache.iterdir()) == []


def test_the_built_in_sets_by_name() -> None:
    assert sorted(BUILTIN) == ["digits", "photos"]


@pytest.mark.slow
def test_photos_is_as_heavy_as_imagenet(builtin_cache: Path) -> None:
    dataset = open_dataset("photos")
    assert (dataset.name, dataset.builtin, dataset.num_classes) == ("photos", True, 1000)
    assert dataset.root == builtin_cache / f"photos-v{photos.VERSION}"
    assert dataset.augmentation == Augmentation()
    assert dataset.val is not None
    assert (len(dataset.train), len(dataset.val)) == (1024, 128)

    described = profile(dataset.train, check_files(dataset.train).sizes, samples=1024)
    assert described.sampled_images == 1024
    assert 108_000 <= described.mean_bytes <= 116_000  # ImageNet: 114,700
    assert described.bits_per_pixel is not None
    assert 4.5 <= described.bits_per_pixel <= 5.5
    assert described.mean_width_pixels == pytest.approx(469, abs=10)
    assert described.mean_height_pixels == pytest.approx(387, abs=10)
    assert len(check_files(dataset.val).sizes) == 128


@pytest.mark.usefixtures("builtin_cache")
def test_photos_has_imagenets_shapes_and_encoding() -> None:
    dataset = open_dataset("photos")
    sizes: Counter[tuple[int, int]] = Counter()
    subsampled = 0
    for path in dataset.train.paths:
        with Image.open(dataset.root / path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes[image.size] += 1
            subsampled += JpegImagePlugin.get_sampling(image) == 2  # 4:2:0
    common = [size for size, _ in sizes.most_common(4)]
    assert common[0] == (500, 375)
    assert set(common) == {(500, 375), (500, 333), (375, 500), (333, 500)}
    assert 410 <= sizes[500, 375] <= 490
    assert min(min(size) for size in sizes) >= 256
    assert max(max(size) for size in sizes) <= 640
    assert 50 <= subsampled <= 120


@pytest.mark.usefixtures("builtin_cache")
def test_photos_labels_run_over_all_outputs() -> None:
    dataset = open_dataset("photos")
    assert dataset.val is not None
    for images in (dataset.train, dataset.val):
        assert list(images.labels) == sorted(images.labels)
        assert images.labels[0] == 0
    assert len(set(dataset.train.labels)) == 1000
    assert dataset.train.labels[-1] == 999
    assert len(set(dataset.val.labels)) == 128


@pytest.mark.usefixtures("builtin_cache")
def test_no_photo_is_there_twice() -> None:
    dataset = open_dataset("photos")
    assert dataset.val is not None
    assert len({*digests(dataset.train), *digests(dataset.val)}) == 1024 + 128


@pytest.mark.usefixtures("builtin_cache")
def test_digits_holds_out_every_fifth_of_each_class() -> None:
    dataset = open_dataset("digits")
    assert (dataset.name, dataset.builtin, dataset.num_classes) == ("digits", True, 10)
    assert dataset.augmentation == Augmentation(flip_probability=0.0, crop_area_min=0.35)
    assert dataset.val is not None
    assert (len(dataset.train), len(dataset.val)) == (1442, 355)
    train, val = Counter(dataset.train.labels), Counter(dataset.val.labels)
    assert [val[digit] for digit in range(10)] == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert all(val[digit] == (train[digit] + val[digit]) // 5 for digit in range(10))


@pytest.mark.usefixtures("builtin_cache")
def test_digits_held_out_are_in_no_other_form_in_train() -> None:
    dataset = open_dataset("digits")
    assert dataset.val is not None
    train, val = digests(dataset.train), digests(dataset.val)
    assert len(set(val)) == 355
    assert not set(train) & set(val)
    assert {Path(path).name for path in (*dataset.train.paths, *dataset.val.paths)} == {
        f"{index:04d}.jpg" for index in range(1797)
    }


@pytest.mark.usefixtures("builtin_cache")
def test_digits_are_64_by_64_in_rgb_and_readable() -> None:
    dataset = open_dataset("digits")
    for path in dataset.train.paths[::100]:
        with Image.open(dataset.root / path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
            darkest, brightest = image.convert("L").getextrema()
            assert (darkest, brightest) == (pytest.approx(0, abs=10), pytest.approx(250, abs=20))


@pytest.mark.slow
@pytest.mark.usefixtures("builtin_cache")
def test_the_sets_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for module, files in ((photos, 1024 + 128 + 3), (digits, 1797 + 1)):
        again = tmp_path / module.NAME
        again.mkdir()
        module.build(again)
        expected = digest_of_each_file(BUILTIN[module.NAME].folder())
        assert len(expected) == files
        assert digest_of_each_file(again) == expected


@pytest.fixture
def nobody() -> Iterator[None]:
    """This process has the rights of another user."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


def make_file(folder: Path) -> None:
    (folder / "image").touch()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_the_cache_of_another_user_is_refused_with_a_cure_that_works(
    mode: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Case B7: as after one run with sudo; the folder may be hidden, or only not be writable."""
    # Not below tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        (home / ".cache").mkdir(mode=mode)
        (home / "own").mkdir()
        os.chown(home / "own", 65534, 65534)
        request.getfixturevalue("nobody")
        monkeypatch.setenv("HOME", name)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("PPLCNET_BENCH_CACHE", raising=False)
        with pytest.raises(CacheFolderError) as caught:
            make_once("x", 1, make_file)
        assert caught.value.exit_code == 3
        assert f"cannot be written to '{name}/.cache/pplcnet-bench': Permission denied" in caught.value.message
        assert "PPLCNET_BENCH_CACHE=/path/to/folder" in caught.value.cure
        monkeypatch.setenv("XDG_CACHE_HOME", f"{name}/own")
        assert make_once("x", 1, make_file) == home / "own" / "pplcnet-bench" / "x-v1"
        monkeypatch.setenv("PPLCNET_BENCH_CACHE", f"{name}/own")
        assert make_once("x", 1, make_file) == home / "own" / "x-v1"
        os.seteuid(0)


@pytest.mark.parametrize("name", ["digits", "photos"])
@pytest.mark.usefixtures("builtin_cache")
def test_what_is_declared_about_a_set_is_what_it_is(name: str) -> None:
    """Case A8: a dry run shows it without making the set."""
    declared, dataset = BUILTIN[name], open_dataset(name)
    assert declared.images == {split: len(images) for split, images in dataset.splits.items()}
    assert (declared.num_classes, declared.origin) == (dataset.num_classes, dataset.classes.origin)
    assert declared.augmentation == dataset.augmentation
