"""What a command will write at its end, tried before it begins to work."""

import os
import tempfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from umm_bench.errors import UserError


def check_folder(folder: Path, option: str) -> None:
    """Raises UserError unless files can be written into `folder`, or into the one that would be made there.

    A file is written and taken away again, and so are the folders that were missing: permissions and a full or
    read-only disk show only then.
    """
    _try(folder, folder, option, prefix="")


def check_file(path: Path, option: str) -> None:
    """Raises UserError unless a file can be written at `path`, whole or not at all; one that is there may go."""
    if os.path.isdir(path):
        raise UserError(f"cannot write {path} ({option}): it is a folder; name a file in it")
    # beside it, under a longer name: so the file itself will be written
    _try(path.parent, path, option, prefix=f"{path.name}.")


def check_image_file(path: Path, option: str) -> None:
    """As `check_file`, for a picture: raises UserError also where no format belongs to the name's ending."""
    from PIL import Image

    Image.init()
    try:
        Image.new("RGB", (64, 64)).save(BytesIO(), Image.registered_extensions()[path.suffix.lower()])
    except Exception as error:  # each format has its own way of saying that it is not for colour pictures
        ending = f"no picture format is '{path.suffix}'" if path.suffix else "the name has no ending"
        raise UserError(f"cannot write {path} ({option}): {ending}; use .png, .jpg or .webp") from error
    check_file(path, option)


def _try(folder: Path, wanted: Path, option: str, prefix: str) -> None:
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=prefix, suffix=".tmp") as file:
            file.write(bytes(4096))
            file.flush()
    except (FileExistsError, NotADirectoryError) as error:
        blocking = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
        raise UserError(f"cannot write {wanted} ({option}): {blocking} is a file, not a folder") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {wanted} ({option}): {reason}") from error
    finally:
        for path in missing:
            with suppress(OSError, ValueError):
                path.rmdir()
