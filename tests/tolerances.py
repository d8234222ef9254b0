"""How alike outputs of the same weights must be: the promise of "What is equal to the bit" in CONTRIBUTING.md."""

import numpy as np

# Other processors, batch sizes and addresses in memory take other kernels, and those add in another order. Measured:
# models of every kind of network, at the sizes of the tests and of the corpora (271 sensors, 2,000 voxels), with the
# kernels for AVX-512, AVX2 and SSE 4, in batches and one by one, tensors at any address: 8.3 units at most.
UNITS = 64


def assert_same_outputs(found, expected):
    """Both of one shape and type, and equal to `UNITS` units in the last place of the largest expected value."""
    found, expected = (
        value.detach().numpy() if hasattr(value, "detach") else np.asarray(value) for value in (found, expected)
    )
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert expected.size and np.isfinite(expected).all()
    unit = np.finfo(expected.dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=UNITS * unit, equal_nan=False)


# Programs that were exported (ONNX) run by other libraries, which join layers and add in an order of their own.
EXPORTED = 1e-5  # of the largest expected value: onnxruntime in Python; its WebAssembly is held to 1e-4 of cosines


def assert_exported_alike(found, expected):
    """Both of one shape, and equal to `EXPORTED` of the largest expected value."""
    found, expected = (
        value.detach().numpy() if hasattr(value, "detach") else np.asarray(value) for value in (found, expected)
    )
    assert found.shape == expected.shape and expected.size and np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXPORTED * np.abs(expected).max(), equal_nan=False)
