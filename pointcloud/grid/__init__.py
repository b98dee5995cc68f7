"""The ground counted in integers: voxels, tiles, and the sizes of both."""
