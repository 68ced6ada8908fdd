"""What DALI's graphs consist of: operators, arguments and places, read from what DALI serialises."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from nvidia.dali import types

from pipelines.dali_graphs import decoding_graph, evaluation_graph, training_graph
from pipelines.graph_settings import read_settings
from pipelines.settings import DALI_RESIZE, PipelineSettings
from tests.support.dali import (
    CPU,
    CUSTOM,
    EXTERNAL_SOURCE_CHECKPOINT,
    GPU,
    MEAN,
    STD,
    evaluation,
    no_feed,
    training,
)
from tests.support.serialised import Graph, Operator, read_graph

GPU_DECODER = {
    "hw_decoder_load": 0.9,
    "preallocate_width_hint": 640,
    "preallocate_height_hint": 480,
    "device_memory_padding": 211_025_920,
    "host_memory_padding": 140_544_512,
}


def arithmetic(expression: str, *inputs: str, number: int = 1, constant: int | None = None) -> Operator:
    return Operator(
        "_ArithmeticGenericOp" + (f"#{number}" if number > 1 else ""),
        "cpu",
        inputs=tuple(f"{name}[0]" for name in inputs),
        arguments={"expression_desc": expression} | ({} if constant is None else {"integer_constants": [constant]}),
    )


# What reads the files and their headers, of either graph.
FILES = (
    Operator("ExternalSource", "cpu", arguments={"dtype": int(types.UINT8), "ndim": 1, "repeat_last": False}),
    Operator("io__file__Read", "cpu", inputs=("ExternalSource[0]",), arguments={"dont_use_mmap": True}),
    # image_slice takes its shape as int32 only.
    Operator("PeekImageShape", "cpu", inputs=("io__file__Read[0]",), arguments={"dtype": int(types.INT32)}),
    # Nothing of an image with more than 178,956,970 pixels is decoded: of three numbers, there are no two after two.
    Operator("_TensorSubscript", "cpu", inputs=("PeekImageShape[0]",), arguments={"at_0": 0, "num_subscripts": 1}),
    Operator("Cast", "cpu", inputs=("_TensorSubscript[0]",), arguments={"dtype": int(types.INT64)}),
    Operator("_TensorSubscript#2", "cpu", inputs=("PeekImageShape[0]",), arguments={"at_0": 1, "num_subscripts": 1}),
    arithmetic("mul(&0 &1)", "Cast", "_TensorSubscript#2"),
    arithmetic("gt(&0 $0:int32)", "_ArithmeticGenericOp", number=2, constant=178_956_970),
    Operator("Cast#2", "cpu", inputs=("_ArithmeticGenericOp#2[0]",), arguments={"dtype": int(types.INT32)}),
    arithmetic("mul($0:int32 &0)", "Cast#2", number=3, constant=2),
    Operator("Constant", "cpu", arguments={"idata": [2], "shape": [], "dtype": int(types.INT32)}),
    Operator(
        "Slice",
        "cpu",
        inputs=("PeekImageShape[0]", "_ArithmeticGenericOp#3[0]", "Constant[0]"),
        arguments={"axes": [0]},
    ),
)
LABELS = (
    Operator("ExternalSource#2", "cpu", arguments={"dtype": int(types.INT64), "ndim": 1, "repeat_last": False}),
    Operator("Squeeze", "cpu", inputs=("ExternalSource#2[0]",), arguments={"axes": [0]}),
)


def resizing(antialias: bool) -> dict[str, Any]:
    return {"interp_type": int(types.INTERP_LINEAR), "antialias": antialias, "subpixel_scale": False}


def expected_training_operators(decoder: str, device: str, decoder_options: dict[str, Any]) -> tuple[Operator, ...]:
    """Of DALI's preprocessing. The published crop's arithmetic is tested by what it draws (test_crops.py)."""
    return (
        *FILES,
        Operator(
            "RandomCropGenerator",
            "cpu",
            inputs=("Slice[0]",),
            arguments={"random_area": [0.1, 0.9], "random_aspect_ratio": [0.5, 2.0]},
        ),
        Operator(
            "decoders__ImageSlice",
            decoder,
            inputs=("io__file__Read[0]", "RandomCropGenerator[0]", "RandomCropGenerator[1]"),
            arguments={
                "normalized_anchor": False,
                "normalized_shape": False,
                "axis_names": "HW",
                "output_type": int(types.RGB),
                **decoder_options,
            },
        ),
        Operator(
            "Resize",
            device,
            inputs=("decoders__ImageSlice[0]",),
            arguments={"size": [64.0, 64.0], **resizing(antialias=True)},
        ),
        # A per-image argument stays on the CPU, whatever device its reader runs on.
        Operator("random__CoinFlip", "cpu", arguments={"probability": 0.25}),
        Operator(
            "CropMirrorNormalize",
            device,
            inputs=("Resize[0]",),
            tensor_arguments={"mirror": "random__CoinFlip[0]"},
            arguments={
                "crop": [64.0, 64.0],
                "rounding": "truncate",
                "mean": list(MEAN),
                "std": list(STD),
                "dtype": int(types.FLOAT16),
                "output_layout": "HWC",
            },
        ),
        *LABELS,
    )


def expected_evaluation_operators(
    decoder: str, device: str, decoder_options: dict[str, Any], first: int = 4
) -> tuple[Operator, ...]:
    """first is the number that its first arithmetic operator has after those of FILES."""
    return (
        *FILES,
        Operator(
            "decoders__ImageSlice",
            decoder,
            inputs=("io__file__Read[0]",),
            tensor_arguments={"shape": "Slice[0]"},
            arguments={"start": [0, 0], "axis_names": "HW", "output_type": int(types.RGB), **decoder_options},
        ),
        # The middle of an image that is longer than 64 times its short side, and all of any other: in units in which
        # the crop is a square, in whole numbers of 64 bits.
        Operator("Cast#3", "cpu", inputs=("Slice[0]",), arguments={"dtype": int(types.INT64)}),
        Operator("Constant#2", "cpu", arguments={"idata": [64, 64], "shape": [2], "dtype": int(types.INT32)}),
        arithmetic("mul(&0 &1)", "Cast#3", "Constant#2", number=first),
        Operator("reductions__Min", "cpu", inputs=(f"_ArithmeticGenericOp#{first}[0]",), arguments={"axes": [0]}),
        arithmetic("mul($0:int32 &0)", "reductions__Min", number=first + 1, constant=64),
        arithmetic("div(&0 &1)", f"_ArithmeticGenericOp#{first + 1}", "Constant#2", number=first + 2),
        arithmetic("sub(&0 &1)", "Slice", f"_ArithmeticGenericOp#{first + 2}", number=first + 3),
        arithmetic("max(&0 $0:int32)", f"_ArithmeticGenericOp#{first + 3}", number=first + 4, constant=0),
        arithmetic("div(&0 $0:int32)", f"_ArithmeticGenericOp#{first + 4}", number=first + 5, constant=2),
        Operator(
            "Cast#4", "cpu", inputs=(f"_ArithmeticGenericOp#{first + 5}[0]",), arguments={"dtype": int(types.FLOAT)}
        ),
        arithmetic("sub(&0 &1)", "Slice", "Cast#4", number=first + 6),
        Operator(
            "Resize",
            device,
            inputs=("decoders__ImageSlice[0]",),
            tensor_arguments={"roi_start": "Cast#4[0]", "roi_end": f"_ArithmeticGenericOp#{first + 6}[0]"},
            # 64 * 256 / 224 = 73.1
            arguments={"size": [73.0, 73.0], "mode": "not_smaller", **resizing(antialias=False)},
        ),
        Operator(
            "CropMirrorNormalize",
            device,
            inputs=("Resize[0]",),
            arguments={
                "crop": [64.0, 64.0],
                "rounding": "truncate",
                "mirror": 0,
                "mean": list(MEAN),
                "std": list(STD),
                "dtype": int(types.FLOAT16),
                "output_layout": "HWC",
            },
        ),
        *LABELS,
    )


def expected_graph(operators: tuple[Operator, ...], device: str, seed: int, checkpointing: bool = False) -> Graph:
    return Graph(
        threads=3,
        batch_size=2,
        seed=seed,
        checkpointing=checkpointing,
        cpu_prefetch=4,
        gpu_prefetch=4,
        operators=operators,
        outputs=(("CropMirrorNormalize[0]", device), ("Squeeze[0]", device)),
    )


def test_the_gpu_training_graph_of_dali_s_recipe_is_this_one() -> None:
    operators = expected_training_operators("mixed", "gpu", GPU_DECODER)
    assert training(dataclasses.replace(GPU, preprocessing="dali")) == expected_graph(
        operators, "gpu", seed=18, checkpointing=True
    )


def test_the_cpu_training_graph_of_dali_s_recipe_is_this_one() -> None:
    operators = expected_training_operators("cpu", "cpu", {})
    assert training(dataclasses.replace(CPU, preprocessing="dali")) == expected_graph(
        operators, "cpu", seed=18, checkpointing=True
    )


def test_the_gpu_evaluation_graph_is_this_one() -> None:
    operators = expected_evaluation_operators("mixed", "gpu", GPU_DECODER)
    assert evaluation(GPU) == expected_graph(operators, "gpu", seed=17)


def test_the_cpu_evaluation_graph_is_this_one() -> None:
    operators = expected_evaluation_operators("cpu", "cpu", {})
    assert evaluation(CPU) == expected_graph(operators, "cpu", seed=17)


def whole_decoding(decoder: str, decoder_options: dict[str, Any]) -> tuple[Operator, ...]:
    """What decodes whole images: the bytes that the decoder gets depend on the header."""
    return (
        Operator("_TensorSubscript#3", "cpu", inputs=("Slice[0]",), arguments={"at_0": 0, "num_subscripts": 1}),
        arithmetic("mul($0:int32 &0)", "_TensorSubscript#3", number=4, constant=0),
        Operator(
            "Slice#2",
            "cpu",
            inputs=("io__file__Read[0]",),
            tensor_arguments={"start": "_ArithmeticGenericOp#4[0]"},
            arguments={"axes": [0]},
        ),
        Operator(
            "decoders__Image",
            decoder,
            inputs=("Slice#2[0]",),
            arguments={"output_type": int(types.RGB), **decoder_options},
        ),
    )


def with_whole_decoding(operators: tuple[Operator, ...], decoder: str, device: str) -> tuple[Operator, ...]:
    """The operators of a graph that decodes whole images."""
    (region,) = (operator for operator in operators if operator.name == "decoders__ImageSlice")
    decoded = whole_decoding(decoder, {name: region.arguments[name] for name in GPU_DECODER if decoder == "mixed"})
    before, after = operators[: len(FILES)], operators[len(FILES) :]
    if len(region.inputs) == 1:
        # The whole image is wanted.
        rest = (operator for operator in after if operator is not region)
        return *before, *decoded, *(_renamed(operator, region.name, "decoders__Image") for operator in rest)
    arguments = {name: region.arguments[name] for name in ("normalized_anchor", "normalized_shape", "axis_names")}
    crop = Operator("Slice#3", device, inputs=("decoders__Image[0]", *region.inputs[1:]), arguments=arguments)
    cropped = (crop if operator is region else _renamed(operator, region.name, crop.name) for operator in after)
    return *before, *decoded, *cropped


def _renamed(operator: Operator, old: str, new: str) -> Operator:
    return dataclasses.replace(
        operator, inputs=tuple(f"{new}[0]" if name == f"{old}[0]" else name for name in operator.inputs)
    )


@pytest.mark.parametrize(("settings", "decoder", "device"), [(GPU, "mixed", "gpu"), (CPU, "cpu", "cpu")])
def test_whole_images_are_decoded_and_then_cropped_where_regions_are_not(
    settings: PipelineSettings, decoder: str, device: str
) -> None:
    options = GPU_DECODER if decoder == "mixed" else {}
    whole = dataclasses.replace(settings, decode_region=False)
    crops = expected_training_operators(decoder, device, options)
    assert training(dataclasses.replace(whole, preprocessing="dali")) == expected_graph(
        with_whole_decoding(crops, decoder, device), device, seed=18, checkpointing=True
    )
    images = expected_evaluation_operators(decoder, device, options, first=5)
    assert evaluation(whole) == expected_graph(with_whole_decoding(images, decoder, device), device, seed=17)


@pytest.mark.parametrize(("settings", "decoder", "device"), [(GPU, "mixed", "gpu"), (CPU, "cpu", "cpu")])
def test_the_published_recipe_differs_in_the_crop_and_in_smoothing(
    settings: PipelineSettings, decoder: str, device: str
) -> None:
    published, other = (
        {
            operator.name: operator
            for operator in training(dataclasses.replace(settings, preprocessing=preprocessing)).operators
        }
        for preprocessing in ("paddleclas", "dali")
    )
    crop, resize = published["decoders__ImageSlice"], published["Resize"]
    assert (crop.device, resize.device) == (decoder, device)
    assert crop.arguments == other["decoders__ImageSlice"].arguments
    assert resize.arguments == {"size": [64.0, 64.0], **resizing(antialias=False)}
    # The floor of a place, and a floor that is 1 at least.
    assert crop.inputs[0] == "io__file__Read[0]"
    assert [published[name.removesuffix("[0]")].arguments["expression_desc"] for name in crop.inputs[1:]] == [
        "floor(&0)",
        "max(&0 $0:float32)",
    ]
    drawing = {operator for operator in published if operator not in other}
    assert {operator.partition("#")[0] for operator in drawing} == {
        *("Constant", "random__Uniform", "reductions__Min", "reductions__Max", "_ArithmeticGenericOp"),
    }
    assert {published[operator].device for operator in drawing} == {"cpu"}
    # Constants have other numbers in each graph.
    for name in set(published) & set(other) - {crop.name, resize.name, "Slice", "Constant", "Constant#2"}:
        assert published[name] == other[name]


PLACED = [
    *itertools.product((training, evaluation), ("paddleclas", "dali"), (False,), ("float32", "float16"),
                       ("nchw", "nhwc")),
    # AutoAugment makes a training graph's operators many, whatever their type and layout.
    (training, "paddleclas", True, "float32", "nchw"),
    (training, "dali", True, "float16", "nhwc"),
]  # fmt: skip


@pytest.mark.parametrize(("graph_of", "preprocessing", "auto_augment", "dtype", "layout"), PLACED)
def test_the_devices_graphs_differ_in_placement_alone(
    graph_of: Any, preprocessing: str, auto_augment: bool, dtype: str, layout: str
) -> None:
    options: dict[str, Any] = {
        "preprocessing": preprocessing,
        "auto_augment": auto_augment,
        "dtype": dtype,
        "layout": layout,
    }
    on_gpu = graph_of(dataclasses.replace(GPU, **options))
    on_cpu = graph_of(dataclasses.replace(CPU, **options))
    assert {operator.device for operator in on_cpu.operators} == {"cpu"}
    assert [operator.device for operator in on_gpu.operators if operator.name.startswith("decoders__")] == ["mixed"]

    moved = tuple(
        dataclasses.replace(
            operator,
            device="cpu",
            arguments={name: value for name, value in operator.arguments.items() if name not in GPU_DECODER},
        )
        for operator in on_gpu.operators
    )
    outputs = tuple((output, "cpu") for output, _ in on_gpu.outputs)
    assert dataclasses.replace(on_gpu, operators=moved, outputs=outputs) == on_cpu


@pytest.mark.parametrize(
    ("dtype", "layout", "dali_dtype", "dali_layout"),
    [
        ("float32", "nchw", types.FLOAT, "CHW"),
        ("float32", "nhwc", types.FLOAT, "HWC"),
        ("float16", "nchw", types.FLOAT16, "CHW"),
    ],
)
def test_dtype_and_layout_reach_the_gpu_graph(dtype: str, layout: str, dali_dtype: Any, dali_layout: str) -> None:
    settings = dataclasses.replace(GPU, dtype=dtype, layout=layout)
    for graph in (training(settings), evaluation(settings)):
        (last,) = [operator for operator in graph.operators if operator.name == "CropMirrorNormalize"]
        assert (last.arguments["dtype"], last.arguments["output_layout"]) == (int(dali_dtype), dali_layout)


@pytest.mark.parametrize(("settings", "device", "options"), [(GPU, "mixed", GPU_DECODER), (CPU, "cpu", {})])
def test_the_graph_that_only_decodes_does_nothing_ahead(
    settings: PipelineSettings, device: str, options: dict[str, Any]
) -> None:
    graph = read_graph(decoding_graph(lambda: [], settings).serialize())
    assert graph.operators == (*FILES, *whole_decoding(device, options))
    assert graph.outputs == (("decoders__Image[0]", "gpu" if device == "mixed" else "cpu"),)
    assert (graph.threads, graph.batch_size, graph.cpu_prefetch) == (3, 2, 1)


def test_the_gpu_is_the_one_asked_for() -> None:
    settings = dataclasses.replace(GPU, device_id=3)
    assert training_graph(no_feed, CUSTOM, settings, seed=0).device_id == 3
    assert evaluation_graph(no_feed, settings).device_id == 3
    assert decoding_graph(lambda: [], settings).device_id == 3


@pytest.mark.parametrize("load", [0.0, 1.0])
def test_the_limits_of_the_decoder_load_are_allowed(load: float) -> None:
    decoder = PipelineSettings(1, 1, decoder="mixed", hw_decoder_load=load).decoder_arguments()
    assert decoder == {
        **GPU_DECODER,
        "device": "mixed",
        "hw_decoder_load": load,
        "preallocate_width_hint": 0,
        "preallocate_height_hint": 0,
    }


def test_the_cpu_decoder_gets_no_gpu_options() -> None:
    assert PipelineSettings(1, 1, hw_decoder_load=0.9, width_hint=640).decoder_arguments() == {"device": "cpu"}


@pytest.mark.filterwarnings(f"ignore:{EXTERNAL_SOURCE_CHECKPOINT}")
@pytest.mark.parametrize("preprocessing", ["paddleclas", "dali"])
@pytest.mark.parametrize("auto_augment", [False, True])
@pytest.mark.parametrize("region", [False, True])
@pytest.mark.parametrize(
    ("settings", "decoding"),
    [
        (GPU, {"decoder": "mixed", "hw_decoder_load": pytest.approx(0.9), "width_hint": 640, "height_hint": 480}),
        (CPU, {"decoder": "cpu", "hw_decoder_load": None, "width_hint": None, "height_hint": None}),
    ],
)
def test_settings_are_read_back_from_the_graph_and_not_from_the_request(
    settings: PipelineSettings, decoding: dict[str, Any], region: bool, preprocessing: str, auto_augment: bool
) -> None:
    settings = dataclasses.replace(
        settings,
        decode_threads=5,
        prefetch=1,
        decode_region=region,
        preprocessing=preprocessing,
        auto_augment=auto_augment,
    )
    graph = training_graph(no_feed, CUSTOM, settings, seed=1)
    graph.serialize()  # what defines the operators; it can't be built here
    smoothing = {"antialias": preprocessing == "dali", "resize": DALI_RESIZE}
    common = {"decode_threads": 5, "prefetch": 1, "decode_region": region, **decoding, **smoothing}
    assert read_settings(graph) == {**common, "preprocessing": preprocessing, "auto_augment": auto_augment}
    graph = evaluation_graph(no_feed, settings)
    graph.serialize()
    assert read_settings(graph) == {**common, "preprocessing": None, "auto_augment": False}
