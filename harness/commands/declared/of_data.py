"""The commands that look at data sets, or make them."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.parser import Command, add_path, add_results


def _declare_verify(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "data", metavar="DATA", help="a folder in ImageNet's layout or a built-in set, as for --data")
    parser.add_argument("--classes", metavar="N", type=int, help="number of classes (default: as for a run)")
    parser.add_argument("--threads", metavar="N", type=int, help="number of decoding threads (default: one per core)")
    add_results(parser, "folder for the table of bad images")


def _verify(data: str, results: str, classes: int | None = None, threads: int | None = None) -> None:
    from harness.commands.data.verify import verify

    verify(data, results, classes, threads)


def _declare_import_idx(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser,
        "source",
        metavar="FROM",
        help="folder with the four files: train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k, which"
        " become the validation images; compressed (.gz) or not",
    )
    add_path(parser, "to", metavar="TO", help="folder to create, in ImageNet's layout; it must not exist yet")
    parser.add_argument("--name", metavar="TEXT", help="name of the data set (default: that of the folder TO)")
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        help="side of the JPEGs; images are enlarged to it, as PP-LCNet halves its input five times (default: 64)",
    )
    parser.add_argument(
        "--flip-probability",
        metavar="SHARE",
        type=float,
        help="probability of mirroring a training image (default: 0, as a mirrored digit is not a digit; 0.5 suits"
        " Fashion-MNIST)",
    )
    parser.add_argument(
        "--crop-area-min",
        metavar="SHARE",
        type=float,
        help="smallest training crop, as a share of the image's area (default: 0.35, as ImageNet's 0.08 of a digit is"
        " only a piece of a stroke)",
    )
    parser.add_argument(
        "--transpose", action="store_true", help="swap the images' rows and columns: EMNIST stores them swapped"
    )


def _import_idx(source: str, to: str, **options: Any) -> None:
    from harness.commands.data.import_idx import import_idx

    import_idx(source, to, **options)


def _declare_import_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="FROM",
        help="Kaggle's LOC_val_solution.csv, the development kit's ILSVRC2012_validation_ground_truth.txt, or a list"
        " whose labels are the kit's numbers",
    )
    parser.add_argument("to", metavar="TO", help="list to write, such as val_list.txt; it must not exist yet")
    parser.add_argument(
        "--prefix",
        metavar="PATH",
        default="val",
        help="folder of the images in the data set's folder, for the first two (default: val)",
    )


def _import_labels(source: str, to: str, prefix: str) -> None:
    from harness.commands.data.import_labels import import_labels

    import_labels(source, to, prefix)


def _declare_pack(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "data", metavar="DATA", help="a folder in ImageNet's layout or a built-in set, as for --data")
    add_path(
        parser, "to", metavar="OUT", help="folder to create, which --data can then name; an interrupted pack resumes"
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=("webdataset", "tfrecord", "recordio"),
        help="webdataset: tar files that every tool can open. tfrecord: TensorFlow's records. recordio: MXNet's, which"
        " keep no names",
    )
    parser.add_argument(
        "--shard-megabytes", metavar="MB", type=int, help="size of a shard, about, in MiB (default: 256)"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="shards written at once (default: one per core)")


def _pack(data: str, to: str, **options: Any) -> None:
    from harness.commands.data.pack import pack

    pack(data, to, **options)


COMMANDS = {
    "import-idx": Command(
        "convert MNIST, or a set in its file format, to a folder to train on", _declare_import_idx, _import_idx
    ),
    "import-labels": Command(
        "make a list with ImageNet's labels from Kaggle's or the kit's file",
        _declare_import_labels,
        _import_labels,
    ),
    "pack": Command("write a data set's images into shards: tar, TFRecord or RecordIO files", _declare_pack, _pack),
    "verify": Command("check that every image of a data set can be read and decoded", _declare_verify, _verify),
}
