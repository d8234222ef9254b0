"""What a model has learned: similarity, time, sensors, voxels."""
