"""Shards are what other readers expect: DALI's own ones read the same images and labels from them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, tfrecord

from pipelines.packed.divided import MAGIC, joined
from pipelines.packed.members import Member, ShardError, WrittenFormat
from pipelines.packed.recordio import RECORDIO
from pipelines.packed.shards import FORMATS
from pipelines.packed.tfrecord import TFRECORD
from pipelines.packed.webdataset import WEBDATASET
from tests.support.bad_files import encoded, picture
from tests.support.packed import Image, write_shard

# Lengths of every remainder by 4, an empty one, and RecordIO's number at the places of words, at others, and twice.
CONTENTS = (
    b"\xff\xd8abc", b"", b"x" * 511, b"y" * 512, encoded(picture()), MAGIC + b"at the start", b"0123" + MAGIC,
    b"a" + MAGIC, b"01234567" + MAGIC + MAGIC + b"z", b"0123" + MAGIC + b"5678" + MAGIC + b"9",
)  # fmt: skip
IMAGES: list[Image] = [(f"n0{number}/picture {number}.jpg", 7 * number, one) for number, one in enumerate(CONTENTS)]
ALL = pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)


def content(shard: Path, member: Member) -> bytes:
    data = shard.read_bytes()[member.offset : member.offset + member.size]
    return joined(data, member.offset) if member.divided else data


def read_by_dali(shard: Path, kind: WrittenFormat, count: int) -> list[tuple[bytes, int]]:
    """The contents and labels that DALI's own reader of the format returns."""
    paths, indices = [str(shard)], [str(shard.with_suffix(".idx"))]

    @pipeline_def(batch_size=count, num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        readers: Any = fn.readers
        if kind is WEBDATASET:
            return tuple(readers.webdataset(paths=paths, index_paths=indices, ext=["jpg", "cls"], dont_use_mmap=True))
        if kind is RECORDIO:
            return tuple(readers.mxnet(path=paths, index_path=indices, dont_use_mmap=True))
        features = {
            "image/encoded": tfrecord.FixedLenFeature([], tfrecord.string, ""),
            "image/class/label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
        }
        found = readers.tfrecord(path=paths, index_path=indices, features=features, dont_use_mmap=True)
        return found["image/encoded"], found["image/class/label"]

    pipeline = graph()
    pipeline.build()
    found, labels = pipeline.run()
    read = [(np.array(found.at(place)).tobytes(), np.array(labels.at(place))) for place in range(count)]
    return [(image, int(label.tobytes()) if kind is WEBDATASET else int(label.reshape(-1)[0])) for image, label in read]


@ALL
def test_what_is_written_is_read(kind: WrittenFormat, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / f"it{kind.endings[0]}", kind, IMAGES)
    members = list(kind.scan(shard))
    assert [(content(shard, member), member.label) for member in members] == [(one, label) for _, label, one in IMAGES]
    names = [str(number) for number in range(len(IMAGES))] if kind is RECORDIO else [name for name, *_ in IMAGES]
    assert [member.name for member in members] == names


@ALL
def test_dali_reads_the_same(kind: WrittenFormat, tmp_path: Path) -> None:
    # Its readers refuse empty images.
    images = [image for image in IMAGES if image[2]]
    shard = write_shard(tmp_path / f"it{kind.endings[0]}", kind, images)
    assert read_by_dali(shard, kind, len(images)) == [(one, label) for _, label, one in images]


@ALL
def test_equal_images_make_equal_shards(kind: WrittenFormat, tmp_path: Path) -> None:
    one, other = (write_shard(tmp_path / name / f"it{kind.endings[0]}", kind, IMAGES) for name in "ab")
    assert one.read_bytes() == other.read_bytes()


@ALL
@pytest.mark.parametrize("cut", [1, 700, 1500])
def test_a_shard_that_is_cut_off_is_refused(kind: WrittenFormat, cut: int, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / f"it{kind.endings[0]}", kind, IMAGES[2:5])
    whole = shard.read_bytes()
    end = whole.rindex(b"cls" if kind is WEBDATASET else encoded(picture())[-20:])
    shard.write_bytes(whole[: end - cut])
    with pytest.raises(ShardError, match=r"unexpected end of data|goes on beyond the end"):
        list(kind.scan(shard))


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_tar_may_have_other_members_and_its_labels_in_json(tmp_path: Path) -> None:
    shard = tar(
        tmp_path / "it.tar",
        ("./a.json", json.dumps({"label": 3, "caption": "x"}).encode()),
        ("./a.jpg", b"AA"),
        ("./a.txt", b"a cat"),
        (".hidden.jpg", b"no"),
        ("b.b/c.seg.png", b"BBB"),
        ("b.b/c.cls", b" 12\n"),
        ("d.jpeg", b"C"),
        ("d.json", b"[1]"),
    )
    found = [(member.name, member.label, content(shard, member)) for member in WEBDATASET.scan(shard)]
    assert found == [("./a.jpg", 3, b"AA"), ("b.b/c.seg.png", 12, b"BBB"), ("d.jpeg", -1, b"C")]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.jpg", b"1"), ("a.png", b"2")], r"the sample 'a' has two images, 'a.jpg' and 'a.png'"),
        ([("a.jpg", b"1"), ("a.cls", b"cat")], r"the label in 'a.cls' is b'cat', not a whole number"),
    ],
)
def test_samples_that_could_mean_two_things_are_refused(
    members: list[tuple[str, bytes]], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ShardError, match=reason):
        list(WEBDATASET.scan(tar(tmp_path / "it.tar", *members)))


def test_a_tar_with_a_damaged_header_or_without_an_end_is_refused(tmp_path: Path) -> None:
    shard = tar(tmp_path / "it.tar", ("a.jpg", b"1"), ("b.jpg", b"2"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1024] + b"?" + whole[1025:])
    with pytest.raises(ShardError, match="no member at byte 1,024, nor the archive's end"):
        list(WEBDATASET.scan(shard))
    shard.write_bytes(whole[:2048])
    with pytest.raises(ShardError, match="unexpected end of data"):
        list(WEBDATASET.scan(shard))


def test_a_compressed_tar_is_refused_with_what_unpacks_it(tmp_path: Path) -> None:
    path = tmp_path / "it.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(ShardError, match="it is compressed") as caught:
        list(WEBDATASET.scan(path))
    assert caught.value.cure == "Unpack it: gunzip, or zstd -d."


def test_names_with_dots_and_the_same_name_twice_are_samples_of_their_own(tmp_path: Path) -> None:
    images = [("a/x.y.jpg", 1, b"1"), ("a/x_y.jpg", 2, b"2"), ("b/no ending", 3, b"3"), ("b/it.PNG", 4, b"4")]
    shard = write_shard(tmp_path / "it.tar", WEBDATASET, images)
    found = [(member.name, member.label, content(shard, member)) for member in WEBDATASET.scan(shard)]
    assert found == [
        ("a/x_y.jpg", 1, b"1"), ("a/x_y_1.jpg", 2, b"2"), ("b/no ending.jpg", 3, b"3"), ("b/it.png", 4, b"4"),
    ]  # fmt: skip


def example(*features: bytes) -> tuple[bytes, bytes]:
    """A record of TensorFlow's, written out by hand."""
    inner = b"".join(b"\x0a" + bytes([len(feature)]) + feature for feature in features)
    message = b"\x0a" + bytes([len(inner)]) + inner
    return struct.pack("<Q", len(message)) + b"....", message


def test_a_record_as_tensorflow_writes_it(tmp_path: Path) -> None:
    """Features in another order, of other types, and of other names; numbers packed and not."""
    label_packed = b"\x0a\x05label\x12\x05\x1a\x03\x0a\x01\x05"
    image = b"\x0a\x05image\x12\x07\x0a\x05\x0a\x03JPG"
    height = b"\x0a\x06height\x12\x06\x12\x04\x0a\x02\x00\x00"
    label_plain = b"\x0a\x11image/class/label\x12\x05\x1a\x03\x08\xac\x02"
    path = tmp_path / "it.tfrecord"
    records = [example(label_packed, height, image), example(image, label_plain)]
    path.write_bytes(b"".join(head + message + b"...." for head, message in records))
    found = [(member.name, member.label, content(path, member)) for member in TFRECORD.scan(path)]
    assert found == [("0", 5, b"JPG"), ("1", 300, b"JPG")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a\xff", "no tf.train.Example"),
        (b"\x0b\x01", "no tf.train.Example"),
        (b"\x0a\x03\x0a\x01\x08", "no tf.train.Example|has no feature"),
        (b"", "record 0 has no feature 'image/encoded'"),
    ],
)
def test_records_of_something_else_are_refused(message: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "it.tfrecord"
    path.write_bytes(struct.pack("<Q", len(message)) + b"...." + message + b"....")
    with pytest.raises(ShardError, match=reason):
        list(TFRECORD.scan(path))


def test_the_checksums_of_records_are_tensorflow_s(tmp_path: Path) -> None:
    """The masked CRC-32C of the length and of the message, as TensorFlow checks them."""
    data = write_shard(tmp_path / "it.tfrecord", TFRECORD, IMAGES[:1]).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])

    def masked(part: bytes) -> bytes:
        value = google_crc32c.value(part)
        return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) % 2**32)

    assert google_crc32c.value(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert data[8:12] == masked(data[:8])
    assert data[12 + length :] == masked(data[12 : 12 + length])


def record(flag: int, label: float, payload: bytes) -> bytes:
    body = struct.pack("<IfQQ", flag, label, 42, 0) + payload
    return MAGIC + struct.pack("<I", len(body)) + body + bytes(-len(body) % 4)


def test_a_record_of_mxnet_s_may_have_several_labels_and_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "it.rec"
    path.write_bytes(record(2, 9.0, struct.pack("<ff", 3.0, 4.0) + b"JPG") + record(0, 1.5, b"X"))
    found = [(member.name, member.label, content(path, member)) for member in RECORDIO.scan(path)]
    assert found == [("42", 3, b"JPG"), ("42", -1, b"X")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"12345678", "record 0, at byte 0, doesn't begin with RecordIO's number"),
        (MAGIC + struct.pack("<I", 3 << 29 | 4) + b"1234", "record 0, at byte 0, begins in its middle"),
        (MAGIC + struct.pack("<I", 4) + b"1234", "record 0, at byte 0, is too short for an image's header"),
        (record(5, 0.0, b"1234"), "record 0, at byte 0, is too short for its 5 labels"),
    ],
)
def test_damaged_records_are_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "it.rec"
    path.write_bytes(data)
    with pytest.raises(ShardError) as caught:
        list(RECORDIO.scan(path))
    assert caught.value.reason == reason
