from __future__ import annotations

import codecs
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness.commands.run
from harness import ROOT
from harness.artifacts.file_names import LOCK, SUMMARY_FILE
from harness.artifacts.record import RunFiles, write_record
from harness.cli import main, parse
from harness.commands.registry import COMMANDS
from harness.commands.run_options import Manner
from harness.errors import GateError, MachineError, TrainingError, UsageError
from harness.launch.process_tree import RUN_PID
from harness.plan.declaration import flag
from harness.plan.options import RunConfig, run_options
from pipelines.builtin import digits
from pipelines.builtin.cache import cache_folder
from pipelines.errors import DataError
from tests.support.data_sets import write_colours
from tests.support.plans import a_record


def toml(folder: Path, text: str) -> str:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_no_option_at_all_is_the_published_recipe() -> None:
    assert parse([]) == ({}, Manner())


def test_options_become_fields() -> None:
    run = ["--gpus", "4", "--model", "x0_25", "--epochs", "20", "--throughput-only", "--max-seconds", "1.5"]
    training = ["--data", "some/folder", "--learning-rate", "2e-1", "--batch-size=64"]
    given, manner = parse([*run, *training, "--run-name", "first", "--dry-run"])
    assert given == {
        "gpus": 4,
        "model": "x0_25",
        "epochs": 20,
        "throughput_only": True,
        "max_seconds": 1.5,
        "data": "some/folder",
        "learning_rate": 0.2,
        "run_name": "first",
        "batch_size": 64,
    }
    assert type(given["learning_rate"]) is float
    assert manner == Manner(dry_run=True)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = toml(tmp_path, 'epochs = 20\nbatch-size = 64\nmodel = "x0_5"\nmax_seconds = 9\nthroughput_only = true\n')
    given, manner = parse(["--epochs", "7", "--config", file, "--model", "x2_5"])
    assert given == {"epochs": 7, "model": "x2_5", "batch_size": 64, "max_seconds": 9.0, "throughput_only": True}
    assert manner == Manner()


def test_a_default_given_on_the_command_line_still_wins_over_the_file(tmp_path: Path) -> None:
    assert parse(["--config", toml(tmp_path, "epochs = 20"), "--epochs", "360"])[0] == {"epochs": 360}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert parse(["--config", toml(tmp_path, "# nothing\n")])[0] == {}


def test_values_of_the_file_have_the_same_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", toml(tmp_path, "batch-size = 0")]) == 2
    assert capsys.readouterr().err == "error: --batch-size is 0; it must be at least 1\n"


def test_resume_without_a_name_chooses_the_run_itself() -> None:
    assert parse(["--resume"])[0] == {"resume": "auto"}
    assert parse(["--resume", "first"])[0] == {"resume": "first"}
    assert parse(["--resume", "--epochs", "9"])[0] == {"resume": "auto", "epochs": 9}


def test_a_resumed_run_gets_its_own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = a_record(run="first", status="interrupted")
    write_record(tmp_path / "first.json", record)
    given: list[RunConfig] = []
    monkeypatch.setattr(harness.commands.run, "run", lambda config, **_: given.append(config))
    assert main(["--resume", "first", "--results", str(tmp_path), "--checkpoint-minutes", "3"]) == 0
    own = dataclasses.replace(
        record.config, resume="first", run_name="first", batch_size=32, lr_warmup_epochs=5, hw_decoder_load=0.65
    )
    assert given == [dataclasses.replace(own, results=str(tmp_path), checkpoint_minutes=3.0)]


KNOWN = (
    "Known: campaign, compare, completion, doctor, export, import-idx, import-labels, latency, pack, report,"
    " tune, verify, watch. See run_bench.py --help."
)


@pytest.mark.parametrize(
    ("text", "wrong", "cure"),
    [
        ("epochs = ", "run.toml is not valid TOML: ", ""),
        ("epochs = 1\nepochs = 2", "run.toml is not valid TOML: ", ""),
        ("epoch = 1", "run.toml: unknown key 'epoch'", "  Did you mean 'epochs'?"),
        ("[loop]\nepochs = 1", "run.toml: unknown key 'loop'", "  Known: throughput_only, model, data, "),
        ("dry-run = true", "run.toml: unknown key 'dry-run'", "  Known: "),
        ('epochs = "1"', "run.toml: epochs is '1', of type str; it must be of type int", ""),
        ("gpus = true", "run.toml: gpus is True, of type bool; it must be of type int", ""),
    ],
)
def test_a_bad_file_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, wrong: str, cure: str
) -> None:
    assert main(["--config", toml(tmp_path, text)]) == 2
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert out == ""
    assert first.startswith("error: ")
    assert wrong in first
    assert len(rest) == (1 if cure else 0)
    assert "".join(rest).startswith(cure)


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.toml"
    assert main(["--config", str(missing)]) == 2
    assert capsys.readouterr().err == f"error: --config {missing}: No such file or directory\n"
    assert main(["--config", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: --config {tmp_path}: Is a directory\n"
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'data = "caf\xe9"\n')
    assert main(["--config", str(latin)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --config {latin} is not valid TOML: ")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["--dry-run", "train"], "unrecognized arguments: train"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--through"], "unrecognized arguments: --through"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--epochs", "ten"], "argument --epochs: invalid int value: 'ten'"),
        (["--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
        (["--max-seconds", "long"], "argument --max-seconds: invalid float value: 'long'"),
        (["--throughput-only=1"], "argument --throughput-only: ignored explicit argument '1'"),
    ],
)
def test_a_mistyped_command_line_points_to_the_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str], wrong: str
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {wrong}\n  See run_bench.py --help.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["compre"], "unknown command 'compre'\n  Did you mean 'compare'?"),
        (["Compare", "a", "b"], "unknown command 'Compare'\n  Did you mean 'compare'?"),
        (
            ["train"],
            f"unknown command 'train'\n  {KNOWN}",
        ),
        ([""], f"unknown command ''\n  {KNOWN}"),
        (
            ["[red]\x1b[31m"],
            f"unknown command '[red]\\x1b[31m'\n  {KNOWN}",
        ),
        (
            ["compare"],
            "the following arguments are required: A, B\n  See run_bench.py compare --help.",
        ),
        (
            ["compare", "a"],
            "the following arguments are required: B\n  See run_bench.py compare --help.",
        ),
        (["compare", "a", "b", "c"], "unrecognized arguments: c\n  See run_bench.py compare --help."),
        (
            ["compare", "a", "b", "--fail-if-slow", "5%"],
            "unrecognized arguments: --fail-if-slow 5%\n  See run_bench.py compare --help.",
        ),
        (
            ["compare", "a", "b", "--fail-if-slower"],
            "argument --fail-if-slower: expected one argument\n  See run_bench.py compare --help.",
        ),
    ],
)
def test_a_mistyped_command_is_one_clear_line_and_its_cure(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"error: {told}\n")


def test_the_versions_are_those_of_project_paddle_and_dali(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"pplcnet-bench {declared[1]}"
    installed = [re.fullmatch(r"(paddle|nvidia-dali)\S* \d+\.\S+", line) for line in out[1:]]
    assert [found and found[1] for found in installed] == ["paddle", "nvidia-dali"]


@pytest.mark.parametrize(
    "arguments", [["worker"], ["worker", "a.json"], ["worker", "--help"], ["worker", "a.json", "b.json"]]
)
def test_a_worker_is_not_a_command_to_type(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Case D3: only a run starts its ranks."""
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"error: unknown command 'worker'\n  {KNOWN}\n")


def test_the_launcher_is_not_a_command_to_type() -> None:
    """Case D3: run_bench.py itself decides it, before the command line is loaded."""
    without = {name: value for name, value in os.environ.items() if name != RUN_PID}
    command = [sys.executable, str(ROOT / "run_bench.py"), "launcher", "--log_dir", "x"]
    ended = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: unknown command 'launcher'\n  {KNOWN}\n"


@pytest.mark.parametrize(("command", "names"), [
    ("compare", ["a", "b", "--results"]),
    ("doctor", ["--data", "--results"]),
    ("export", ["what", "file", "--results"]),
    ("import-idx", ["source", "to"]),
    ("latency", ["--weights", "--results"]),
    ("verify", ["data", "--results"]),
])  # fmt: skip
def test_every_path_of_a_command_knows_the_home_folder(
    command: str, names: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case C7: in each argument alone, and an unknown user is refused."""
    monkeypatch.setenv("HOME", "/home/me")
    given: list[dict[str, str]] = []
    stand_in = dataclasses.replace(COMMANDS[command], run=lambda **values: given.append(values))
    monkeypatch.setitem(COMMANDS, command, stand_in)
    positional = [name for name in names if not name.startswith("-")]
    for name in names:
        for text, code in (("~/x", 0), ("~nobody-here/x", 2)):
            others = [text if one == name else "other" for one in positional]
            assert main([command, *others, *([f"{name}={text}"] if name not in positional else [])]) == code
        assert given.pop()[name.removeprefix("--")] == "/home/me/x"
        assert "whom this machine doesn't have" in capsys.readouterr().err
    assert given == []


def test_a_configuration_in_a_home_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case C7: the file, and a path in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    toml(tmp_path, 'data = "~/images"')
    assert parse(["--config", "~/run.toml"])[0] == {"data": f"{tmp_path}/images"}
    assert parse(["--config=~/run.toml", "--data=~/others"])[0] == {"data": f"{tmp_path}/others"}


@pytest.mark.parametrize("text", ["epochs = 3\n", 'data = "café"\r\n', ""])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, text: str) -> None:
    """Case C8: as Notepad writes it."""
    plain = tmp_path / "plain.toml"
    plain.write_bytes(text.encode())
    marked = tmp_path / "marked.toml"
    marked.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert parse(["--config", str(marked)]) == parse(["--config", str(plain)])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_a_configuration_in_another_encoding_is_explained(
    tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case C8: as PowerShell writes it; saved again as the cure says, it is read."""
    path = tmp_path / "it.toml"
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-16-le": codecs.BOM_UTF16_LE}.get(encoding, b"")
    path.write_bytes(mark + "epochs = 3\n".encode(encoding))
    assert main(["--config", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: --config {path} is in UTF-16, and TOML is in UTF-8\n  Save it again, as UTF-8.\n"
    )
    path.write_text("epochs = 3\n", encoding="utf-8")
    assert parse(["--config", str(path)])[0] == {"epochs": 3}


def test_the_help_lists_the_commands_and_not_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    listed = out.partition("commands (run_bench.py COMMAND --help has their options):\n")[2].splitlines()
    assert listed[: len(COMMANDS)] == [
        "  campaign       carry out a matrix of runs, and put them side by side",
        "  compare        tell whether run B is slower or faster than run A, beyond noise",
        "  completion     print what makes a shell complete options",
        "  doctor         check this machine before a run does, and say how to mend it",
        "  export         write a run's weights to a file that other programs can read",
        "  import-idx     convert MNIST, or a set in its file format, to a folder to train on",
        "  import-labels  make a list with ImageNet's labels from Kaggle's or the kit's file",
        "  latency        time inference of every size, beside what is published",
        "  pack           write a data set's images into shards: tar, TFRecord or RecordIO files",
        "  report         write a page with the figures and charts of one run, or of several",
        "  tune           find the settings with which this machine trains fastest on your data",
        "  verify         check that every image of a data set can be read and decoded",
        "  watch          show a run while it goes on, from another terminal",
    ]
    assert not any(line.startswith("  worker") for line in out.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: run_bench.py {name} ")
    assert COMMANDS[name].help in out
    assert err == ""


def test_a_command_gets_its_options_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []
    stand_in = dataclasses.replace(COMMANDS["compare"], run=lambda **values: given.append(values))
    monkeypatch.setitem(COMMANDS, "compare", stand_in)
    assert main(["compare", "a", "b"]) == 0
    assert main(["compare", "--fail-if-slower", "5 %", "a", "--results", "elsewhere", "b"]) == 0
    assert given == [
        {"a": "a", "b": "b", "results": "results"},
        {"a": "a", "b": "b", "results": "elsewhere", "fail_if_slower": "5 %"},
    ]


def test_an_error_s_control_characters_are_spelled_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(config: RunConfig, **_: object) -> None:
        raise DataError("no images in \x1b[31mx:\na\tb", "see \x07\there\nand there")

    monkeypatch.setattr(harness.commands.run, "run", end)
    assert main([]) == 4
    assert capsys.readouterr().err == "error: no images in \\x1b[31mx:\na\tb\n  see \\x07\there\n  and there\n"


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    described = {line.split()[0].rstrip(",") for line in out.splitlines() if line.startswith("  --")}
    assert described == {"--version", "--dry-run", "--quiet", "--json", "--config", *map(flag, run_options())}
    for default in ("(default: x1_0)", "(default: 360)", "(default: 0.9)", "(default: 224)", "(default: 0.02)"):
        assert default in " ".join(out.split())


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UsageError("wrong", "do this\nor that"), 2, "error: wrong\n  do this\n  or that\n"),
        (GateError("too slow", "look above"), 1, "error: too slow\n  look above\n"),
        (MachineError("no room"), 3, "error: no room\n"),
        (DataError("no images", "add some"), 4, "error: no images\n  add some\n"),
        (TrainingError("the loss is nan"), 5, "error: the loss is nan\n"),
        (KeyboardInterrupt(), 75, "error: interrupted\n"),
    ],
)
def test_what_ends_a_run_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    told: str,
) -> None:
    def end(config: RunConfig, **_: object) -> None:
        raise error

    monkeypatch.setattr(harness.commands.run, "run", end)
    assert main([]) == code
    assert capsys.readouterr().err == told


def test_an_error_of_the_harness_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(config: RunConfig, **_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(harness.commands.run, "run", end)
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_run_that_ends_well_exits_with_0_and_gets_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[RunConfig, bool]] = []
    monkeypatch.setattr(harness.commands.run, "run", lambda config, *, dry_run, **_: given.append((config, dry_run)))
    assert main(["--epochs", "3"]) == 0
    assert main(["--dry-run"]) == 0
    assert given == [(RunConfig(epochs=3), False), (RunConfig(), True)]


def everything(*folders: Path) -> dict[str, tuple[int, ...]]:
    """Every file and folder below these: number, mode, size, and the time of the last change of any of them."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    states = {str(path): path.lstat() for path in found}
    return {path: (one.st_ino, one.st_mode, one.st_size, one.st_ctime_ns) for path, one in states.items()}


def test_a_dry_run_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case E5: neither in the folder of the results, nor in a data set's, nor in the cache."""
    digits.folder()
    results, data = tmp_path / "results", write_colours(tmp_path / "colours")
    for name, status in (("interrupted", "interrupted"), ("finished", "finished")):
        RunFiles(results, name).checkpoints.mkdir(parents=True)
        write_record(results / f"{name}.json", a_record(run=name, status=status))
    (results / "empty.json").touch()
    (results / "empty.checkpoints").mkdir()
    (results / "empty.checkpoints" / LOCK).touch()
    (results / SUMMARY_FILE).write_text("a table of another version\n", encoding="utf-8")
    before = everything(results, data, cache_folder())
    own = ["--dry-run", "--device", "cpu", "--results", str(results)]
    for options in (
        ["--data", "digits"],
        ["--data", str(data), "--gpus", "1", "--batch-size", "8", "--model", "x0_25"],
        ["--throughput-only", "--device-counts", "1,2", "--data", "digits"],
        ["--throughput-only", "--repeats", "2", "--run-name", "new", "--data", "digits"],
        ["--run-name", "empty", "--resume", "--data", "digits"],
        ["--run-name", "new", "--resume", "--data", "digits"],
        ["--resume"],
        ["--resume", "interrupted"],
        ["--resume", "finished"],
    ):
        assert main([*own, *options]) == 0, options
        assert everything(results, data, cache_folder()) == before, options
    assert main([*own[:-1], str(tmp_path / "missing"), "--data", "digits"]) == 0
    assert not (tmp_path / "missing").exists()
    assert main([*own, "--run-name", "verify-x"]) == 2
    assert everything(results, data, cache_folder()) == before
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize("options", [("--data", "missing"), ("--data", "digits", "--batch-size", "100000")])
def test_a_run_that_is_refused_makes_no_folder(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert main(["--device", "cpu", "--results", str(tmp_path / "new"), *options]) in (2, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_plan_s_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where no dataset/ILSVRC2012 is
    assert main(["--dry-run", "--gpus", "4", "--layout", "nhwc"]) == 0
    printed = capsys.readouterr()
    assert "--layout nhwc is slower in float32" in " ".join((printed.out + printed.err).split())


def test_a_python_without_docstrings_is_refused_with_a_cure_that_works() -> None:
    """Paddle adds to its docstrings as it is imported."""
    command = [sys.executable, "-OO", str(ROOT / "run_bench.py"), "--version"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.splitlines() == [
        "error: Python runs without docstrings (python -OO, or PYTHONOPTIMIZE), which Paddle needs",
        "  Start it without: env -u PYTHONOPTIMIZE",
    ]
    assert subprocess.run([sys.executable, *command[2:]], stdout=subprocess.DEVNULL, check=False).returncode == 0
