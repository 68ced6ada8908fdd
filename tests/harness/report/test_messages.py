"""docs/warnings.md's table: every note and error of the source is in it, in words, with what to do."""

from __future__ import annotations

import ast
import copy
import json

import pytest

from harness import ROOT
from harness.report.messages import NOTE, SOURCES, Message, all_messages, exit_codes
from models.notes import Note
from tests.support.every_message import ELSEWHERE
from tests.support.pages import read

MESSAGES = {message.id: message for message in all_messages()}
# What passes a sentence on to the user: a console, a rank's file, the list of a plan's notes.
SAYS = ("notice", "say", "_say", "warn", "_warn")


def test_ids_are_of_one_message_each() -> None:
    assert len(MESSAGES) == len(all_messages()) > 380


def test_every_note_says_what_to_do() -> None:
    notes = [message for message in MESSAGES.values() if message.kind == NOTE]
    assert len(notes) > 70
    assert [message.id for message in notes if not message.cure] == []


def test_every_error_has_its_exit_code_on_the_page() -> None:
    page = read("warnings.md")
    assert {message.kind for message in MESSAGES.values()} - {NOTE} <= exit_codes().keys()
    assert (
        exit_codes() | {"UsageError": 2, "MachineError": 3, "DataError": 4, "InterruptedRunError": 75} == exit_codes()
    )
    assert all(f"| `{name}` |" in page for name in MESSAGES)


@pytest.mark.parametrize(
    ("name", "text", "cure"),
    [
        ("ranks-share-cores", "<ranks> ranks share <number> cores", "--gpus <cores> gives each rank a core."),
        # The cure is a variable, which another message of the function has, too.
        (
            "the-numa-nodes-that-the-hang-on",
            "the NUMA nodes that the <plural> hang on aren't known here: each rank's cores are chosen without",
            "Omit --affinity, or compare a run without it.",
        ),
        # The cure is a constant of another module.
        (
            "no-data-and-no-dataset-ilsvrc2012-here-2",
            "no --data, and no dataset/ILSVRC2012 here: <source> would be used",
            "--data names the data set's folder.",
        ),
    ],
)
def test_values_are_named_and_cures_are_those_of_their_place(name: str, text: str, cure: str) -> None:
    message = MESSAGES[name]
    assert (message.text, message.cure) == (text, cure)


def _plain_texts(tree: ast.Module) -> list[int]:
    """Lines on which a sentence is passed on to the user that is no Note."""
    return [
        call.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute | ast.Name)
        and (call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id) in SAYS
        and call.args
        and isinstance(call.args[0], ast.JoinedStr | ast.Constant)
    ]


def test_nothing_is_said_that_is_no_note() -> None:
    found = {
        str(file.relative_to(ROOT)): lines
        for folder in SOURCES
        for file in (ROOT / folder).rglob("*.py")
        if (lines := _plain_texts(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_a_note_is_a_text_with_a_cure_that_copies_keep() -> None:
    note = Note("it is so", "Do this.")
    assert (note, note.cure) == ("it is so", "Do this.")
    assert copy.deepcopy(note).cure == "Do this."
    assert json.loads(json.dumps([note])) == ["it is so"]


def test_what_happens_elsewhere_is_a_message_with_a_test() -> None:
    for name, test in ELSEWHERE.items():
        file, _, function = test.partition("::")
        assert isinstance(MESSAGES[name], Message)
        assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")
