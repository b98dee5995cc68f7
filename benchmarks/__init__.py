"""The programs that measure the project's figures: each module is a command that prints figures and ends with JSON."""

import os

# Before torch is imported, as the command line does it for flows: OpenMP threads that wait would otherwise spin, and a
# training of two threads and a process that makes its blocks took four times as long on two busy CPUs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
