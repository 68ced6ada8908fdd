"""dataset.toml: what a data set says about itself."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.augmentation import Augmentation
from pipelines.errors import DataError
from pipelines.image_lists import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS_FILE = "dataset.toml"
_SETTINGS = ("name", "num_classes", "first_label", "augmentation")
_AUGMENTATION_SETTINGS = tuple(field.name for field in dataclasses.fields(Augmentation))


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in dataset.toml; None where it has none. first_label is where labels in shards begin to count."""

    name: str | None = None
    num_classes: int | None = None
    first_label: int = 0
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)


def _refuse_unknown(table: dict[str, object], known: tuple[str, ...], where: str) -> None:
    unknown = [shown(key) for key in table if key not in known]
    if unknown:
        raise DataError(f"{where} has unknown keys: {', '.join(unknown)}", f"Known keys: {', '.join(known)}.")


def read_settings(file: Path) -> Settings:
    """Read dataset.toml if it exists. Raises DataError for anything in it that is not understood."""
    where = shown(file)
    try:
        # Some editors put a byte order mark in front.
        document: dict[str, object] = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from error
    except ValueError as error:  # bad UTF-8 or bad TOML
        raise DataError(f"{where} is not TOML: {error}", "https://toml.io describes the format.") from error

    _refuse_unknown(document, _SETTINGS, where)
    name = document.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise DataError(f"{where}: name is {name!r}; it must be a text and not empty")
    num_classes = document.get("num_classes")
    # bool is a kind of int in Python, but `num_classes = true` is a mistake.
    if num_classes is not None and (
        not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1
    ):
        raise DataError(f"{where}: num_classes is {num_classes!r}; it must be a whole number of at least 1")
    first_label = document.get("first_label", 0)
    if not isinstance(first_label, int) or isinstance(first_label, bool) or first_label < 0:
        raise DataError(f"{where}: first_label is {first_label!r}; it must be a whole number of at least 0")
    table = document.get("augmentation", {})
    if not isinstance(table, dict):
        raise DataError(f"{where}: augmentation is {table!r}; it must be a table", "Write it as [augmentation].")
    _refuse_unknown(table, _AUGMENTATION_SETTINGS, f"{where} [augmentation]")
    for key, value in table.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise DataError(f"{where} [augmentation]: {key} is {value!r}; it must be a number")
    try:
        augmentation = Augmentation(**table)
    except ValueError as error:
        raise DataError(f"{where} [augmentation]: {error}") from error
    return Settings(name=name, num_classes=num_classes, first_label=first_label, augmentation=augmentation)


def settings_text(name: str, num_classes: int, augmentation: Augmentation) -> str:
    """The content of a dataset.toml: of the augmentation, what isn't the published one."""
    published = dataclasses.asdict(Augmentation())
    lines = [f"{key} = {value!r}" for key, value in dataclasses.asdict(augmentation).items() if value != published[key]]
    table = ["", "[augmentation]", *lines] if lines else []
    return "\n".join([f"name = {_toml_text(name)}", f"num_classes = {num_classes}", *table, ""])


def _toml_text(text: str) -> str:
    """The text as TOML's basic string, which is JSON's except for one control character, and has no other bytes."""
    plain = text.encode(errors="surrogateescape").decode(errors="replace")
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
