"""Which item, with which retry: Prefect tasks and the Ray code they start."""
