"""The metadata entries of a ``.tflite`` file, read with Python alone: small devices have no schema."""

import struct

__all__ = ["metadata"]

# Fields of the tables Model, Metadata and Buffer by number:
# https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/compiler/mlir/lite/schema/schema.fbs
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_ENTRY_NAME, _ENTRY_BUFFER = 0, 1
_BUFFER_DATA = 0


def metadata(content: bytes) -> dict[str, bytes]:
    """Return the metadata entries of a file that was found to be sound, by name."""
    model = _number(content, 0)
    buffers = _tables(content, _field(content, model, _MODEL_BUFFERS))
    entries = {}
    for entry in _tables(content, _field(content, model, _MODEL_METADATA)):
        name = _bytes(content, _field(content, entry, _ENTRY_NAME)).decode()
        number = _field(content, entry, _ENTRY_BUFFER)
        entries[name] = _bytes(
            content, _field(content, buffers[_number(content, number) if number else 0], _BUFFER_DATA)
        )
    return entries


def _number(content: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", content, place)[0])


def _field(content: bytes, table: int, number: int) -> int:
    """The place of a field of a table; 0 where it has its default."""
    fields = table - struct.unpack_from("<i", content, table)[0]
    (size,) = struct.unpack_from("<H", content, fields)
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", content, fields + entry)[0] if entry < size else 0
    return table + offset if offset else 0


def _bytes(content: bytes, place: int) -> bytes:
    """The bytes of a vector or of a text, to which a field points."""
    if not place:
        return b""
    start = place + _number(content, place)
    return content[start + 4 : start + 4 + _number(content, start)]


def _tables(content: bytes, place: int) -> list[int]:
    """The places of the tables of a vector, to which a field points."""
    if not place:
        return []
    start = place + _number(content, place)
    count = _number(content, start)
    if start + 4 * (count + 1) > len(content):  # four billion places would not fit into memory
        raise struct.error(f"a vector of {count} tables in a file of {len(content)} bytes")
    places = [start + 4 + 4 * index for index in range(count)]
    return [entry + _number(content, entry) for entry in places]
