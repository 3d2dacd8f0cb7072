"""Public labeled photo sets, checked file by file against a manifest and put in place whole or not at all."""

from d2tune.public_data.download import FetchResult, fetch

__all__ = ["FetchResult", "fetch"]
