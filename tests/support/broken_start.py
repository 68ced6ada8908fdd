"""Folders for PYTHONPATH with which each interpreter starts broken: by code that it runs, or by modules that fail."""

from __future__ import annotations

from pathlib import Path


def broken(folder: Path, code: str) -> str:
    """A folder for PYTHONPATH whose code runs as each interpreter starts."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"import warnings\nwarnings.simplefilter('ignore')\n{code}\n")
    return str(folder)


def without_module(folder: Path, name: str) -> str:
    """A folder for PYTHONPATH with which a module is not found."""
    refuse = f"lambda name, *others: None if name == {name!r} else find(name, *others)"
    return broken(
        folder, f"import importlib.util\nfind = importlib.util.find_spec\nimportlib.util.find_spec = {refuse}"
    )


def module_that_fails(folder: Path, name: str, reason: str) -> str:
    """A folder for PYTHONPATH with a module that is there but can't be imported."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"raise ImportError({reason!r})")
    return str(folder)
