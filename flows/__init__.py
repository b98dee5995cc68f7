"""When and where: Prefect flows, each reads top to bottom. No arrays, no file access, no torch."""
