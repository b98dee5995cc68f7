"""Where the work runs: the Ray cluster, isolated processes, quarantine."""
