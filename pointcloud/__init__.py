"""From scans to blocks and from labels back to scans. Neither torch, Ray nor Prefect is needed here."""
