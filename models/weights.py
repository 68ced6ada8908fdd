"""Files of weights: Paddle's .pdparams and .safetensors, read without running code, checked, and encoded."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.architecture import parameter_shapes
from models.errors import WeightsError as WeightsError
from models.pickled import MAX_BYTES, RefusedError, read_pickle, shown, shown_shape
from models.sizes import SIZES

if TYPE_CHECKING:
    from collections.abc import Callable

PDPARAMS, SAFETENSORS = ".pdparams", ".safetensors"
MAX_DIFFERENCES = 5  # in a message

Arrays = Mapping[str, npt.NDArray[Any]]
Weights = dict[str, npt.NDArray[np.float32]]

_WANTED = "Give PP-LCNet's weights as paddle.save wrote them (.pdparams), or as .safetensors."
_SAVE_AGAIN = "If you trust it, load it with its own tool and save only the model's state_dict, as .safetensors."
_PYTORCH = "is PyTorch's, which has other names for a model's weights"
# The first bytes of other kinds of files.
_OTHERS = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", _PYTORCH, _WANTED),
    (b"PK", "is a zip archive", _WANTED),
    (b"\x89HDF\r\n\x1a\n", "is HDF5, as Keras writes it", _WANTED),
    (b"\x1f\x8b", "is compressed by gzip", "Unpack it first."),
    (bytes(16), "belongs to a Paddle inference model, whose weights have no names", _WANTED),
    (b"version https://git-lfs", "is only a placeholder for a file in Git LFS", "Fetch the file: git lfs pull."),
    (b"<", "is a web page, not a file of weights", "Download it again, from the address of the file itself."),
)


def read_weights(path: Path) -> Weights:
    """The arrays of a .pdparams or .safetensors file by name, in the file's order; its content decides which it is.

    Half precision becomes single precision, which is exact; double precision is rounded. Nothing in the file is run.
    Raises WeightsError for a file that can't be read, that is another kind of file, or that holds anything besides
    finite weights.
    """
    data = _read(path)
    try:
        return {name: _single(name, values) for name, values in _parse(path, data).items()}
    except RefusedError as error:
        raise WeightsError(f"{str(path)!r} {error}", _SAVE_AGAIN) from error


def describe_weights(path: Path, size: str, num_classes: int) -> tuple[Weights, dict[str, Any]]:
    """A file's weights, and its name and SHA-256 for a record. Raises WeightsError unless they fit the model."""
    weights = fit(read_weights(path), size, num_classes)
    return weights, {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def outputs_of(path: Path) -> int | None:
    """The number of outputs of the weights in a file; None if they have no last layer. Raises WeightsError."""
    last = "fc.bias"
    found = (values for name, values in read_weights(path).items() if name == last or name.endswith(f".{last}"))
    return next((values.size for values in found), None)


def compare_shapes(found: Arrays, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A line for each entry that differs: those missing, those of another shape, and those that are not wanted."""
    missing = [f"{name} is missing" for name in wanted if name not in found]
    other = [
        f"{name}: {shown_shape(found[name].shape)} in the file, {shown_shape(shape)} wanted"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    return [*missing, *other, *(f"{shown(name)} is not part of the model" for name in found if name not in wanted)]


def recognise(found: Arrays) -> tuple[str, int] | None:
    """Size and number of classes of the model that has exactly these names and shapes; None if no model has."""
    num_classes = _classes(found)
    return next((size for size in ((name, num_classes) for name in SIZES) if not _differences(found, *size)), None)


def fit(found: Arrays, size: str, num_classes: int) -> Weights:
    """The weights of a model of this size, in its order.

    size is a key of SIZES. Raises WeightsError, which names the differences, when they are those of another model.
    """
    lines = _differences(found, size, num_classes)
    if lines:
        fits, cure = recognise(found), _WANTED
        if fits is not None:
            model = f"--model {fits[0]}" if fits[0] != size else ""
            classes = f"--classes {fits[1]}" if fits[1] != num_classes else ""
            cure = f"They are those of {_described(*fits)}: {' '.join(filter(None, (model, classes)))}."
        more = [f"and {len(lines) - MAX_DIFFERENCES} more"] if len(lines) > MAX_DIFFERENCES else []
        wanted = len(parameter_shapes(SIZES[size].scale, num_classes))
        raise WeightsError(
            f"the weights don't fit {_described(size, num_classes)}: {len(lines)} differences from its {wanted} entries"
            + "".join(f"\n  {line}" for line in [*lines[:MAX_DIFFERENCES], *more]),
            cure,
        )
    try:
        return {name: _single(name, found[name]) for name in parameter_shapes(SIZES[size].scale, num_classes)}
    except RefusedError as error:
        raise WeightsError(f"the model {error}", "Take weights of an earlier step.") from error


def closest_size(found: Arrays) -> tuple[str, int]:
    """Size and number of classes of the model from which these names and shapes differ least."""
    num_classes = _classes(found)
    return min(((size, num_classes) for size in SIZES), key=lambda model: len(_differences(found, *model)))


def check_target(path: Path) -> None:
    """Raise WeightsError unless the ending of the file's name is one of the formats."""
    if path.suffix not in _WRITERS:
        raise WeightsError(
            f"{str(path)!r} ends in neither {PDPARAMS} nor {SAFETENSORS}",
            f"{PDPARAMS} is for Paddle and PaddleClas, {SAFETENSORS} for other programs.",
        )


def encode_weights(path: Path, weights: Arrays, metadata: Mapping[str, str]) -> bytes:
    """The content of a file of weights, in the format that the ending of path names.

    .pdparams is what `paddle.load` and PaddleClas read, and has no room for metadata. Raises WeightsError for another
    ending.
    """
    check_target(path)
    return _WRITERS[path.suffix](weights, metadata)


def _pdparams(weights: Arrays, _: Mapping[str, str]) -> bytes:
    import paddle

    stream = io.BytesIO()
    paddle.save(dict(weights), stream, protocol=4)
    return stream.getvalue()


def _safetensors(weights: Arrays, metadata: Mapping[str, str]) -> bytes:
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(values) for name, values in weights.items()}, dict(metadata)))


_WRITERS: dict[str, Callable[[Arrays, Mapping[str, str]], bytes]] = {PDPARAMS: _pdparams, SAFETENSORS: _safetensors}


def _read(path: Path) -> bytes:
    try:
        # Other kinds of files may have no end, or wait for another process to write.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise WeightsError(f"{str(path)!r} is not a regular file", _WANTED)
        with path.open("rb") as stream:
            if status.st_size > MAX_BYTES:
                raise WeightsError(
                    f"{str(path)!r} has {status.st_size:,} bytes; at most {MAX_BYTES:,} are read", _WANTED
                )
            return stream.read(status.st_size)
    except OSError as error:
        raise WeightsError(f"can't read {str(path)!r}: {error.strerror}", _WANTED) from error


def _parse(path: Path, data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays as they are in the file, except that bfloat16 is already converted to single precision."""
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return _from_safetensors(data)
    for start, what, cure in _OTHERS:
        if data.startswith(start):
            # A .pt or .pth archive begins with its pickle.
            raise WeightsError(f"{str(path)!r} {_PYTORCH if b'/data.pkl' in data[:1024] else what}", cure)
    if data[257:262] == b"ustar":
        raise WeightsError(f"{str(path)!r} is a tar archive", "Unpack it first.")
    if data[:1] == b"\x80":
        # Paddle's own type is bfloat16, which numpy lacks.
        return {
            name: _from_bfloat16(values) if values.dtype.kind == "u" and values.itemsize == 2 else values
            for name, values in read_pickle(data).items()
        }
    what = "begins like neither .pdparams nor .safetensors" if data else "is empty"
    raise WeightsError(f"{str(path)!r} {what}", _WANTED)


def _from_safetensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError, deserialize

    try:
        tensors: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise RefusedError(f"is not a complete .safetensors: {error}") from error
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in kinds:
            raise RefusedError(f"has {shown(name)} as {tensor['dtype']}; weights are F32, F16, BF16 or F64")
        try:
            values = np.ndarray(tensor["shape"], kinds[tensor["dtype"]], tensor["data"])
        except (ValueError, OverflowError) as error:  # dimensions that no array can have, next to one of 0
            raise RefusedError(f"has {shown(name)} in an impossible shape: {error}") from error
        arrays[name] = _from_bfloat16(values) if tensor["dtype"] == "BF16" else values
    return arrays


def _from_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The first half of a single-precision number is bfloat16."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _single(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if values.dtype.kind != "f":
        raise RefusedError(f"has {shown(name)} as {values.dtype.name}; weights are floating point")
    with np.errstate(over="ignore"):
        single = np.array(values, np.float32, order="C")
    if not np.isfinite(single).all():
        raise RefusedError(f"has values in {shown(name)} that are not finite numbers in single precision")
    return single


def _classes(found: Arrays) -> int:
    """The width of the last layer; 1 if there is none."""
    bias = found.get("fc.bias")
    return bias.shape[0] if bias is not None and bias.ndim == 1 and bias.size else 1


def _differences(found: Arrays, size: str, num_classes: int) -> list[str]:
    return compare_shapes(found, parameter_shapes(SIZES[size].scale, num_classes))


def _described(size: str, num_classes: int) -> str:
    return f"{size} with {num_classes:,} {'class' if num_classes == 1 else 'classes'}"
