"""What is read from oneDNN's own lines."""

from __future__ import annotations

import pytest

from harness.analysis.latency.kernels import KernelProfile, KernelUse, by_primitive, instructions_in, kernels_in

# As oneDNN 3.6.2 prints it for PP-LCNet, descriptors shortened.
HEAD = """onednn_verbose,v1,info,oneDNN v3.6.2 (commit 28d696724426b943e2f4a0e607f90cdc19aedaf6)
onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1
onednn_verbose,v1,info,cpu,isa:Intel AVX2
onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,prop_kind,exec_time
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:blk,undef,src:f32::blocked:abcd::f0,,,40x40x1x1,5.5
"""
DEPTHWISE = "onednn_verbose,v1,primitive,exec,cpu,convolution,jit_dw:avx2,forward_inference,src,,alg,g8mb1_ic8oc8,{}"
POINTWISE = "onednn_verbose,v1,primitive,exec,cpu,convolution,brgconv_1x1:avx2,forward_inference,src:f32,,,mb1_ic8,{}"
DENSE = "onednn_verbose,v1,primitive,exec,cpu,inner_product,brgemm:avx2,forward_inference,src:f32,,,mb1ic1280oc1000,{}"


def printed(*calls: list[str]) -> str:
    return HEAD + "".join("latency-call\n" + "\n".join(lines) + "\n" for lines in calls)


def test_executions_and_milliseconds_of_a_call() -> None:
    call = [DEPTHWISE.format(0.25), POINTWISE.format(0.5), DEPTHWISE.format(0.75), DENSE.format(0.125)]
    slow = [DEPTHWISE.format(50), POINTWISE.format(0.5), DEPTHWISE.format(50), DENSE.format(9.5)]
    found = kernels_in(printed(slow, call, call), skip_calls=1)
    assert found == (
        KernelUse("convolution", "jit_dw:avx2", 2.0, 1.0),
        KernelUse("convolution", "brgconv_1x1:avx2", 1.0, 0.5),
        KernelUse("inner_product", "brgemm:avx2", 1.0, 0.125),
    )
    assert by_primitive(found) == {"convolution": 1.5, "inner_product": 0.125}
    profile = KernelProfile("x1_0", "paddle-onednn", "Intel AVX2", 2.0, found)
    assert profile.kernel_ms == 1.625


def test_what_comes_before_the_first_call_is_not_counted() -> None:
    assert kernels_in(printed([DENSE.format(1)])) == (KernelUse("inner_product", "brgemm:avx2", 1.0, 1.0),)
    assert kernels_in(HEAD) == ()
    assert kernels_in("") == ()


@pytest.mark.parametrize(
    "line",
    [
        "dnnl_verbose,exec,cpu,convolution,jit:avx2,forward_inference,src,,alg,mb1,1.5",
        "onednn_verbose,exec,cpu,convolution,jit:avx2,forward_inference,src,,alg,mb1,1.5",
        "onednn_verbose,1693533460193.346924,exec,cpu,convolution,jit:avx2,forward_inference,src,,,mb1,1.5",
        "onednn_verbose,v1,1693533460193.346924,primitive,exec,cpu,convolution,jit:avx2,forward,src,,,mb1,1.5",
    ],
)
def test_lines_of_other_versions(line: str) -> None:
    assert kernels_in(f"latency-call\n{line}\n") == (KernelUse("convolution", "jit:avx2", 1.0, 1.5),)


@pytest.mark.parametrize(
    "line",
    [
        "onednn_verbose,v1,primitive,create:cache_hit,cpu,convolution,jit:avx2,forward_inference,src,,,mb1,0.5",
        "onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx2,forward_inference,src,,,mb1,",
        "onednn_verbose,v1,primitive,exec,1.5",
        "a program's own words, exec, 1.5",
    ],
)
def test_other_lines_are_no_execution(line: str) -> None:
    assert kernels_in(f"latency-call\n{line}\n") == ()


def test_the_instruction_set() -> None:
    assert instructions_in(HEAD) == "Intel AVX2"
    assert instructions_in("nothing\n") == ""
