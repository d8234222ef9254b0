"""Voxels and their places: masks and slices."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.evaluation.understanding.voxels import SLICES, VoxelMask, cut_planes, read_mask

pytestmark = pytest.mark.numerical


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_voxels_return_to_their_places(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=3, max_size=3)))
    cells = data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    inside = np.array(cells).reshape(shape)
    values = np.random.default_rng(0).standard_normal(int(inside.sum()))
    affine = np.diag([*data.draw(st.lists(st.sampled_from([-2.0, 1.0, 1.5]), min_size=3, max_size=3)), 1.0])
    folder = tmp_path_factory.mktemp("mask")
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), affine), folder / "mask.nii.gz")
    mask = read_mask(folder / "mask.nii.gz", int(inside.sum()))
    (folder / "map.nii.gz").write_bytes(mask.nifti(values, "SIMULATED; planted"))
    image = nibabel.load(folder / "map.nii.gz")
    volume, following = image.get_fdata(), iter(values)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                assert volume[i, j, k] == (np.float32(next(following)) if inside[i, j, k] else 0)
    np.testing.assert_array_equal(image.affine, affine)
    assert image.header["descrip"].item() == b"SIMULATED; planted" and image.get_data_dtype() == np.float32


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_slices_show_voxels_where_they_lie(data):
    order = data.draw(st.permutations([0, 1, 2]))
    signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
    sizes = data.draw(st.lists(st.sampled_from([1.0, 1.8, 3.0]), min_size=3, max_size=3))  # mm along x, y, z
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for grid_axis, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, grid_axis] = sign * sizes[axis]
    affine[:3, 3] = [-7.0, 20.0, 3.5]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    inside = rng.random((7, 9, 8)) < data.draw(st.sampled_from([0.02, 0.3, 0.9]))
    inside[3, 4, 5] = True
    grid = np.stack(np.meshgrid(*map(np.arange, inside.shape), indexing="ij"), axis=-1)
    places = grid @ affine[:3, :3].T + affine[:3, 3]  # mm of every voxel
    planes = [cut_planes(places[..., axis], inside, affine) for axis in range(3)]
    assert [(plane.axis, plane.sides) for plane in planes[0]] == [("z", "LRPA"), ("y", "LRIS"), ("x", "PAIS")]
    for number, (cut, across, up) in enumerate([(2, 0, 1), (1, 0, 2), (0, 1, 2)]):
        shown = [planes[axis][number] for axis in range(3)]
        centres = places[inside][:, cut]
        assert (
            1 <= len(shown[0].slices) <= SLICES and np.ptp(centres) + 0.1 > max(shown[0].places) - centres.min() > -0.1
        )
        for which, place in enumerate(shown[0].places):
            values = [plane.slices[which] for plane in shown]
            at_place = inside & (np.abs(places[..., cut] - place) < 1e-4)
            found = np.stack([part[np.isfinite(part)] for part in values], axis=-1)
            expected = places[at_place]
            assert len(found) == len(expected) > 0
            np.testing.assert_allclose(sorted(map(tuple, found)), sorted(map(tuple, expected)), atol=1e-4)
            rows, columns = np.nonzero(np.isfinite(values[0]))
            for axis, cells in ((across, columns), (up, rows)):  # right, front and above come last
                np.testing.assert_allclose(
                    values[axis][rows, columns] - values[axis][rows[0], columns[0]],
                    sizes[axis] * (cells - cells[0]), atol=1e-4,
                )  # fmt: skip
            assert shown[0].extent == pytest.approx(
                (values[0].shape[1] * sizes[across], values[0].shape[0] * sizes[up])
            )


def test_slices_pass_through_where_most_voxels_are():
    inside = np.zeros((60, 6, 6), dtype=bool)
    inside[[2, 50]] = True
    inside[0, 0, 0] = inside[59, 0, 0] = True  # two stray voxels get no slice
    planes = {plane.axis: plane for plane in cut_planes(inside.astype(float), inside, np.eye(4))}
    assert planes["x"].places == [2, 50] and planes["z"].places == [0, 1, 2, 3, 4, 5]


def test_masks_that_do_not_fit_raise(tmp_path):
    path = tmp_path / "sub-01.nii.gz"
    assert read_mask(path, 3) is None
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), dtype=np.uint8), np.eye(4)), path)
    with pytest.raises(DataError, match="holds 8 voxels, but the recordings have 7"):
        read_mask(path, 7)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"nothing", b"", whole[:-12] + bytes(12)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no readable NIfTI mask"):
            read_mask(path, 8)
    for wrong in (np.ones((2, 2, 2, 2), dtype=np.float32), np.full((2, 2, 2), np.nan, dtype=np.float32)):
        nibabel.save(nibabel.Nifti1Image(wrong, np.eye(4)), path)
        with pytest.raises(DataError, match="three dimensions, finite"):
            read_mask(path, 8)
    with pytest.raises(DataError, match="holds 2 voxels, but got values"):
        VoxelMask(np.array([[[True, True]]]), np.eye(4)).volume(np.ones(3))
