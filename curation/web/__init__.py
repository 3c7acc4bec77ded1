"""Downloads that are safe (public addresses, bounded) and polite (robots.txt, delays, opt-outs)."""

from curation.web.fetch import FetchPolicy, shared_fetcher

__all__ = ["FetchPolicy", "shared_fetcher"]
