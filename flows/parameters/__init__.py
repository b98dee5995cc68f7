"""The parameters of each flow: what its form on a Prefect page and its command have in common."""
