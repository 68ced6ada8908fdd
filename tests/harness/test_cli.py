from __future__ import annotations

from pathlib import Path

import pytest

import harness.bench
from harness.cli import main, parse
from harness.config import RunConfig, flag, option_fields
from harness.errors import MachineError, TrainingError, UsageError
from pipelines.errors import DataError


def toml(folder: Path, text: str) -> str:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_no_option_at_all_is_the_published_recipe() -> None:
    assert parse([]) == (RunConfig(), False)


def test_options_become_fields() -> None:
    run = ["--gpus", "4", "--model", "x0_25", "--epochs", "20", "--throughput-only", "--max-seconds", "1.5"]
    training = ["--data", "some/folder", "--learning-rate", "2e-1", "--batch-size=64"]
    config, dry_run = parse([*run, *training, "--run-name", "first", "--dry-run"])
    assert config == RunConfig(
        gpus=4,
        model="x0_25",
        epochs=20,
        throughput_only=True,
        max_seconds=1.5,
        data="some/folder",
        learning_rate=0.2,
        run_name="first",
        batch_size=64,
    )
    assert dry_run


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = toml(tmp_path, 'epochs = 20\nbatch-size = 64\nmodel = "x0_5"\nmax_seconds = 9\nthroughput_only = true\n')
    config, dry_run = parse(["--epochs", "7", "--config", file, "--model", "x2_5"])
    assert config == RunConfig(epochs=7, model="x2_5", batch_size=64, max_seconds=9.0, throughput_only=True)
    assert not dry_run


def test_a_default_given_on_the_command_line_still_wins_over_the_file(tmp_path: Path) -> None:
    assert parse(["--config", toml(tmp_path, "epochs = 20"), "--epochs", "360"])[0].epochs == 360


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert parse(["--config", toml(tmp_path, "# nothing\n")])[0] == RunConfig()


def test_values_of_the_file_have_the_same_limits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--batch-size is 0; it must be at least 1"):
        parse(["--config", toml(tmp_path, "batch-size = 0")])


@pytest.mark.parametrize(
    ("text", "wrong", "cure"),
    [
        ("epochs = ", "run.toml is no TOML: ", ""),
        ("epochs = 1\nepochs = 2", "run.toml is no TOML: ", ""),
        ("epoch = 1", "run.toml: unknown key 'epoch'", "  Did you mean 'epochs'?"),
        ("[training]\nepochs = 1", "run.toml: unknown key 'training'", "  Known: throughput_only, model, gpus, "),
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
    assert line.startswith(f"error: --config {latin} is no TOML: ")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["train"], "unrecognized arguments: train"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--through"], "unrecognized arguments: --through"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--epochs", "ten"], "argument --epochs: invalid int value: 'ten'"),
        (["--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
        (["--max-seconds", "long"], "argument --max-seconds: invalid float value: 'long'"),
        (["--throughput-only=1"], "argument --throughput-only/--no-throughput-only: ignored explicit argument '1'"),
    ],
)
def test_a_mistyped_command_line_points_to_the_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str], wrong: str
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {wrong}\n  See run_bench.py --help.\n"


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    described = {line.split()[0].rstrip(",") for line in out.splitlines() if line.startswith("  --")}
    assert described == {"--dry-run", "--config", *(flag(item.name) for item in option_fields())}
    for default in ("(default: x1_0)", "(default: 360)", "(default: 0.9)", "(default: 224)", "(default: 0.65)"):
        assert default in " ".join(out.split())


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UsageError("wrong", "do this\nor that"), 2, "error: wrong\n  do this\n  or that\n"),
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
    def end(config: RunConfig, *, dry_run: bool) -> None:
        raise error

    monkeypatch.setattr(harness.bench, "run", end)
    assert main([]) == code
    assert capsys.readouterr().err == told


def test_an_error_of_the_harness_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(config: RunConfig, *, dry_run: bool) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(harness.bench, "run", end)
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_run_that_ends_well_exits_with_0_and_gets_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[RunConfig, bool]] = []
    monkeypatch.setattr(harness.bench, "run", lambda config, *, dry_run: given.append((config, dry_run)))
    assert main(["--epochs", "3"]) == 0
    assert main(["--dry-run"]) == 0
    assert given == [(RunConfig(epochs=3), False), (RunConfig(), True)]
