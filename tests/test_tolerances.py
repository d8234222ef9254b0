"""The one tolerance for outputs, and the kernels that a run of the tests asks for."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from tolerances import UNITS, assert_same_outputs

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_may_differ_by_units_of_the_largest(dtype):
    expected = np.array([[4.0, -1.0], [0.0, 1e-3]], dtype)
    unit = 4 * np.finfo(dtype).eps
    for share, fits in ((0, True), (UNITS - 1, True), (UNITS + 1, False)):
        for row, column in ((0, 0), (1, 0), (1, 1)):
            found = expected.copy()
            found[row, column] += dtype(share * unit)
            for given in ((found, expected), (torch.from_numpy(found).requires_grad_(), torch.from_numpy(expected))):
                if fits:
                    assert_same_outputs(*given)
                else:
                    with pytest.raises(AssertionError):
                        assert_same_outputs(*given)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.zeros(2, np.float32), np.zeros((2, 1), np.float32)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.array([np.nan, 1]), np.array([np.nan, 1])),
        (np.array([np.nan, 1]), np.array([0.0, 1])),
        (np.zeros(0), np.zeros(0)),
    ],
)
def test_other_shapes_types_and_numbers_that_are_none_differ(found, expected):
    with pytest.raises(AssertionError):
        assert_same_outputs(found, expected)


def test_a_weight_is_the_same_at_any_address():
    """Rows times a matrix at each address that a file may give it, with whatever kernels there are."""
    generator = torch.Generator().manual_seed(0)
    for n_rows, size in ((1, 5), (1, 100), (3, 31), (16, 333)):
        values, weight = torch.randn(n_rows, size, generator=generator), torch.randn(12, size, generator=generator)
        expected = torch.nn.functional.linear(values, weight)
        for offset in range(16):
            moved = torch.empty(weight.numel() + 16)[offset : offset + weight.numel()].view(weight.shape)
            assert_same_outputs(torch.nn.functional.linear(values, moved.copy_(weight)), expected)


VERBOSE = """
import numpy, threadpoolctl, torch
import scipy.linalg
from numpy._core._multiarray_umath import __cpu_features__ as features
print("torch", torch.backends.cpu.get_cpu_capability())
print("openblas", *{p["architecture"] for p in threadpoolctl.threadpool_info() if p["internal_api"] == "openblas"})
print("numpy", *(name for name, on in features.items() if on and name in ("X86_V3", "X86_V4", "AVX512_SPR")))
torch.nn.functional.conv2d(torch.ones(8, 16, 20, 20), torch.ones(16, 16, 3, 3))
torch.ones(40, 40) @ torch.ones(40, 40)
"""


@pytest.mark.skipif(
    os.environ.get("ATEN_CPU_CAPABILITY") != "avx2" or platform.machine() not in ("x86_64", "AMD64"),
    reason="asks for the kernels that this processor takes; `make test-numerical` asks for those of AVX2",
)
def test_kernels_are_those_of_avx2_where_the_environment_asks_for_them():
    """Each library is asked what it runs, so that a second run cannot quietly be the first one again."""
    variables = os.environ | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", VERBOSE], env=variables, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "torch AVX2" in lines and "openblas Haswell" in lines and "numpy X86_V3" in lines
    (onednn,) = [line for line in lines if line.startswith("onednn_verbose") and ",isa:" in line]
    assert onednn.endswith("isa:Intel AVX2")
    (mkl,) = [line for line in lines if line.startswith("MKL_VERBOSE") and "MKL 20" in line]
    assert "AVX-512" not in mkl
