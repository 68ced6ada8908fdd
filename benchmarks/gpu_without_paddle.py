"""What of the GPU path can be seen without Paddle's GPU build: NVML, DALI's decoder and graphs, and the loader.

usage: python -m benchmarks.gpu_without_paddle [PART ...] [--decoder mixed|cpu] [--seconds 5]

  nvml      what NVML reports of each GPU, what a sample costs, and what is recorded while the GPU computes
  decoders  whole images and regions on the GPU's decoder: the same twice? how far from the CPU's pixels?
  probe     the trial that a run makes before it starts: the rates by the JPEG engine's share
  pixels    the graphs' results beside those on the CPU and beside PaddleClas's, in grey levels
  source    bad files, and continuing in the middle, beside the same without a break
  rates     images per second by decoder, threads, share and queue, with the GPU's telemetry
  memory    what DALI says when the GPU's memory runs out

Each part runs in its own process; what it finds is printed at once, a value a line. Where Paddle isn't installed,
PyTorch takes its place for tensors (benchmarks/torch_for_paddle.py). --decoder cpu tries the parts without a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torch_for_paddle import write_package
from pipelines.augmentation import MEAN, STD, Augmentation
from pipelines.settings import CPU_DECODER, FUSED_RESIZE, HW_DECODER_LOADS, MIXED_DECODER, PipelineSettings

ROOT = Path(__file__).parents[1]
MODULE = "benchmarks.gpu_without_paddle"
LIMIT_SECONDS = 240
SEED = 3
BATCH = 256


# What a part finds, by name.
Found = Iterator[tuple[str, Any]]


def main() -> None:
    """Run the parts, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--decoder", choices=(MIXED_DECODER, CPU_DECODER), default=MIXED_DECODER)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        for name, value in PARTS[arguments.parts[0]](arguments.decoder, arguments.seconds):
            print(f"  {name}: {value}", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = [str(ROOT)] if find_spec("paddle") else [str(ROOT), str(write_package(Path(folder)))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
        for part in arguments.parts or PARTS:
            began = time.monotonic()
            words = [part, "--here", "--decoder", arguments.decoder, "--seconds", str(arguments.seconds)]
            command = [sys.executable, "-m", MODULE, *words]
            try:
                code: object = subprocess.run(
                    command, env=environment, cwd=ROOT, timeout=LIMIT_SECONDS, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = "no end"
            print(f"{part}: {'done' if code == 0 else code} in {time.monotonic() - began:.1f} s", flush=True)


@cache
def photos() -> Any:
    """The built-in photographs."""
    from pipelines.builtin import photos as builtin
    from pipelines.image_lists import ImageList

    paths = tuple(f"train/{index:04d}.jpg" for index in range(builtin.TRAIN_IMAGES))
    return ImageList(builtin.folder(), paths, (0,) * len(paths))


def settings_for(decoder: str, **changes: Any) -> PipelineSettings:
    """A run's settings on the first GPU, or on the CPU as a run there has them."""
    if decoder == CPU_DECODER:
        resize = FUSED_RESIZE if find_spec("numba") else "dali"
        settings = PipelineSettings(batch_size=BATCH, image_size=224, resize=resize, decode_threads=4)
    else:
        settings = PipelineSettings(
            batch_size=BATCH, image_size=224, decoder=decoder, decode_region=False, device_id=0, decode_threads=4,
            width_hint=640, height_hint=640,
        )  # fmt: skip
    return replace(settings, **changes)


@contextmanager
def source_of(
    images: Any, settings: PipelineSettings, faults: list[Any] | None = None, start: Any = None
) -> Iterator[Any]:
    """The harness's own source of these images."""
    from pipelines.dali_graphs import training_graph
    from pipelines.sampling import ContinuousOrder
    from pipelines.source import DaliSource

    def graph(feed: Any, seed: int, state: bytes | None) -> Any:
        return training_graph(feed, Augmentation(), settings, seed, state)

    def leave_out(found: Any, _: Any) -> None:
        if faults is not None:
            faults.extend(found)

    order = ContinuousOrder(len(images), 0, 1, settings.batch_size, SEED)
    source = DaliSource(images, order, graph, settings, leave_out, start=start)
    yield source
    source.close()


def nvml(_decoder: str, seconds: float) -> Found:
    """What NVML reports, idle and while the GPU computes, and what the checks before a run make of it."""
    from harness.machine.gpu_fit.checks import check_fit, fitting_wheel, read_state
    from harness.machine.nvml import Nvml
    from harness.machine.placement.topology import gpu_node, read_topology

    warnings: list[str] = []
    with Nvml(warnings.append) as library:
        gpus = library.gpus()
        yield "gpus", [asdict(gpu) for gpu in gpus]
        yield "driver", library.driver_version()
        yield "first sample", asdict(library.sample(gpus[0]))
        took = []
        for _ in range(50):
            time.sleep(0.12)
            began = time.perf_counter()
            idle = library.sample(gpus[0])
            took.append(time.perf_counter() - began)
        yield "idle", asdict(idle)
        yield "milliseconds of a sample, median and largest", [1e3 * float(np.median(took)), 1e3 * max(took)]
        if find_spec("torch"):
            yield "computing", beside_products(library, gpus[0], seconds)
    yield "warnings", warnings
    driver, states = read_state(gpus)
    yield "driver's CUDA", driver.cuda
    yield "states", [asdict(state) for state in states]
    yield "Paddle's build", fitting_wheel(driver, states)
    yield "notices", check_fit(gpus)
    yield "NUMA node", [gpu_node(gpu.pci_bus_id) for gpu in gpus]
    yield "cores", len(read_topology().physical_cores)


def beside_products(library: Any, gpu: Any, seconds: float) -> list[Any]:
    """Samples every half second while large products are computed, and the energy between the first and the last."""
    import torch

    factor = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            for _ in range(20):
                factor @ factor
            torch.cuda.synchronize()

    thread = threading.Thread(target=work)
    thread.start()
    samples = []
    for _ in range(max(3, int(seconds * 2))):
        samples.append((time.monotonic(), library.sample(gpu)))
        time.sleep(0.5)
    over.set()
    thread.join()
    (early, first), (late, last) = samples[1], samples[-1]
    mean = (last.energy_joules - first.energy_joules) / (late - early) if last.energy_joules else None
    powers = [sample.power_watts for _, sample in samples[2:] if sample.power_watts is not None]
    return [asdict(last), {"watts by energy": mean, "watts by power": float(np.mean(powers)) if powers else None}]


def decoders(decoder: str, _: float) -> Found:
    """Whether two passes are equal, how far they are from the CPU's, by share of the JPEG engine."""
    from benchmarks.gpu_without_paddle import decode_case as case
    from harness.doctor.check import Context
    from harness.doctor.isolation import Isolated

    loads = HW_DECODER_LOADS if decoder == MIXED_DECODER else HW_DECODER_LOADS[:1]
    for region in (False, True):
        for load in loads:
            options = {"region": region, "load": load, "decoder": decoder}
            with Isolated(case, Context(), 50.0, options=options) as running:
                one = running.finding()
            yield f"{'regions' if region else 'whole'} at {load:g}", f"{one.status}: {one.found} {one.reason}"
    for fancy in (False, True) if decoder == MIXED_DECODER else ():
        yield f"4:2:0 beside the CPU's, fancy upsampling {fancy}", upsampled(fancy=fancy)


def upsampled(*, fancy: bool) -> str:
    """How far the GPU's pixels of images with halved chroma are from the CPU's, in grey levels."""
    from nvidia.dali import fn, pipeline_def, types

    from harness.doctor.day_devices import sample_with_orientations

    files = [file for file in sample_with_orientations(Path(tempfile.mkdtemp())) if "420" in file.name]
    encoded = [np.fromfile(file, np.uint8) for file in files]

    @pipeline_def(batch_size=len(files), num_threads=2, device_id=0)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        read = fn.external_source(source=lambda: encoded, batch=True, dtype=types.UINT8, ndim=1)
        options = {"output_type": types.RGB, "jpeg_fancy_upsampling": fancy}
        return fn.decoders.image(read, device="mixed", **options), fn.decoders.image(read, device="cpu", **options)

    pipeline = graph()
    pipeline.build()
    own, right = (list(map(np.array, images)) for images in (pipeline.run()[0].as_cpu(), pipeline.run()[1]))
    return ", ".join(f"{np.abs(one.astype(int) - other).mean():.2f}" for one, other in zip(own, right, strict=True))


def decode_case(_: Any, region: bool, load: float, decoder: str) -> Any:
    """As the doctor's, which asks for Paddle's GPU build first."""
    from harness.doctor.day_devices import decoded_twice

    return decoded_twice(region, load, decoder)


def probe(decoder: str, _: float) -> Found:
    """What the trial before a run finds, and how long it takes."""
    from harness.launch.decoder_probe import MAX_IMAGES, SECONDS_PER_LOAD, ask_all, concluded, request_of
    from pipelines.image_lists import spread
    from pipelines.profile import largest_dimensions

    images = photos()
    loads = (*HW_DECODER_LOADS, 0.5, 0.8, 0.9) if decoder == MIXED_DECODER else (0.65,)
    tried = images.part(spread(len(images), MAX_IMAGES))
    request = request_of(Path(tempfile.mkdtemp()), tried, settings_for(decoder), loads, SECONDS_PER_LOAD)
    began = time.monotonic()
    answers = ask_all(request, [dict(os.environ)])
    took = time.monotonic() - began
    yield "seconds", took
    yield "decoding", asdict(concluded(answers, *largest_dimensions(images), regions=False))


def pixels(decoder: str, _: float) -> Found:
    """Images as the network gets them, in grey levels."""
    from PIL import Image

    from models.image_size import ImageSize
    from pipelines.augmentation import eval_cover
    from pipelines.bad_image_probe import file_name
    from pipelines.dali_graphs import evaluation_graph, training_graph
    from tests.support.opencv import evaluated

    images, count = photos(), 64
    names = [file_name(f"{images.root}/{path}") for path in images.paths[:count]]
    labels = np.zeros((count, 1), np.int64)

    def levels(graph: Callable[..., Any], settings: PipelineSettings) -> Any:
        pipeline = graph(lambda: (names, labels), replace(settings, batch_size=count))
        pipeline.build()
        values, _ = pipeline.run()
        values = values.as_cpu() if settings.decoder == MIXED_DECODER else values
        array = np.stack([np.array(values.at(index)) for index in range(count)])
        return (array * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))) * 255

    def apart(one: Any, other: Any) -> str:
        each = np.abs(one - other).mean(axis=(1, 2, 3))
        return f"mean {each.mean():.3f}, worst image {each.max():.3f}, largest {np.abs(one - other).max():.1f}"

    published = []
    for path in images.paths[:count]:
        with Image.open(images.root / path) as image:
            picture = np.asarray(image.convert("RGB"))
        published.append(evaluated(picture, eval_cover(ImageSize(224, 224))[0], 224).transpose(2, 0, 1))
    on_cpu = settings_for(CPU_DECODER, resize="dali")
    train = partial(training_graph, augmentation=Augmentation(), seed=SEED)

    def training(feed: Any, settings: PipelineSettings) -> Any:
        return train(feed, settings=settings)

    right = {"eval": levels(evaluation_graph, on_cpu), "train": levels(training, on_cpu)}
    yield "evaluation, CPU beside PaddleClas's", apart(right["eval"], np.stack(published))
    for load in HW_DECODER_LOADS if decoder == MIXED_DECODER else ():
        settings = settings_for(decoder, hw_decoder_load=load)
        own, crops = levels(evaluation_graph, settings), levels(training, settings)
        yield f"evaluation at {load:g} beside PaddleClas's", apart(own, np.stack(published))
        yield f"evaluation at {load:g} beside the CPU", apart(own, right["eval"])
        yield f"training crops at {load:g} beside the CPU", apart(crops, right["train"])


def source(decoder: str, _: float) -> Found:
    """Which bad files are left out, and whether batches are the same twice and after continuing."""
    from pipelines.file_checks import check_files
    from pipelines.image_lists import ImageList
    from pipelines.source import SourceState
    from tests.support.bad_files import good, kinds

    folder = Path(tempfile.mkdtemp())
    chosen = [kind for kind in kinds() if not kind.looked_at]
    for kind in chosen:
        kind.write(folder / kind.name)
    for number in range(40):
        (folder / f"good{number}.jpg").write_bytes(good())
    paths = tuple([kind.name for kind in chosen] + [f"good{number}.jpg" for number in range(40)])
    images = ImageList(folder, paths, (0,) * len(paths))
    unusable = SourceState(bad=frozenset(check_files(images).faults))
    left_out = {}
    for one in dict.fromkeys((CPU_DECODER, decoder)):
        faults: list[Any] = []
        settings = settings_for(one, batch_size=16, resize="dali")
        with source_of(images, settings, faults, unusable) as batches:
            for _ in range(2 * len(paths) // 16):
                next(batches)
        left_out[one] = {images.paths[fault.index]: fault.reason for fault in faults}
        yield f"left out by {one}", len(left_out[one])
    ours, others = left_out[decoder], left_out[CPU_DECODER]
    yield "left out by one alone", {name: ours.get(name) or others.get(name) for name in ours.keys() ^ others.keys()}
    yield (
        "other reasons",
        {name: (ours[name], others[name]) for name in ours.keys() & others.keys() if ours[name] != others[name]},
    )
    settings = settings_for(decoder, batch_size=32)
    with source_of(photos(), settings) as batches:
        straight = [next(batches).images.numpy().copy() for _ in range(4)]
    with source_of(photos(), settings) as batches:
        again = [next(batches).images.numpy().copy() for _ in range(2)]
        state = batches.state()
    with source_of(photos(), settings, start=state) as batches:
        again += [next(batches).images.numpy().copy() for _ in range(2)]
    yield "the same twice", [bool((one == two).all()) for one, two in zip(straight[:2], again[:2], strict=True)]
    yield (
        "continued as without a break",
        [bool((one == two).all()) for one, two in zip(straight[2:], again[2:], strict=True)],
    )
    yield "largest difference", max(float(np.abs(one - two).max()) for one, two in zip(straight, again, strict=True))


def rates(decoder: str, seconds: float) -> Found:
    """Images per second of the loader alone."""
    cores = len(os.sched_getaffinity(0))
    threads = sorted({count for count in (1, 2, 4, 8, cores) if count <= cores})
    cases: list[tuple[str, dict[str, Any]]] = [(CPU_DECODER, {"decode_threads": count}) for count in threads[-2:]]
    if decoder == MIXED_DECODER:
        cases += [
            (decoder, {"decode_threads": count, "hw_decoder_load": load})
            for load in HW_DECODER_LOADS
            for count in threads
        ]
        cases += [(decoder, {"decode_threads": 8, "hw_decoder_load": load}) for load in (0.8, 0.9, 0.95)]
        cases += [(decoder, {"decode_threads": 8, "prefetch": ahead}) for ahead in (1, 4)]
        cases += [
            (decoder, {"decode_threads": 8, "decode_region": True, "hw_decoder_load": load}) for load in (0.0, 0.65)
        ]
        cases += [(decoder, {"decode_threads": 8, "width_hint": 0, "height_hint": 0})]
        cases += [(decoder, {"decode_threads": 8, "dtype": "float16"})]
    for one, changes in cases:
        yield f"{one} {changes}", rate_of(one, changes, seconds)


def rate_of(decoder: str, changes: dict[str, Any], seconds: float) -> str:
    """Images per second, the cores that they take, and the GPU's telemetry meanwhile."""
    from harness.machine.nvml import Nvml, NvmlUnavailable

    try:
        with source_of(photos(), settings_for(decoder, **changes)) as batches:
            for _ in range(6):
                next(batches)
            telemetry: list[Any] = []
            over = threading.Event()

            def sample() -> None:
                try:
                    with Nvml() as library:
                        gpu = library.gpus()[0]
                        while not over.wait(0.3):
                            telemetry.append(library.sample(gpu))
                except NvmlUnavailable:
                    pass

            thread = threading.Thread(target=sample)
            thread.start()
            began, spent, count = time.monotonic(), time.process_time(), 0
            while time.monotonic() - began < seconds:
                last = next(batches)
                count += 1
            last.images.numpy()
            took, spent = time.monotonic() - began, time.process_time() - spent
            over.set()
            thread.join()
    except Exception as error:  # the other cases are still of interest
        return f"{type(error).__name__}: {str(error)[:300]}"
    shown = [f"{count * BATCH / took:.0f} images/s", f"{spent / took:.1f} cores"]
    for name in ("jpeg_util_percent", "util_percent", "sm_util_percent", "power_watts", "memory_used_bytes"):
        known = [value for one in telemetry[1:] if (value := getattr(one, name)) is not None]
        if known:
            shown.append(f"{name} {np.mean(known):.4g}")
    return ", ".join(shown)


def memory(decoder: str, _: float) -> Found:
    """What is said when nearly all of the memory is taken."""
    import torch

    from harness.launch.memory import memory_line

    free, _total = torch.cuda.mem_get_info()
    taken = torch.empty(free - (400 << 20), dtype=torch.uint8, device="cuda")
    try:
        with source_of(photos(), settings_for(decoder)) as batches:
            for _ in range(4):
                next(batches)
        report = ""
    except Exception as error:  # what it says is looked for
        report = f"{type(error).__name__}: {error}"
    del taken
    yield "report", report[:1500]
    yield "the line that a run shows", memory_line(report)


PARTS: dict[str, Callable[[str, float], Found]] = {
    "nvml": nvml, "decoders": decoders, "probe": probe, "pixels": pixels, "source": source, "rates": rates,
    "memory": memory,
}  # fmt: skip


if __name__ == "__main__":
    main()
