from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import harness.plan.decisions
from harness.cli import main
from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.plan.decisions import default_data, make_plan, run_name
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import (
    IMAGENET,
    PARTS,
    DataFacts,
    OperationPlan,
    RunPlan,
    TrainingPlan,
    WindowPlan,
    facts_of,
    settings_of,
)
from harness.report.console import plan_facts
from models.image_size import ImageSize
from pipelines.augmentation import Augmentation
from pipelines.image_lists import ImageList
from pipelines.settings import PipelineSettings
from tests.support.data_sets import a_dataset, imagenet_list

DEFAULTS = RunConfig()
RECIPE = Augmentation()
FOUR_GPUS = Devices("gpu", 4, "BI-V100")


@pytest.fixture(autouse=True)
def sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.plan.decisions, "available_cores", lambda: 64)


def cpus(ranks: int) -> Devices:
    return Devices("cpu", ranks, "CPU")


def small(train_images: int, augmentation: Augmentation = RECIPE) -> DataFacts:
    return DataFacts("data", "small", train_images, 10, 5, augmentation, False, False)


def plan(
    config: RunConfig = DEFAULTS,
    devices: Devices = FOUR_GPUS,
    data: DataFacts = IMAGENET,
    environment: dict[str, str] | None = None,
) -> RunPlan:
    return make_plan(config, devices, data, environment or {})


def refusal(config: RunConfig, devices: Devices, data: DataFacts) -> UsageError:
    with pytest.raises(UsageError) as caught:
        plan(config, devices, data)
    return caught.value


def test_the_published_plan_on_four_gpus() -> None:
    published = plan()
    assert published == RunPlan(
        kind=EPOCHS,
        model="x1_0",
        device="gpu",
        device_name="BI-V100",
        ranks=4,
        nodes=1,
        data=DataFacts(
            source="dataset/ILSVRC2012",
            name="ILSVRC2012",
            train_images=1_281_167,
            val_images=50_000,
            num_classes=1000,
            augmentation=Augmentation(0.08, 1.0, 3 / 4, 4 / 3, 0.5),
            imagenet=True,
            builtin=False,
        ),
        pipeline=PipelineSettings(
            batch_size=512,
            image_size=224,
            decoder="mixed",
            decode_region=False,
            decode_threads=8,
            seed=0,
            prefetch=2,
            hw_decoder_load=0.65,
            dtype="float32",
            layout="nchw",
            preprocessing="paddleclas",
            auto_augment=False,
        ),
        training=TrainingPlan(
            epochs=360,
            steps_per_epoch=626,
            learning_rate=0.8,
            lr_warmup_epochs=5,
            momentum=0.9,
            weight_decay=3e-5,
            label_smoothing=0.1,
            accumulation_steps=1,
            bn_stats="average",
            amp="off",
            amp_level="O1",
            to_static=False,
            compute_threads=16,
            pretrained=None,
        ),
        window=WindowPlan(warmup_steps=20, warmup_given=False, target_ci=0.02, max_seconds=130.0),
        operation=OperationPlan(
            stall_timeout=600.0,
            rendezvous_timeout=300.0,
            checkpoint_minutes=15.0,
            telemetry_interval=0.5,
            bad_images="skip",
            max_bad_images=100,
            max_bad_share=0.01,
        ),
        notes=(),
    )
    assert published.total_steps == 225_360
    assert published.global_batch == 2048


def test_the_published_plan_is_printed_in_words() -> None:
    told = " ".join(f"{label} {value}" for label, value in plan_facts(plan()))
    for figure in (
        "model PPLCNet_x1_0, 1,000 classes",
        "devices 4 x BI-V100, one rank per device",
        "data ILSVRC2012: 1,281,167 training and 50,000 validation images",
        "crops 224x224, area 0.08 to 1, flipped with probability 0.5",
        "batch 512 images per device, 2,048 images per step",
        "length 360 epochs, 225,360 steps; 626 steps per epoch",
        "learning rate 0.8 after 5 epochs of linear warm-up, then cosine decay to 0",
        "weight decay 3e-05, none on batch norm",
        "warm-up at least 20 steps; its end is found in the step times",
        "threads per rank ",
    ):
        assert figure in told


@pytest.mark.parametrize(
    ("options", "data", "classes"),
    [
        ((), "digits: 1,442 training and 355 validation images", "10, from dataset.toml"),
        (("--throughput-only",), "photos: 1,024 training images", "1,000, from dataset.toml"),
        (
            ("--data", "photos", "--classes", "1200"),
            "1,024 training and 128 validation images",
            "1,200, from --classes",
        ),
    ],
)
def test_a_dry_run_shows_the_run_that_would_be_made(
    options: tuple[str, ...],
    data: str,
    classes: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Case A8: without data it is not ImageNet, and nothing is made for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPLCNET_BENCH_CACHE", str(tmp_path / "cache"))
    assert main([*options, "--gpus", "4", "--dry-run"]) == 0
    printed = capsys.readouterr()
    told = " ".join(printed.out.split())
    assert data in told
    assert f"classes {classes}" in told
    assert "ILSVRC2012:" not in told
    assert ("no --data" in " ".join((printed.out + printed.err).split())) == ("--data" not in options)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_the_run_would(capsys: pytest.CaptureFixture[str]) -> None:
    """Case A8: fewer classes than the built-in set has."""
    assert main(["--data", "digits", "--classes", "5", "--dry-run"]) == 4
    assert "Use --classes 10." in capsys.readouterr().err
    assert main(["--data", "digits", "--classes", "10", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("model", "weight_decay"),
    [(size, 3e-5) for size in ("x0_25", "x0_35", "x0_5", "x0_75", "x1_0")]
    + [(size, 4e-5) for size in ("x1_5", "x2_0", "x2_5")],
)
def test_the_weight_decay_is_the_size_s_own(model: str, weight_decay: float) -> None:
    assert plan(RunConfig(model=model)).training.weight_decay == weight_decay
    assert plan(RunConfig(model=model, weight_decay=0.0)).training.weight_decay == 0.0
    assert plan(RunConfig(model=model, weight_decay=1e-4)).training.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("ranks", "batch_size", "learning_rate"),
    [(4, 512, 0.8), (8, 256, 0.8), (8, 512, 1.6), (1, 256, 0.1), (1, 64, 0.025), (2, 32, 0.025), (1, 1, 0.000390625)],
)
def test_the_learning_rate_is_a_tenth_per_256_images_of_the_global_batch(
    ranks: int, batch_size: int, learning_rate: float
) -> None:
    found = plan(RunConfig(batch_size=batch_size), Devices("gpu", ranks, "X"))
    assert found.training.learning_rate == pytest.approx(learning_rate, rel=1e-12)
    assert found.global_batch == ranks * batch_size


def test_a_learning_rate_that_is_given_is_taken_whatever_the_batch() -> None:
    assert plan(RunConfig(learning_rate=0.3, batch_size=64)).training.learning_rate == 0.3


@pytest.mark.parametrize(
    ("ranks", "batch_size", "steps"), [(4, 512, 626), (8, 256, 626), (1, 512, 2503), (1, 64, 20019), (3, 500, 855)]
)
def test_steps_of_an_epoch_and_of_the_run(ranks: int, batch_size: int, steps: int) -> None:
    found = plan(RunConfig(batch_size=batch_size, epochs=10), Devices("gpu", ranks, "X"))
    assert (found.training.steps_per_epoch, found.total_steps) == (steps, 10 * steps)


def test_cpus_have_smaller_defaults() -> None:
    found = plan(devices=cpus(2))
    assert (found.device, found.device_name, found.ranks) == ("cpu", "CPU", 2)
    assert (found.pipeline.batch_size, found.window.warmup_steps, found.training.learning_rate) == (16, 3, 0.0125)
    assert (found.training.compute_threads, found.pipeline.decode_threads) == (32, 8)


def test_throughput_alone_has_no_end_in_steps() -> None:
    found = plan(RunConfig(throughput_only=True))
    assert (found.kind, found.training.steps_per_epoch, found.window.warmup_steps) == (THROUGHPUT, 626, 20)


@pytest.mark.parametrize(
    ("images", "devices", "batch_size", "note"),
    [
        (
            100,
            FOUR_GPUS,
            25,
            "batch of 25 images per rank, not 512: 100 training images of small over 4 ranks leave at most 25 each",
        ),
        (
            103,
            FOUR_GPUS,
            26,
            "batch of 26 images per rank, not 512: 103 training images of small over 4 ranks leave at most 26 each",
        ),
        (
            400,
            cpus(40),
            10,
            "batch of 10 images per rank, not 16: 400 training images of small over 40 ranks leave at most 10 each",
        ),
        (2047, FOUR_GPUS, 512, None),
        (2044, FOUR_GPUS, 511, ""),
        (2048, FOUR_GPUS, 512, None),
        (32, cpus(2), 16, None),
    ],
)
def test_few_images_make_the_default_batch_smaller(
    images: int, devices: Devices, batch_size: int, note: str | None
) -> None:
    """None: no note at all; empty: some note."""
    found = plan(devices=devices, data=small(images))
    assert found.pipeline.batch_size == batch_size
    assert found.training.learning_rate == pytest.approx(0.1 * batch_size * devices.count / 256)
    if note:
        assert found.notes == (note,)
    else:
        assert len(found.notes) == (0 if note is None else 1)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_a_throughput_run_has_the_same_batch_per_device_on_any_number_of_devices(ranks: int) -> None:
    """The built-in photos are 1,024: 8 ranks of 512 images draw each of them four times a step."""
    gpus = Devices("gpu", ranks, "GPU")
    found = plan(RunConfig(throughput_only=True), gpus, small(1024))
    assert (found.pipeline.batch_size, found.global_batch, found.notes) == (512, 512 * ranks, ())
    asked = RunConfig(throughput_only=True, batch_size=300, accumulation_steps=4)
    found = plan(asked, gpus, small(3))
    assert (found.pipeline.batch_size, found.global_batch, found.notes) == (300, 1200 * ranks, ())
    assert plan(devices=gpus, data=small(1024)).pipeline.batch_size == min(512, 1024 // ranks)


def test_a_batch_that_is_given_may_be_all_of_a_rank_s_share_and_no_more() -> None:
    found = plan(RunConfig(batch_size=26), FOUR_GPUS, small(103))
    assert (found.pipeline.batch_size, found.training.steps_per_epoch, found.notes) == (26, 1, ())
    error = refusal(RunConfig(batch_size=27), FOUR_GPUS, small(103))
    assert error.message == (
        "a batch of 27 images is larger than a rank's shard: "
        "103 training images of small over 4 ranks leave at most 26 each"
    )
    assert error.cure == "Use --batch-size 26 or less, or fewer --gpus."


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 8])
def test_an_epoch_with_the_default_batch_is_one_pass(ranks: int) -> None:
    """To a batch's rounding, whatever the ranks: never two steps where the data set fills one."""
    found = plan(devices=Devices("gpu", ranks, "GPU"), data=small(1442))
    trained = found.training.steps_per_epoch * found.global_batch
    assert trained - 1442 < found.global_batch
    assert bool(found.notes) or trained <= 1.05 * 1442


def test_an_epoch_that_trains_on_many_more_images_than_there_are_says_so() -> None:
    found = plan(RunConfig(batch_size=25), FOUR_GPUS, small(103))
    assert found.notes == ("an epoch of 2 full batches trains on 200 images, but small has 103",)


@pytest.mark.parametrize(
    ("model", "asked", "has", "notes"),
    [
        ("x2_5", None, True, ()),
        ("x2_5", True, True, ()),
        ("x2_5", False, False, ("the published recipe of x2_5 uses AutoAugment; this run does not",)),
        ("x2_0", None, False, ()),
        ("x2_0", True, True, ("the published recipe of x2_0 does not use AutoAugment; this run does",)),
    ],
)
def test_auto_augment_is_for_the_size_that_was_published_with_it(
    model: str, asked: bool | None, has: bool, notes: tuple[str, ...]
) -> None:
    made = plan(RunConfig(model=model, auto_augment=asked))
    assert (made.pipeline.auto_augment, made.notes) == (has, notes)


def test_dalis_own_recipe_is_noted() -> None:
    notes = plan(RunConfig(preprocessing="dali")).notes
    assert notes == ("images are cropped and resized as DALI does by default, not as published",)


def test_whole_images_are_noted() -> None:
    made = plan(RunConfig(preprocessing="whole", image_size="80x160", strides="height"))
    assert made.notes == (
        "images are resized as a whole, not cropped as published, and so become wider or narrower where their shape is"
        " another than that of --image-size",
    )
    assert (made.pipeline.image_size, made.pipeline.size) == ("80x160", ImageSize(80, 160))
    assert made.training.strides == "height"


def test_a_step_of_several_batches() -> None:
    """128 images x 4 batches x 4 ranks are the published step of 2048."""
    made = plan(RunConfig(batch_size=128, accumulation_steps=4))
    assert (made.training.accumulation_steps, made.global_batch, made.training.steps_per_epoch) == (4, 2048, 626)
    assert made.training.learning_rate == pytest.approx(0.8)
    assert made.total_steps == 225_360


def test_a_step_may_not_be_larger_than_a_shard() -> None:
    data = small(40)
    assert plan(RunConfig(accumulation_steps=3), cpus(2), data).pipeline.batch_size == 6
    error = refusal(RunConfig(accumulation_steps=3, batch_size=7), cpus(2), data)
    assert error.message == (
        "a step of 3 batches of 7 images is larger than a rank's shard: 40 training images of small over 2 ranks leave"
        " at most 20 each"
    )
    assert error.cure == "Use --batch-size 6 or less, or fewer --gpus."
    error = refusal(RunConfig(accumulation_steps=21), cpus(2), data)
    assert error.cure == "Use --accumulation-steps 20 or less, or fewer --gpus."


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RunConfig(decoder="mixed"), "--decoder mixed needs GPUs: DALI has no decoder for CPUs"),
        (RunConfig(amp="bf16"), "--amp bf16 needs GPUs: Paddle has no bf16 convolutions for CPUs"),
        (RunConfig(amp="fp16", amp_level="O2"), "--amp fp16 needs GPUs: Paddle has no fp16 convolutions for CPUs"),
        (RunConfig(tf32="off"), "--tf32 off needs GPUs: Paddle has no TF32 for CPUs"),
        (RunConfig(bn_stats="sync"), "--bn-stats sync needs GPUs: Paddle has no synchronised batch norm for CPUs"),
    ],
)
def test_what_paddle_has_not_on_a_cpu_is_refused_there(config: RunConfig, message: str) -> None:
    with pytest.raises(MachineError) as caught:
        plan(config, cpus(2), small(1000))
    assert (caught.value.message, caught.value.exit_code) == (message, 3)
    assert plan(config).training.precision == (
        "off" if config.amp == "off" else f"{config.amp}-{config.amp_level or 'O1'}"
    )


def test_batches_of_a_run_in_16_bits_are_handed_over_in_16_bits() -> None:
    assert {amp: plan(RunConfig(amp=amp)).pipeline.dtype for amp in ("off", "bf16", "fp16")} == {
        "off": "float32",
        "bf16": "float16",
        "fp16": "float16",
    }


def test_options_of_precision_reach_the_ranks() -> None:
    asked = RunConfig(amp="bf16", amp_depthwise=True, tf32="off", profile=7)
    made = plan(asked)
    assert (made.training.amp_depthwise, made.training.master_grad, made.training.tf32) == (True, False, "off")
    assert made.operation.profile == 7
    assert plan(RunConfig(amp="bf16", amp_level="O2", master_grad=True)).training.master_grad


@pytest.mark.parametrize(
    ("config", "devices", "noted"),
    [
        (RunConfig(layout="nhwc"), FOUR_GPUS, True),
        (RunConfig(layout="nhwc", amp="bf16"), FOUR_GPUS, False),
        (RunConfig(), FOUR_GPUS, False),
        (RunConfig(layout="nhwc"), cpus(2), False),
    ],
)
def test_channels_last_in_float32_is_noted_where_cudnn_computes(
    config: RunConfig, devices: Devices, noted: bool
) -> None:
    assert any(note.startswith("--layout nhwc is slower in float32") for note in plan(config, devices).notes) == noted


def test_a_trace_is_noted_and_fits_into_the_run() -> None:
    (note,) = plan(RunConfig(profile=7)).notes
    assert note.startswith("rank 0 traces 7 of the measured steps")
    asked = RunConfig(epochs=2, batch_size=10, warmup=3)
    data = small(100)
    assert plan(dataclasses.replace(asked, profile=7), cpus(2), data).operation.profile == 7
    error = refusal(dataclasses.replace(asked, profile=8), cpus(2), data)
    assert error.message == "--profile 8 is more than the 7 training steps after a warm-up of 3"


def test_an_evaluation_has_no_training_steps() -> None:
    made = plan(RunConfig(eval_only=True, pretrained="a.pdparams", warmup=5))
    assert made.kind is EVALUATION
    # Nor does the number of training images limit its batch, or is anything of training noted.
    config = RunConfig(eval_only=True, pretrained="a.pdparams", batch_size=64, auto_augment=True)
    made = plan(config, cpus(2), small(3))
    assert (made.pipeline.batch_size, made.notes) == (64, ())
    assert plan(dataclasses.replace(config, batch_size=None), cpus(2), small(1)).pipeline.batch_size == 16


def test_the_warm_up_outlasts_what_is_decoded_ahead() -> None:
    assert plan(RunConfig(throughput_only=True, prefetch=64)).window.warmup_steps == 65


def test_more_ranks_than_images_are_refused() -> None:
    error = refusal(RunConfig(), FOUR_GPUS, small(3))
    assert error.message == "fewer training images than ranks: 3 training images, 4 ranks"
    assert error.cure == "Use fewer --gpus."


@pytest.mark.parametrize(("images", "warmup"), [(80 * 8, 20), (79 * 8, 19), (8 * 8, 2), (3 * 8, 0)])
def test_a_short_run_keeps_three_quarters_of_its_steps_to_measure(images: int, warmup: int) -> None:
    config = RunConfig(epochs=1, batch_size=2)
    assert plan(config, FOUR_GPUS, small(images)).window.warmup_steps == warmup
    assert plan(dataclasses.replace(config, throughput_only=True), FOUR_GPUS, small(images)).window.warmup_steps == 20


def test_a_warm_up_that_is_given_leaves_a_step_to_measure() -> None:
    config = RunConfig(epochs=2, batch_size=2, warmup=7)
    assert plan(config, FOUR_GPUS, small(32)).window.warmup_steps == 7
    error = refusal(dataclasses.replace(config, warmup=8), FOUR_GPUS, small(32))
    assert error.message == "--warmup 8 leaves nothing to measure: the run has 8 steps (2 epochs of 4)"
    assert error.cure == "Use --warmup 7 or less, or more --epochs."
    assert plan(RunConfig(warmup=0)).window.warmup_steps == 0


def test_throughput_alone_warms_up_for_as_long_as_it_is_told() -> None:
    assert plan(RunConfig(throughput_only=True, warmup=5000), FOUR_GPUS, small(2048)).window.warmup_steps == 5000


@pytest.mark.parametrize(
    ("epochs", "given", "lr_warmup_epochs"), [(360, None, 5), (5, None, 5), (3, None, 3), (360, 0, 0), (3, 2, 2)]
)
def test_the_learning_rate_rises_for_five_epochs_or_all_of_a_shorter_run(
    epochs: int, given: int | None, lr_warmup_epochs: int
) -> None:
    assert plan(RunConfig(epochs=epochs, lr_warmup_epochs=given)).training.lr_warmup_epochs == lr_warmup_epochs


@pytest.mark.parametrize(
    ("cores", "ranks", "compute", "decode"), [(64, 4, 16, 8), (16, 4, 4, 4), (6, 4, 1, 1), (2, 4, 1, 1), (7, 1, 7, 7)]
)
def test_ranks_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, ranks: int, compute: int, decode: int
) -> None:
    monkeypatch.setattr(harness.plan.decisions, "available_cores", lambda: cores)
    found = plan(devices=cpus(ranks))
    assert (found.training.compute_threads, found.pipeline.decode_threads) == (compute, decode)


def test_threads_that_are_given_go_before_the_environment_and_that_before_the_cores() -> None:
    assert plan(environment={"OMP_NUM_THREADS": "6"}).training.compute_threads == 6
    assert plan(environment={"OMP_NUM_THREADS": "6"}).pipeline.decode_threads == 8
    found = plan(RunConfig(compute_threads=3, decode_threads=12), environment={"OMP_NUM_THREADS": "6"})
    assert (found.training.compute_threads, found.pipeline.decode_threads) == (3, 12)


@pytest.mark.parametrize("garbage", ["", "0", "-2", "2.5", "4,2", "many", " ", "²"])
def test_an_omp_num_threads_that_is_no_number_is_ignored(garbage: str) -> None:
    assert plan(environment={"OMP_NUM_THREADS": garbage}).training.compute_threads == 16


def test_the_augmentation_is_the_data_set_s_with_what_is_given() -> None:
    own = Augmentation(crop_area_min=0.5, aspect_min=1.0, aspect_max=1.0, flip_probability=0.0)
    assert plan(data=small(4096, own)).data == small(4096, own)
    found = plan(RunConfig(crop_area_min=0.25), data=small(4096, own)).data.augmentation
    assert found == Augmentation(0.25, 1.0, 1.0, 1.0, 0.0)
    found = plan(RunConfig(flip_probability=1.0), data=small(4096, own)).data.augmentation
    assert found == Augmentation(0.5, 1.0, 1.0, 1.0, 1.0)
    found = plan(RunConfig(flip_probability=0.0)).data.augmentation
    assert found == Augmentation(0.08, 1.0, 3 / 4, 4 / 3, 0.0)


def test_a_run_s_name_sorts_by_time_and_says_what_it_was() -> None:
    assert run_name(plan(devices=cpus(2)), "20261124-153012") == "20261124-153012-x1_0-cpu2"
    assert run_name(plan(RunConfig(model="x0_25")), "20261124-153012") == "20261124-153012-x0_25-gpu4"
    assert RunConfig(run_name="20261124-153012-x1_0-cpu2").run_name is not None


def test_the_data_of_a_run_that_names_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_data(RunConfig()) == "digits"
    assert default_data(RunConfig(throughput_only=True)) == "photos"
    assert default_data(RunConfig(data="mine")) == "mine"
    (tmp_path / "dataset" / "ILSVRC2012").mkdir(parents=True)
    assert default_data(RunConfig()) == "dataset/ILSVRC2012"
    assert default_data(RunConfig(throughput_only=True)) == "dataset/ILSVRC2012"
    assert default_data(RunConfig(data="mine")) == "mine"


def test_the_facts_of_a_data_set() -> None:
    train, val = ImageList(Path("d"), ("a", "b", "c"), (0, 1, 2)), ImageList(Path("d"), ("e",), (1,))
    dataset = dataclasses.replace(
        a_dataset(Path("d"), 3, {"train": train, "val": val}, name="mine", builtin=True),
        augmentation=Augmentation(flip_probability=0.0),
    )
    assert dataclasses.replace(facts_of(dataset, "d"), fingerprint="") == DataFacts(
        "d", "mine", 3, 1, 3, Augmentation(flip_probability=0.0), False, True
    )
    without_val = dataclasses.replace(dataset, splits={"train": train}, builtin=False)
    assert facts_of(without_val, "d").val_images == 0
    assert not facts_of(without_val, "d").builtin


def test_imagenet_is_known_by_its_counts_and_names() -> None:
    splits = {"train": imagenet_list(1_281_167), "val": imagenet_list(50_000)}
    dataset = a_dataset(Path("d"), 1000, splits, name="ILSVRC2012")
    assert dataclasses.replace(facts_of(dataset, "dataset/ILSVRC2012"), fingerprint="") == IMAGENET
    assert not facts_of(a_dataset(Path("d"), 1001, dataset.splits), "d").imagenet


def test_counts_are_of_all_nodes_and_threads_of_one() -> None:
    nodes = plan(RunConfig(nnodes=2, master="10.0.0.1:6170", node_rank=1), FOUR_GPUS)
    assert (nodes.ranks, nodes.nodes, nodes.ranks_per_node) == (8, 2, 4)
    assert nodes.global_batch == 4096
    assert nodes.training.learning_rate == pytest.approx(1.6)
    assert nodes.training.steps_per_epoch == 313  # 1,281,167 images over 8 x 512
    assert (nodes.training.compute_threads, nodes.pipeline.decode_threads) == (16, 8)
    (note,) = nodes.notes
    assert note.startswith("utilisation, power and interference are those of node 0;")


def test_no_two_parts_of_a_plan_share_a_setting_and_options_keep_their_names() -> None:
    published = plan()
    names = [name for part in PARTS for name in dataclasses.asdict(getattr(published, part))]
    names += [item.name for item in dataclasses.fields(published) if item.name not in PARTS]
    assert sorted(names) == sorted(settings_of(published))
    assert len(set(names)) == len(names)
    # What is no option is a figure of the plan's own.
    assert {name for name in names if name not in run_options()} == {
        "kind", "device_name", "ranks", "nodes", "notes", "compares_loaders", "device_id", "dtype", "steps_per_epoch",
        "warmup_steps",
        "warmup_given", "rank_cores",
    }  # fmt: skip


def test_a_fingerprint_tells_lists_apart_and_not_where_they_lie() -> None:
    def of(paths: tuple[str, ...], labels: tuple[int, ...], root: str = "d") -> str:
        images = ImageList(Path(root), paths, labels)
        return facts_of(a_dataset(Path(root), 3, {"train": images}), root).fingerprint

    mine = of(("a", "b"), (0, 1))
    assert of(("a", "b"), (0, 1), "elsewhere") == mine
    others = [of(("b", "a"), (0, 1)), of(("a", "b"), (1, 0)), of(("a",), (0,)), of(("a", "c"), (0, 1))]
    assert len({mine, *others}) == 5
