"""Every note and error of the tool, read from its source: what it says, what it tells to do, and where it is made."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness import ROOT
from harness.errors import INTERRUPTED_EXIT_CODE
from models.words import count_of

NOTE, BASE = "Note", "ActionableError"
SOURCES = ("harness", "pipelines", "models")
SLUG_WORDS = 7
UNKNOWN = "…"


@dataclass(frozen=True, slots=True)
class Message:
    """A place in the source that makes a note or an error.

    kind is the name of its class. text and cure are what it says, with <names> for what is filled in. id is made of the
    text's first words. file is relative to the project; the call is on its lines first to last.
    """

    id: str
    kind: str
    text: str
    cure: str
    file: str
    first: int
    last: int


@cache
def all_messages() -> tuple[Message, ...]:
    """All of them, in the order of the files; those that only pass on what an error says are left out."""
    trees = _trees()
    kinds = {NOTE, *_codes_of(trees.values())}
    constants = {
        name: ones[-1].value for tree in trees.values() for name, ones in _assigned(tree.body).items() if name.isupper()
    }
    found: list[Message] = []
    taken: dict[str, int] = {}
    for file, tree in trees.items():
        for call, known in _calls(tree, kinds, constants):
            text, cure = (_worded(argument, known) for argument in _arguments(call))
            slug = _slug(text)
            if not slug:
                continue
            taken[slug] = taken.get(slug, 0) + 1
            name = slug if taken[slug] == 1 else f"{slug}-{taken[slug]}"
            place = str(file.relative_to(ROOT))
            found.append(
                Message(name, _name(call.func), text, cure, place, call.lineno, call.end_lineno or call.lineno)
            )
    return tuple(found)


def exit_codes() -> dict[str, int]:
    """The exit code of every class of errors, by its name."""
    return _codes_of(_trees().values())


@cache
def _trees() -> dict[Path, ast.Module]:
    files = sorted(file for folder in SOURCES for file in (ROOT / folder).rglob("*.py"))
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _codes_of(trees: Iterable[ast.Module]) -> dict[str, int]:
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    codes = {BASE: 1}
    while True:
        new = {
            one.name: _own_code(one) or next(codes[_name(base)] for base in one.bases if _name(base) in codes)
            for one in classes
            if one.name not in codes and any(_name(base) in codes for base in one.bases)
        }
        if not new:
            return codes
        codes |= new


def _own_code(one: ast.ClassDef) -> int:
    for line in one.body:
        if isinstance(line, ast.Assign) and _name(line.targets[0]) == "exit_code":
            return int(ast.literal_eval(line.value)) if isinstance(line.value, ast.Constant) else INTERRUPTED_EXIT_CODE
    return 0


@dataclass(frozen=True, slots=True)
class _Known:
    """What names stand for at a line: what they were last assigned to before it, or a constant of any module."""

    assigned: Mapping[str, Sequence[ast.Assign]]
    constants: Mapping[str, ast.expr]
    line: int

    def text(self, name: str) -> ast.expr | None:
        """What a name was assigned to, if that is a text."""
        before = [one.value for one in self.assigned.get(name, ()) if one.lineno < self.line]
        value = before[-1] if before else self.constants.get(name)
        return value if value is not None and _is_text(value) else None


_Call = tuple[ast.Call, _Known]


def _calls(tree: ast.Module, kinds: Collection[str], constants: Mapping[str, ast.expr]) -> Iterator[_Call]:
    """Calls that make a message, each with what names stand for there."""

    def within(node: ast.AST, assigned: Mapping[str, Sequence[ast.Assign]]) -> Iterator[_Call]:
        for child in ast.iter_child_nodes(node):
            inner = assigned
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = {**assigned, **_assigned(ast.walk(child))}
            if isinstance(child, ast.Call) and _name(child.func) in kinds and child.args:
                yield child, _Known(inner, constants, child.lineno)
            yield from within(child, inner)

    yield from within(tree, {})


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.Assign]]:
    """Assignments to single names, in the order of their lines."""
    found: dict[str, list[ast.Assign]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node)
    return {name: sorted(ones, key=lambda one: one.lineno) for name, ones in found.items()}


def _arguments(call: ast.Call) -> tuple[ast.expr, ast.expr]:
    cure = next((word.value for word in call.keywords if word.arg == "cure"), None)
    if cure is None:
        cure = call.args[1] if len(call.args) > 1 else ast.Constant("")
    return call.args[0], cure


def _worded(node: ast.expr, known: _Known) -> str:
    """A text with <names> for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_worded(part, known) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _filled_in(node.value, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _worded(node.left, known) + _worded(node.right, known)
    if isinstance(node, ast.IfExp):
        return _either(node, known)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return re.sub(r"\{(\w*)[^}]*\}", r"<\1>", _worded(node.func.value, known))
    return _filled_in(node, known)


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr)


def _either(node: ast.IfExp, known: _Known) -> str:
    one, other = _worded(node.body, known), _worded(node.orelse, known)
    return f"{one}|{other}" if one and other else one or other


def _filled_in(node: ast.expr, known: _Known) -> str:
    """What stands for a value."""
    if isinstance(node, ast.IfExp):
        return _either(node, known)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and (text := known.text(node.id)) is not None:
        return _worded(text, replace(known, line=text.lineno))
    if isinstance(node, ast.Call) and _name(node.func) == "count_of" and len(node.args) > 1:
        return f"<number>{count_of(2, _worded(node.args[1], known))[1:]}"
    if isinstance(node, ast.Call) and node.args:
        return _filled_in(node.args[0], known)
    name = _name(node)
    return f"<{name.strip('_').replace('_', ' ')}>" if name else UNKNOWN


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _slug(text: str) -> str:
    """The first words that aren't filled in."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"<[^>]*>", " ", text).replace("'", "").lower())
    return "-".join(words[:SLUG_WORDS])


def messages_markdown() -> str:
    """A table of the notes, and one of the errors of each exit code."""
    codes = exit_codes()
    by_code: dict[int, list[Message]] = {}
    for message in all_messages():
        by_code.setdefault(codes.get(message.kind, 0), []).append(message)
    parts = []
    for code, messages in sorted(by_code.items()):
        title = "Notes" if not code else f"Errors that end with exit code {code}"
        lines = [f"## {title}", "", "| id | it says | what to do | made in |", "| --- | --- | --- | --- |"]
        lines += map(_row, sorted(messages, key=lambda one: one.id))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(message: Message) -> str:
    link = f"[{Path(message.file).name}](../{message.file})"
    cells = (f"`{message.id}`", _cell(message.text), _cell(message.cure), link)
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """A text in a table of Markdown, as it is."""
    text = re.sub(r"([\\|<>*_`\[\]])", r"\\\1", text.strip())
    return "<br>".join(line.strip() for line in text.splitlines())
