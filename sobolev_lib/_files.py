"""Files that are there whole or not at all: safetensors with a format, for networks, samples and checkpoints."""

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


def write(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file, as `place` does; return `path`."""
    return place(path, save({name: t.detach().contiguous().clone() for name, t in tensors.items()}, dict(metadata)))


def place(path: str | os.PathLike, content: bytes) -> Path:
    """Write a file under another name, to the disk, and then under its own; return `path`.

    A link is followed. A file that exists keeps its mode; a new one has that which the umask asks for.
    """
    path = Path(path)
    whole = path.resolve()
    partial = whole.with_name(f".{whole.name}.{secrets.token_hex(8)}.part")
    try:
        with open(partial, "xb") as file:
            if whole.exists():
                os.chmod(partial, whole.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, whole)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read(name: str, path: str | os.PathLike, form: str, needed: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file whose format is `form`; `name` is that of the argument `path`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name}: got {path}, which cannot be read ({error}), need {needed}") from error
    if metadata.get("format") != form:
        raise ValueError(f"{name}: got {path} with format {metadata.get('format')!r}, need {form!r}: {needed}")
    return tensors, metadata


def digest(*tensors: Tensor | None) -> str:
    """Return 16 hexadecimal digits that tell tensors apart by shape, type and every bit; None counts as a tensor.

    Example:
        >>> from sobolev_lib._files import digest
        >>> import torch
        >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(torch.zeros(2)) == digest(-torch.zeros(2))
        (True, False)
    """
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(b"None" if tensor is None else f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor is not None:
            total.update(tensor.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
