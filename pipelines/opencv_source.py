"""Batches as PaddleClas's own loader makes them: by paddle.io.DataLoader, with OpenCV in worker processes."""

from __future__ import annotations

import gc
import signal
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import paddle
from paddle.io import DataLoader

from pipelines.bad_image_probe import Fault, find_faults
from pipelines.batch import Batch
from pipelines.errors import DataError, DecoderError, LoaderError
from pipelines.image_lists import ImageList, shown
from pipelines.opencv_images import Failure, Images, Prepare, TrainingImages, WholeImages, collate, start_worker
from pipelines.sampling import Draw, Order, Position
from pipelines.settings import CPU_DECODER, OPENCV_LOADER, PADDLECLAS_CROPS, WHOLE_IMAGES, PipelineSettings
from pipelines.source import ListSource, SourceState
from pipelines.storage import Storage

# How often Paddle checks that its workers are alive while it waits for a batch. It is not a limit of that wait.
CHECK_SECONDS = 1
# How long workers may take to finish their image and end, and how often that is checked.
END_SECONDS, END_CHECK_SECONDS = 5.0, 0.005
# The preprocessing that each class of `opencv_images` does; EvaluationImages' is the same with any that crops.
PREPROCESSING = {TrainingImages: PADDLECLAS_CROPS, WholeImages: WHOLE_IMAGES}
# What to do where workers lack memory.
SPACE = (
    "Check the memory (the kernel sends SIGKILL to a process when there is none left) and the room in /dev/shm, which"
    " the batches go through (SIGBUS), or use fewer --workers."
)


class OpenCvSource(ListSource):
    """Endless batches of a list's images, in the sequence of an order, prepared by OpenCV in worker processes.

    prepare makes an image of a picture (see `opencv_images`). settings.workers is their number, settings.prefetch the
    number of batches that each begins ahead. The random numbers of an image follow from seed, its batch's position
    and its place in the batch alone. When OpenCV can't use an image, on_faults is called with the images whose
    content is at fault (see `find_faults`), and the batch is made again without them; an error that on_faults raises
    ends the source. When files can't be read, the source waits for their storage. Raises StorageError when that takes
    too long, DecoderError when OpenCV fails twice on images that DALI's decoder can decode, and LoaderError when a
    worker process ends.
    """

    def __init__(
        self,
        images: ImageList,
        order: Order,
        prepare: Prepare,
        settings: PipelineSettings,
        on_faults: Callable[[Sequence[Fault], Position], None],
        *,
        seed: Sequence[int] = (0,),
        start: SourceState | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._images, self._order, self._prepare, self._settings = images, order, prepare, settings
        self._on_faults, self._seed = on_faults, tuple(seed)
        start = start or SourceState()
        self._bad = start.bad
        self._storage = storage or Storage(images, bad=self._bad)
        self._end: Callable[[], object] | None = None
        self._build(start.position)

    def _build(self, position: Position) -> None:
        """Make the loader of the batches from a position on; its workers start when the first one is asked for."""
        self.close()
        self._position = position
        self._draws = _Draws(self._order, position, self._bad, self._seed)
        self._shared = Images(self._images, self._prepare)
        self._loader = DataLoader(
            self._shared,
            batch_sampler=self._draws,
            collate_fn=collate,
            places=paddle.CPUPlace(),
            num_workers=self._settings.workers,
            use_shared_memory=True,
            prefetch_factor=self._settings.prefetch,
            timeout=CHECK_SECONDS,
            worker_init_fn=start_worker,
        )
        self._batches: Any = None

    def _start(self) -> Any:
        """Start the workers. Returns the iterator over their batches."""
        # Paddle's handler would raise an error about a worker that ended in whatever code this process is just then.
        handler = signal.getsignal(signal.SIGCHLD)
        collects = gc.isenabled()
        # Until start_worker says that this process's garbage is not the worker's.
        gc.disable()
        try:
            with warnings.catch_warnings():
                # From Python 3.12 on, of a process that has threads and forks, as Paddle's loader always does.
                warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
                batches = iter(self._loader)
        except OSError as error:
            raise LoaderError(f"the loader's worker processes can't be started: {error}", SPACE) from error
        finally:
            if collects:
                gc.enable()
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)
        # Of a source that is dropped, too, and when the interpreter ends.
        self._end = weakref.finalize(self, _end_workers, batches, self._shared)
        return batches

    def __iter__(self) -> OpenCvSource:
        return self

    def __next__(self) -> Batch:
        failed = False
        while True:
            images, labels, failures = self._loaded()
            if not failures:
                break
            explained = self._explain(failures)
            if failed and not explained:
                raise self._opencv_error(failures[0])
            failed = not explained
            self._build(self._position)
        self._storage.patience.over()
        draw = self._draws.begun.popleft()
        self._position = draw.next
        self._note_first(images)
        return Batch(images, labels, draw.valid_images)

    def _loaded(self) -> tuple[Any, Any, list[Failure]]:
        """The images and labels of the next batch, in the workers' shared memory, and what they could not use."""
        if self._batches is None:
            self._batches = self._start()
        try:
            images, labels, failures = next(self._batches)
        except StopIteration:
            raise self._draws.error from None
        except Exception as error:
            workers = {worker.sentinel: worker for worker in self._batches._workers}
            # The worker may be about to end.
            ended = wait(workers, END_SECONDS)
            if not ended:
                raise
            self.close()
            raise _worker_error(workers[ended[0]]) from error
        return images, labels, failures

    def _explain(self, failures: Sequence[Failure]) -> bool:
        """Find out why OpenCV failed on images, and wait while files can't be read.

        Returns whether the failures are explained: by their images, which are left out, or by their storage.
        """
        patience = self._storage.patience
        waits = patience.waits
        found = find_faults(self._storage, sorted({failure.index for failure in failures}))
        if found.faults:
            self._on_faults(found.faults, self._position)
            self._bad = self._bad.union(fault.index for fault in found.faults)
            return True
        unread = next((failure for failure in failures if failure.unread), None)
        if unread is not None and patience.waits == waits:
            self._storage.wait(unread.reason, unread.index)
        return patience.waits > waits

    def _opencv_error(self, failure: Failure) -> DecoderError:
        return DecoderError(
            f"{shown(self._storage.path(failure.index))} can be decoded by DALI but not by OpenCV: {failure.reason}",
            "Use --loader dali, or leave the image out of the list.",
        )

    def settings(self) -> dict[str, Any]:
        """The settings that the loader reports, and those of its first batch (once there was one).

        prefetch is the number of batches that each worker begins ahead. preprocessing is None where no crop is drawn.
        """
        return {
            "loader": OPENCV_LOADER,
            "workers": self._loader.num_workers,
            "prefetch": self._loader.prefetch_factor,
            "decode_threads": None,
            "decoder": CPU_DECODER,
            "decode_region": False,
            "resize": OPENCV_LOADER,
            "preprocessing": PREPROCESSING.get(type(self._loader.dataset.prepare)),
            "antialias": False,
            "auto_augment": False,
            **(self._first or {}),
        }

    def state(self, *, with_dali: bool = True) -> SourceState:  # noqa: ARG002
        """The source's position, from which the random numbers follow: `start` for a source that continues here.

        There is no state of DALI, whether it is asked for or not.
        """
        return SourceState(self._position, self._bad)

    def close(self) -> None:
        """End the workers and drop the batches that they have begun. The source can't be used any more.

        It takes as long as an image that a worker has begun, at most about END_SECONDS.
        """
        if self._end is not None:
            self._end()


class _Draws:
    """What paddle.io.DataLoader asks for the images of its batches: indices and seeds, as an order draws them.

    begun has the batches that were asked for and not returned by the source yet; error is why there is no other one.
    """

    def __init__(self, order: Order, position: Position, bad: AbstractSet[int], seed: Sequence[int]) -> None:
        self._order, self._position, self._bad, self._seed = order, position, bad, seed
        self.begun: deque[Draw] = deque()
        self.error: DataError = DataError("the source was closed")

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position = self._position
        while True:
            try:
                draw = self._order.draw(position, self._bad)
            except DataError as error:
                # It is due only after the batches that were begun.
                self.error = error
                return
            self.begun.append(draw)
            sequence = np.random.SeedSequence([*self._seed, position.epoch, position.step])
            seeds = sequence.generate_state(len(draw.indices), np.uint64)
            yield list(zip(draw.indices.tolist(), seeds.tolist(), strict=True))
            position = draw.next


def _end_workers(batches: Any, shared: Images) -> None:
    """End an iterator's workers after the image that each is at, and by force where one takes END_SECONDS."""
    shared.stop()
    deadline = time.monotonic() + END_SECONDS
    workers = batches._workers
    # A worker that ends while it sends a batch may leave the batch in /dev/shm.
    while batches._rcvd_idx < batches._send_idx and time.monotonic() < deadline:
        if not all(worker.is_alive() for worker in workers):
            break
        time.sleep(END_CHECK_SECONDS)
    # Dropping the iterator would not be enough: its thread holds it.
    batches._try_shutdown_all(0)
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join(END_SECONDS)


def _worker_error(worker: Any) -> LoaderError:
    code = worker.exitcode
    how = f"with exit code {code}"
    if code < 0:
        how = f"by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"by signal {-code}"
    return LoaderError(
        f"a loader worker process ended {how}",
        f"{SPACE} What it may have left in /dev/shm is called paddle_{worker.pid}_*.",
    )
