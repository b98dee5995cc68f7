"""What every test shares: properties meet the same examples in every run, however loaded the machine."""

from __future__ import annotations

from hypothesis import settings

from tests.support.s3 import bucket, s3_server

__all__ = ["bucket", "s3_server"]

settings.register_profile("pointloom", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("pointloom")
