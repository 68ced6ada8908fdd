from __future__ import annotations

import dataclasses
import datetime
import math
import re
from typing import Any

import pytest

from harness.cli import parse
from harness.errors import UsageError
from harness.plan.declaration import first_sentence, flag
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT
from harness.plan.options import RunConfig, parse_config, run_options


def refusal(**values: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        RunConfig(**values)
    return caught.value


def test_the_defaults_are_the_published_recipe() -> None:
    """None is decided by device or data; test_plan states what becomes of it."""
    published = {
        "model": "x1_0", "epochs": 360, "image_size": 224, "momentum": 0.9, "label_smoothing": 0.1, "amp": "off",
        "preprocessing": "paddleclas", "batch_size": None, "learning_rate": None, "lr_warmup_epochs": None,
        "weight_decay": None, "auto_augment": None, "pretrained": None,
    }  # fmt: skip
    assert {name: getattr(RunConfig(), name) for name in published} == published


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        *((name, 0, "at least 1") for name in ("gpus", "epochs", "classes", "batch_size")),
        *((name, 0, "at least 1") for name in ("compute_threads", "decode_threads", "prefetch")),
        *((name, 0, "at least 1") for name in ("repeats", "accumulation_steps")),
        ("gpus", -4, "at least 1"),
        ("warmup", -1, "at least 0"),
        ("lr_warmup_epochs", -1, "at least 0"),
        ("weight_decay", -1e-05, "at least 0"),
        ("weight_decay", math.nan, "finite"),
        *((name, 0.0, "above 0") for name in ("max_seconds", "target_ci", "learning_rate", "crop_area_min")),
        *(("checkpoint_minutes", value, "above 0") for value in (0.0, -0.5)),
        ("checkpoint_minutes", math.nan, "finite"),
        ("max_bad_images", -1, "at least 0"),
        ("max_bad_share", 1.5, "at most 1"),
        *((name, -0.5, "above 0") for name in ("max_seconds", "target_ci", "learning_rate", "crop_area_min")),
        *(("telemetry_interval", value, "at least 0.1") for value in (0.0, -0.5, 0.09)),
        ("target_ci", math.nan, "finite"),
        ("max_seconds", math.nan, "finite"),
        ("learning_rate", -math.inf, "finite"),
        ("crop_area_min", 1.01, "at most 1"),
        *((name, -0.01, "at least 0") for name in ("flip_probability", "label_smoothing", "hw_decoder_load")),
        *((name, 1.01, "at most 1") for name in ("flip_probability", "label_smoothing", "hw_decoder_load")),
        ("momentum", -0.1, "at least 0"),
        ("momentum", 1.0, "below 1"),
        ("stall_timeout", 4.9, "at least 5"),
        ("rendezvous_timeout", 0.0, "above 0"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_value_outside_its_limits_is_named_with_them(name: str, value: float, limit: str) -> None:
    message = refusal(**{name: value}).message
    assert message.startswith(f"{flag(name)} is {value}; it must be ")
    assert limit in message


@pytest.mark.parametrize("name", ["max_seconds", "target_ci", "learning_rate", "weight_decay", "telemetry_interval"])
def test_infinity_is_refused_as_not_finite(name: str) -> None:
    """ "inf; it must be above 0" would be untrue."""
    message = refusal(**{name: math.inf}).message
    assert message.startswith(f"{flag(name)} is inf")
    assert "finite" in message


def test_the_limit_of_the_seed_is_told_in_full() -> None:
    """Rounded to six figures, 2.14742e+09, it would admit the value that is refused."""
    message = refusal(seed=2147418112).message
    assert message.startswith("--seed is 2147418112")
    assert "2147418111" in message.replace(",", "")


def test_a_number_that_no_float_holds_is_a_mistake_of_the_user() -> None:
    assert refusal(epochs=10**400).message.startswith("--epochs is 1000")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 1) for name in ("gpus", "epochs", "classes", "batch_size", "decode_threads")),
        *((name, 0) for name in ("warmup", "lr_warmup_epochs", "weight_decay", "momentum", "label_smoothing", "seed")),
        *((name, 0.0) for name in ("flip_probability", "hw_decoder_load")),
        *((name, 1.0) for name in ("flip_probability", "hw_decoder_load", "crop_area_min", "label_smoothing")),
        ("seed", 2147418111),
        ("momentum", 0.999),
        ("max_seconds", 1e-3),
        ("target_ci", 1e-6),
        ("checkpoint_minutes", 1e-3),
        ("max_bad_images", 0),
        ("max_bad_share", 0),
    ],
)
def test_the_limits_themselves_are_allowed(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}
    assert getattr(RunConfig(**given), name) == value


@pytest.mark.parametrize("pixels", [-1, 0, 1, 2, 3, 31, 4097, 30_000, 2**31 - 1 - 2**16])
def test_the_limits_of_an_image_s_size_have_a_reason(pixels: int) -> None:
    """Case D2: 3 pixels ended in an error in the harness, as [3, 3, 3] has no order of its own."""
    error = refusal(image_size=pixels)
    assert error.message == f"--image-size is {pixels}; it must be at least 32 and at most 4096"
    assert error.cure == (
        "The network halves its input five times: 32 pixels leave one. An image of 4096 takes about 10 GiB of memory to"
        " train x1_0 on."
    )
    assert [RunConfig(image_size=side).image_size for side in (32, 33, 4096)] == [32, 33, 4096]


@pytest.mark.parametrize(
    ("written", "named"),
    [("0x5", "0x5; its height"), ("31x32", "31x32; its height"), ("32x31", "32x31; its width"),
     ("4097x32", "4097x32; its height"), ("32X4097", "32x4097; its width"), ("31x31", "31; it")],
)  # fmt: skip
def test_each_side_of_an_image_has_the_limits(written: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig(**parse_config({"image_size": written}, "it.toml"))
    assert caught.value.message == f"--image-size is {named} must be at least 32 and at most 4096"
    assert caught.value.cure.startswith("The network halves its input five times")


@pytest.mark.parametrize(
    ("written", "size"),
    [("224", 224), ("80x160", "80x160"), ("80X160", "80x160"), ("512x2048", "512x2048"), ("64x64", 64)],
)
def test_a_size_is_a_side_or_height_x_width(written: str, size: int | str) -> None:
    """A square is a number wherever it is written, so that runs are compared and resumed whatever was typed."""
    assert parse(["--image-size", written])[0] == {"image_size": size}
    for value in (written, size):
        assert parse_config({"image_size": value}, "it.toml") == {"image_size": size}
    config = RunConfig(**parse_config({"image-size": written}, "it.toml"))
    assert config.image_size == size


@pytest.mark.parametrize(
    "written", ["", "80x", "x160", "80x160x3", "80*160", "80 x 160", "a", "8.5", "80x-160", "auto"]
)
def test_what_is_no_size_is_refused(written: str) -> None:
    cure = "Give the side of a square, such as 224, or height x width, such as 80x160."
    with pytest.raises(UsageError) as caught:
        parse([f"--image-size={written}"])
    assert (caught.value.message, caught.value.cure) == (
        f"--image-size is {written!r}, which is not a size in pixels", cure,
    )  # fmt: skip
    with pytest.raises(UsageError) as caught:
        parse_config({"image_size": written}, "it.toml")
    assert (caught.value.message, caught.value.cure) == (
        f"it.toml: image_size is {written!r}, which is not a size in pixels", cure,
    )  # fmt: skip


def test_whole_images_have_no_smallest_crop() -> None:
    error = refusal(preprocessing="whole", crop_area_min=0.5)
    assert error.message == "--crop-area-min has no effect with --preprocessing whole, which crops nothing"
    assert error.cure == "Omit one of the two."
    assert RunConfig(preprocessing="whole", loader="opencv", flip_probability=0.5).preprocessing == "whole"


@pytest.mark.parametrize(
    ("options", "message", "cure"),
    [
        ({"pretrained_head": "new"}, "--pretrained-head new is about the weights of --pretrained", "or omit it"),
        ({"pretrained_head": "keep"}, "--pretrained-head keep is about the weights of --pretrained", "or omit it"),
        (
            {"pretrained_head": "new", "pretrained": "a", "eval_only": True},
            "--eval-only evaluates the last layer of --pretrained, too: one that starts anew knows no class",
            "or omit --eval-only to train",
        ),
    ],
)
def test_a_last_layer_without_weights_is_refused(options: dict[str, Any], message: str, cure: str) -> None:
    """Case C1, with what its cures lead to."""
    error = refusal(**options)
    assert error.message == message
    assert cure in error.cure
    RunConfig(pretrained_head="new", pretrained="a")
    RunConfig(pretrained_head="keep", pretrained="a", eval_only=True)
    RunConfig(pretrained="a", eval_only=True)


def test_every_option_that_takes_a_path_knows_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case C7: on the command line, where no shell replaces what follows "=", and in a file."""
    monkeypatch.setenv("HOME", "/home/me")
    named = {name for name, declared in run_options().items() if declared.metavar in ("PATH", "FILE", "FOLDER", "DIR")}
    assert named == {name for name, declared in run_options().items() if declared.path}
    assert {"data", "results", "pretrained", "telemetry_library"} <= named
    for name in named:
        assert parse([f"{flag(name)}=~/of/mine"])[0] == {name: "/home/me/of/mine"}
        assert parse_config({name: "~/of/mine"}, "it.toml") == {name: "/home/me/of/mine"}
        assert parse_config({name: "./~/of/mine"}, "it.toml") == {name: "./~/of/mine"}
        with pytest.raises(UsageError, match="a user 'nobody-here', whom this machine doesn't have"):
            parse_config({name: "~nobody-here/x"}, "it.toml")


def test_an_unknown_choice_is_told_what_is_known() -> None:
    error = refusal(model="x3_0")
    assert error.message == "unknown model 'x3_0'"
    assert error.cure == "Known: x0_25, x0_35, x0_5, x0_75, x1_0, x1_5, x2_0, x2_5."
    error = refusal(device="../gpu")
    assert error.message == "'../gpu' is not the name of a kind of device"
    error = refusal(bad_images="ignore")
    assert (error.message, error.cure) == ("unknown bad_images 'ignore'", "Known: skip, fail.")


def test_the_learning_rate_may_rise_for_all_of_the_run_and_no_longer() -> None:
    assert RunConfig(epochs=6, lr_warmup_epochs=6).lr_warmup_epochs == 6
    error = refusal(epochs=6, lr_warmup_epochs=7)
    assert error.message == "--lr-warmup-epochs 7 is longer than the run's 6 epochs"
    assert "--epochs" in error.cure


@pytest.mark.parametrize("name", ["a", "7", "20261124-153012-x1_0-cpu2", "A.b_c-1", "a..b", "x" * 100])
def test_names_that_a_run_may_have(name: str) -> None:
    assert RunConfig(run_name=name).run_name == name


@pytest.mark.parametrize(
    "name",
    ["", "../x", "..", ".x", "a/b", "a\\b", "a\nb", "a\n", "=1", "-x", "_x", "a b", "ü", "１", "a\0b", "x" * 101],
)
def test_names_that_a_run_may_not_have(name: str) -> None:
    error = refusal(run_name=name)
    assert error.message == f"--run-name {name!r} can't be the name of a run"
    assert "100 letters" in error.cure


@pytest.mark.parametrize("name", ["", "../x", ".x", "a/b", "a b", "x" * 101])
def test_a_run_to_resume_has_a_run_s_name(name: str) -> None:
    assert refusal(resume=name).message == f"--resume {name!r} is not the name of a run"


@pytest.mark.parametrize(
    "more", [{"throughput_only": True}, {"repeats": 2}, {"throughput_only": True, "device_counts": "1,2"}]
)
def test_only_a_run_of_epochs_can_be_resumed(more: dict[str, Any]) -> None:
    assert RunConfig(resume="first").resume == "first"
    assert refusal(resume="first", **more).message.startswith("--resume is for a run of epochs")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"loader": "spdl"}, "unknown loader 'spdl'"),
        ({"loader": "opencv,dali", "throughput_only": True}, "unknown loader 'opencv,dali'"),
        ({"loader": "dali,opencv"}, "--loader dali,opencv measures two loaders in turns, and this run trains"),
        ({"loader": "opencv", "preprocessing": "dali"}, "--preprocessing dali is DALI's"),
        ({"loader": "opencv", "auto_augment": True}, "--loader opencv has no AutoAugment"),
        ({"loader": "opencv", "model": "x2_5"}, "--loader opencv has no AutoAugment, which the recipe of x2_5 uses"),
        ({"loader": "opencv", "decode_threads": 2}, "--decode-threads has no effect with --loader opencv"),
        ({"loader": "opencv", "resize": "fused"}, "--resize has no effect with --loader opencv"),
        ({"workers": 2}, "--workers has no effect with --loader dali"),
        ({"loader": "opencv", "workers": 0}, "--workers is 0; it must be at least 1"),
    ],
)
def test_what_a_loader_can_t_do_is_refused(options: dict[str, Any], what: str) -> None:
    assert refusal(**options).message.startswith(what)


def test_options_of_either_loader_are_for_both_of_them() -> None:
    assert RunConfig(loader="dali,opencv", throughput_only=True, decode_threads=2, workers=2).loader == "dali,opencv"
    assert RunConfig(loader="opencv", model="x2_5", auto_augment=False, workers=2).workers == 2


@pytest.mark.parametrize(
    ("name", "known"),
    [("amp", "off, bf16, fp16"), ("amp_level", "O1, O2"), ("layout", "nchw, nhwc"), ("tf32", "on, off"),
     ("preprocessing", "paddleclas, dali, whole"), ("bn_stats", "average, rank0, sync"), ("strides", "both, height")],
)  # fmt: skip
def test_what_a_choice_may_be(name: str, known: str) -> None:
    error = refusal(**{name: "other"})
    assert (error.message, error.cure) == (f"unknown {name} 'other'", f"Known: {known}.")


def test_a_level_of_mixed_precision_needs_mixed_precision() -> None:
    assert refusal(amp_level="O2").message == "--amp-level O2 is for mixed precision, and --amp is off"


@pytest.mark.parametrize(
    ("options", "message", "cure"),
    [
        ({"amp_depthwise": True}, "--amp-depthwise has no effect without --amp", "--amp-level O1"),
        ({"amp_depthwise": True, "amp": "bf16", "amp_level": "O2"}, "or at --amp-level O2", "--amp-level O1"),
        ({"master_grad": True}, "--master-grad has no effect without --amp-level O2", "--amp-level O2"),
        ({"master_grad": True, "amp": "fp16"}, "--master-grad has no effect without --amp-level O2", "--amp-level O2"),
        (
            {"master_grad": True, "amp": "fp16", "amp_level": "O2", "accumulation_steps": 2},
            "--master-grad can't be combined with --accumulation-steps 2",
            "only one of the two",
        ),
        ({"tf32": "off", "amp": "bf16", "amp_level": "O2"}, "--tf32 off has no effect at --amp-level O2", "Omit it"),
        ({"master_grad": True, "eval_only": True, "pretrained": "a"}, "--master-grad is an option of training", "one"),
        ({"profile": 3, "eval_only": True, "pretrained": "a"}, "--profile is an option of training", "one"),
    ],
)
def test_an_option_of_precision_without_effect_is_refused(options: dict[str, Any], message: str, cure: str) -> None:
    error = refusal(**options)
    assert message in error.message
    assert cure in error.cure


def test_options_of_precision_where_they_have_an_effect() -> None:
    RunConfig(amp_depthwise=True, amp="bf16")
    RunConfig(amp_depthwise=True, amp="fp16", amp_level="O1", tf32="on")
    RunConfig(master_grad=True, amp="fp16", amp_level="O2")
    RunConfig(tf32="off")


def test_an_evaluation_needs_weights() -> None:
    assert refusal(eval_only=True).message == "--eval-only needs weights to evaluate"
    config = RunConfig(eval_only=True, pretrained="a.pdparams")
    assert config.kind is EVALUATION
    assert RunConfig().kind is EPOCHS
    assert RunConfig(throughput_only=True).kind is THROUGHPUT


@pytest.mark.parametrize(
    "more",
    [{"throughput_only": True}, {"repeats": 2}, {"resume": "it"}, {"auto_batch": True}, {"accumulation_steps": 2}],
)
def test_an_evaluation_does_not_train(more: dict[str, Any]) -> None:
    error = refusal(eval_only=True, pretrained="a.pdparams", **more)
    (name,) = more
    assert error.message == f"--eval-only does not train, but {flag(name)} is an option of training"


def test_a_configuration_never_changes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().epochs = 1  # type: ignore[misc]


def test_flags_are_spelled_with_dashes() -> None:
    assert flag("batch_size") == "--batch-size"
    assert flag("gpus") == "--gpus"


def test_every_option_has_a_type_and_is_explained() -> None:
    for name, declared in run_options().items():
        assert declared.kind in (int, float, bool, str), name
        assert re.fullmatch(r"[A-Z][^.]+.*\.", first_sentence(declared.help)), name
        assert bool(declared.metavar or declared.choices) == (declared.kind is not bool), name


@pytest.mark.parametrize(
    ("rule", "known"),
    [("resume", {"same", "kept", "noted", "free"}), ("nodes", {"same", "own"}), ("compare", {"shown", "hidden"})],
)
def test_every_option_has_a_rule_that_is_known(rule: str, known: set[str]) -> None:
    assert {getattr(declared, rule) for declared in run_options().values()} == known


def test_parsing_keeps_values_and_takes_both_spellings() -> None:
    assert parse_config({}, "run.toml") == {}
    assert parse_config(
        {"batch-size": 64, "image_size": 128, "model": "x0_5", "throughput-only": True}, "run.toml"
    ) == {
        "batch_size": 64,
        "image_size": 128,
        "model": "x0_5",
        "throughput_only": True,
    }


def test_a_whole_number_serves_where_a_fraction_is_wanted() -> None:
    value = parse_config({"max_seconds": 30}, "run.toml")["max_seconds"]
    assert (value, type(value)) == (30.0, float)


def test_an_unknown_key_gets_the_closest_one() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config({"epoch": 1}, "run.toml")
    assert caught.value.message == "run.toml: unknown key 'epoch'"
    assert caught.value.cure == "Did you mean 'epochs'?"


@pytest.mark.parametrize("keys", [("learning-rate", "learning_rate"), ("lr-warmup_epochs", "lr_warmup_epochs")])
def test_a_key_that_is_there_in_two_spellings_is_refused(keys: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="is there twice, with a dash and with an underscore"):
        parse_config(dict.fromkeys(keys, 1), "run.toml")


def test_an_unknown_key_like_no_other_gets_all_of_them() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config({"zzz": 1}, "run.toml")
    assert caught.value.message == "run.toml: unknown key 'zzz'"
    assert caught.value.cure == f"Known: {', '.join(run_options())}."


@pytest.mark.parametrize(
    ("key", "value", "has", "wanted"),
    [
        ("epochs", "5", "str", "int"),
        ("epochs", 5.0, "float", "int"),
        ("epochs", True, "bool", "int"),
        ("batch-size", False, "bool", "int"),
        ("max_seconds", True, "bool", "float"),
        ("max_seconds", "45", "str", "float"),
        ("throughput_only", 1, "int", "bool"),
        ("throughput_only", "yes", "str", "bool"),
        ("model", 1, "int", "str"),
        ("data", ["a", "b"], "list", "str"),
        ("gpus", {"count": 4}, "dict", "int"),
        ("seed", None, "NoneType", "int"),
        ("run_name", datetime.date(2026, 11, 24), "date", "str"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object, has: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config({key: value}, "run.toml")
    assert caught.value.message == f"run.toml: {key} is {value!r}, of type {has}; it must be of type {wanted}"


def test_a_whole_number_that_no_float_holds_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UsageError, match="max_seconds"):
        parse_config({"max_seconds": 10**400}, "run.toml")


@pytest.mark.parametrize("name", ["hw_decoder_load", "batch_size", "decode_threads", "learning_rate"])
def test_auto_stands_for_a_number_that_the_run_decides(name: str) -> None:
    assert parse([flag(name), "auto"])[0] == {name: None}
    assert parse_config({name: "auto"}, "it.toml") == {name: None}
    assert parse([flag(name), "1"])[0] == {name: 1}


@pytest.mark.parametrize(("name", "choice"), [("pretrained_head", "new"), ("amp_level", "O2"), ("tf32", "on")])
def test_auto_stands_for_a_choice_that_the_run_decides(name: str, choice: str) -> None:
    assert parse([flag(name), "auto"])[0] == {name: None}
    assert parse_config({name: "auto"}, "it.toml") == {name: None}
    assert parse([flag(name), choice])[0] == {name: choice}


@pytest.mark.parametrize("name", ["epochs", "momentum"])
def test_auto_is_no_value_of_other_numbers(name: str) -> None:
    kind = run_options()[name].kind.__name__
    with pytest.raises(UsageError, match=f"argument {flag(name)}: invalid {kind} value: 'auto'"):
        parse([flag(name), "auto"])
    with pytest.raises(UsageError, match=f"it.toml: {name} is 'auto', of type str; it must be of type {kind}"):
        parse_config({name: "auto"}, "it.toml")
