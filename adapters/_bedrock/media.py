"""Turn images, sound and files into blocks. Converse takes bytes only: what lies behind a URL is not fetched.

Formats: the enumerations ImageFormat, AudioFormat and DocumentFormat of the Bedrock Runtime service model.
"""

import re
from typing import Any, Final

from adapters._chat.request import File, InputAudio, invalid
from proxy.adapter import not_sent

_IMAGES: Final = {
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
}
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "application/json": "txt",
    "text/markdown": "md",
}
_SOUNDS: Final = frozenset(
    ("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg", "mpga", "pcm", "webm")
)
_FORMATS: Final = frozenset(_DOCUMENTS.values())
_TEXTS: Final = frozenset({"json", "xml", "py", "log", "yaml", "yml", "toml"})
# Letters, digits, single blanks, hyphens and brackets are all that the name of a document may hold.
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_MAX_NAME: Final = 200


def image(url: str, where: str) -> dict[str, Any]:
    """Return the block of an image."""
    kind, data = _inlined(url, where)
    if kind not in _IMAGES:
        raise not_sent(f"Bedrock takes no image of type {kind or 'unknown'}", where)
    return {"image": {"format": _IMAGES[kind], "source": {"bytes": data}}}


def sound(given: InputAudio, where: str) -> dict[str, Any]:
    """Return the block of a piece of sound."""
    if not given.data:
        raise invalid("an audio part needs its data", where)
    kind = given.format.lower()
    if kind not in _SOUNDS:
        raise not_sent(f"Bedrock takes no audio of type {kind or 'unknown'}", where)
    return {"audio": {"format": kind, "source": {"bytes": given.data}}}


def file(given: File, names: set[str], where: str) -> dict[str, Any]:
    """Return the block of a file part: an image or a document. Its name is added to `names`, which stay unique."""
    if given.file_id:
        raise not_sent("Bedrock knows no uploaded files", where)
    if not given.file_data:
        raise invalid("a file part needs file_data", where)
    name = given.filename or ""
    kind, data = _inlined(given.file_data, where) if given.file_data[:5].lower() == "data:" else ("", given.file_data)
    if kind in _IMAGES:
        return {"image": {"format": _IMAGES[kind], "source": {"bytes": data}}}
    legal = _unique(name, names)
    return {"document": {"format": _format(kind, name, where), "name": legal, "source": {"bytes": data}}}


def _format(kind: str, name: str, where: str) -> str:
    """Return the format of a document, by its media type or else by its name; a file without either is a PDF."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    found = _DOCUMENTS.get(kind) or (ending if ending in _FORMATS else None)
    if found is None and (kind.startswith("text/") or ending in _TEXTS):
        found = "txt"
    if found is None and (kind or ending):
        raise not_sent(f"Bedrock takes no file of type {kind or ending}", where)
    return found or "pdf"


def _unique(name: str, names: set[str]) -> str:
    base = _ILLEGAL.sub(" ", name).strip()[: _MAX_NAME - 6].strip() or "document"
    legal, number = base, 1
    while legal in names:
        number += 1
        legal = f"{base} ({number})"
    names.add(legal)
    return legal


def _inlined(uri: str, where: str) -> tuple[str, str]:
    """Return the media type and the base64 of a data URI."""
    head, _, data = uri.partition(",")
    if head[:5].lower() != "data:":
        raise not_sent("Bedrock takes images as base64 data URIs only", where)
    kind, *options = head[5:].lower().split(";")
    if "base64" not in options:
        raise not_sent("Bedrock takes data URIs in base64 only", where)
    return kind, data
