"""When and where: the Prefect flows and the command line."""
