"""Turn OpenAI's content parts into Gemini's: text, and bytes or addresses of images, sound, video and documents."""

from typing import Any, Final

import msgspec

from proxy.adapter import not_sent
from proxy.errors import InvalidRequestError

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


class ImageUrl(msgspec.Struct):
    """Where an image is: an address or a data URI."""

    url: str


class InputAudio(msgspec.Struct):
    """Sound in base64."""

    data: str
    format: str


class File(msgspec.Struct):
    """A file in the request, or one uploaded to Google before."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Part(msgspec.Struct):
    """One content part; `type` says which of the other fields counts."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: File | None = None


def invalid(message: str, param: str) -> InvalidRequestError:
    """Return the error for a request that is wrong in itself."""
    error = InvalidRequestError(message, code="invalid_value", param=param)
    error.unsent = True
    return error


def part_of(part: Part, where: str) -> dict[str, Any] | None:
    """Return Gemini's part, None for an empty text."""
    match part.type:
        case "text" | "refusal":
            text = part.text if part.type == "text" else part.refusal
            if text is None:
                raise invalid(f"a {part.type} part needs its text", where)
            return {"text": text} if text else None
        case "image_url":
            url = part.image_url.url if isinstance(part.image_url, ImageUrl) else part.image_url
            if not url:
                raise invalid("an image part needs a url", where)
            return _at(url, where)
        case "input_audio":
            if part.input_audio is None:
                raise invalid("an audio part needs its data", where)
            kind = f"audio/{part.input_audio.format.lower()}"
            return {"inlineData": {"mimeType": kind, "data": part.input_audio.data}}
        case "file":
            return _file(part.file or File(), where)
        case kind:
            raise invalid(f"there is no content part {kind!r}", where)


def _file(file: File, where: str) -> dict[str, Any]:
    if file.file_id:
        if file.file_id.startswith("files/"):
            return {"fileData": {"fileUri": f"{FILES_API}v1beta/{file.file_id}"}}
        return _at(file.file_id, where)
    if not file.file_data:
        raise invalid("a file part needs file_data or file_id", where)
    if file.file_data[:5].lower() == "data:":
        return _inlined(file.file_data, where)
    kind = _type_of(file.filename or "") or "application/pdf"
    return {"inlineData": {"mimeType": kind, "data": file.file_data}}


def _at(url: str, where: str) -> dict[str, Any]:
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
