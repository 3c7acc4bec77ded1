"""A finished build as a dataset on the hub, with its card, in one commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curation.errors import UserError
from curation.output.writer import Layout

# What is no business of readers stays: the state of shards, locks, tars of the same pairs.
PUBLISHED = (
    *("README.md", "manifest.json", "concept_counts.parquet", "report.html", "pairs.html"),
    *("data/*.parquet", "sets/README.md", "sets/data/*.parquet"),
)
REPLACED = ("data/*.parquet", "sets/*")


def check(name: str) -> None:
    """Before anything is mined.

    Raises:
        UserError: no such name can be, nobody is logged in, or the hub is out of reach.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    if name.count("/") != 1:
        raise UserError(f"--publish must be OWNER/NAME, not {name[:60]!a}")
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise UserError(f"--publish must be OWNER/NAME: {first_line(error)}") from None
    with hub_errors(name):
        HfApi().whoami()


def publish(layout: Layout, name: str) -> str:
    """Uploads what has changed and takes away shards that are no more; a new dataset is private. Returns its address.

    Raises:
        UserError: the hub refuses, or is out of reach; what it had before is untouched.
    """
    from huggingface_hub import HfApi

    with hub_errors(name):
        api = HfApi()
        address = api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=layout.root,
            allow_patterns=list(PUBLISHED),
            delete_patterns=list(REPLACED),
            commit_message="A build of curation.build",
        )
    return str(address)


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """What the hub and the network say becomes one line."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError  # HTTPError is its client's

    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(f"--publish {name}: nobody is logged in; run `hf auth login`, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            raise UserError(f"--publish {name}: the hub does not take the token; run `hf auth login` again") from None
        raise UserError(f"--publish {name}: the hub refuses: {first_line(error)}") from None
    except (HTTPError, OSError) as error:
        raise UserError(f"--publish {name}: the hub cannot be reached: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
