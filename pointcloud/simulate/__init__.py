"""Simulated airborne surveys and simulated rooms, to try, test and time Pointloom with. Not measured data."""
