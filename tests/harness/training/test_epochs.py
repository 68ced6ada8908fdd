"""When an evaluation's pipeline is there: while the model is evaluated, and not while it is trained."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from nvidia.dali.pipeline import Pipeline

from harness.launch.rank_files import LISTS, leave_lists
from harness.machine.device import Devices
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import facts_of
from harness.training.epochs import Evaluation, Validation
from harness.training.loop import GlobalStep, never
from harness.training.recorder import NoRecorder
from harness.training.state import Progress
from harness.training.trainer import Trainer, open_trainer
from pipelines.dataset import open_dataset
from tests.support.data_sets import write_colours

BATCH, VAL_IMAGES = 8, 30


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """One rank with a training pipeline."""
    folder = str(write_colours(tmp_path_factory.mktemp("colours"), 24, VAL_IMAGES))
    config = RunConfig(model="x0_25", image_size=32, batch_size=BATCH, data=folder, device="cpu", decode_threads=1)
    dataset, logs = open_dataset(folder), tmp_path_factory.mktemp("logs")
    leave_lists(logs, dataset.splits)
    return open_trainer(make_plan(config, Devices("cpu", 1, "CPU"), facts_of(dataset, folder), {}), logs / LISTS)


@pytest.fixture(autouse=True)
def no_search_for_cycles() -> Iterator[None]:
    """What is let go has to be gone at once, without Python's garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def pipelines() -> int:
    """The number of DALI's pipelines that are alive."""
    return sum(isinstance(one, Pipeline) for one in gc.get_objects())


def figures(evaluation: Evaluation | None) -> dict[str, float]:
    """What an evaluation found, without its times."""
    assert evaluation is not None
    return asdict(evaluation.accuracy)


def test_the_pipeline_is_there_for_the_evaluation_alone(trainer: Trainer) -> None:
    before, during = pipelines(), []
    validation = Validation(trainer, NoRecorder(), Progress())
    assert pipelines() == before

    def done(_: GlobalStep) -> bool:
        during.append(pipelines())
        return False

    first = validation.run(1, done)
    assert pipelines() == before
    assert set(during) == {before + 1}
    # Each evaluation reads the images from the first to the last, whatever was evaluated before.
    assert figures(validation.run(2, done)) == figures(first)
    assert figures(first)["images"] == VAL_IMAGES
    assert validation.steps_made == 2 * -(-VAL_IMAGES // BATCH)


def test_an_evaluation_after_a_resumption_is_the_same(trainer: Trainer) -> None:
    whole = Validation(trainer, NoRecorder(), Progress())
    found = [figures(whole.run(epoch, never)) for epoch in (1, 2, 3)]
    resumed = Validation(trainer, NoRecorder(), Progress(epoch=3, evaluated=whole.steps_made))
    assert [figures(resumed.run(3, never))] == found[2:]


def test_an_evaluation_that_is_ended_early_leaves_nothing_and_can_be_repeated(trainer: Trainer) -> None:
    before = pipelines()
    validation = Validation(trainer, NoRecorder(), Progress())
    assert validation.run(1, lambda _: True) is None
    assert (pipelines(), validation.steps_made) == (before, 0)
    repeated = figures(validation.run(1, never))
    assert repeated == figures(Validation(trainer, NoRecorder(), Progress()).run(1, never))


def test_the_pipeline_s_settings_outlive_it(trainer: Trainer) -> None:
    evaluation = Validation(trainer, NoRecorder(), Progress()).run(1, never)
    assert evaluation is not None
    assert evaluation.settings["batch_size"] == BATCH
    assert trainer.read_settings(evaluation.settings)["image_size"] == 32
