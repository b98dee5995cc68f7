"""A mutation fuzzer over everything that Pointloom reads: `python -m tests.fuzz --cases 10000 --seconds 1800`."""
