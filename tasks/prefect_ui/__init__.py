"""What moves in the Prefect UI while a flow runs: progress, tables, maps, curves."""
