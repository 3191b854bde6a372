"""Turn OpenAI's content parts into Gemini's: text, and bytes or addresses of images, sound, video and documents."""

from typing import Any, Final

from adapters._chat.request import File, InputAudio, invalid
from proxy.adapter import not_sent

FILES_API: Final = "https://generativelanguage.googleapis.com/"

# What a name ends with, for what comes without a type. Gemini's vision, audio, video and document pages.
_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "xml": "text/xml",
    "json": "application/json",
    "py": "text/x-python",
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
}


def sound(given: InputAudio | None, where: str) -> dict[str, Any]:
    """Return the part of a piece of sound."""
    if given is None or not given.data:
        raise invalid("an audio part needs its data", where)
    return {"inlineData": {"mimeType": f"audio/{given.format.lower()}", "data": given.data}}


def file(given: File, where: str) -> dict[str, Any]:
    """Return the part of a file, inlined or uploaded to Google before."""
    if given.file_id:
        if given.file_id.startswith("files/"):
            return {"fileData": {"fileUri": f"{FILES_API}v1beta/{given.file_id}"}}
        return at(given.file_id, where)
    if not given.file_data:
        raise invalid("a file part needs file_data or file_id", where)
    if given.file_data[:5].lower() == "data:":
        return _inlined(given.file_data, where)
    kind = _type_of(given.filename or "") or "application/pdf"
    return {"inlineData": {"mimeType": kind, "data": given.file_data}}


def at(url: str, where: str) -> dict[str, Any]:
    """Return the part for what stands at `url`. Google fetches it, and wants to be told beforehand what it is."""
    if url[:5].lower() == "data:":
        return _inlined(url, where)
    if url.startswith(FILES_API):
        return {"fileData": {"fileUri": url}}
    kind = _type_of(url.partition("?")[0].partition("#")[0])
    if kind is None or not url.startswith(("https://", "gs://")):
        raise not_sent("Gemini takes files as data URIs, or from https addresses that end in the file's type", where)
    return {"fileData": {"fileUri": url, "mimeType": kind}}


def _type_of(name: str) -> str | None:
    return _TYPES.get(name.rpartition(".")[2].lower())


def _inlined(uri: str, where: str) -> dict[str, Any]:
    head, _, data = uri.partition(",")
    kind, *options = head[5:].lower().split(";")
    if "base64" not in options or not kind:
        raise not_sent("Gemini takes data URIs in base64 and with their type only", where)
    return {"inlineData": {"mimeType": "image/jpeg" if kind == "image/jpg" else kind, "data": data}}
