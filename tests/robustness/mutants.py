"""Mutants: damaged content that keeps the structure of its kind, so that it reaches what lies behind the first check."""

import importlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np

__all__ = ["MUTATORS", "mutate_bytes"]

Mutator = Callable[[bytes, random.Random], bytes]

_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, -(2**63), 10**30, 1e308, -0.5, float("nan"), float("inf"), "", "a", "\0", "\x1b[2J",
    "é" * 300, "../x", "nan", [], {}, [None], [[]], [1, 2], {"float": "nan"}, {"float": []}, {"class_name": "Dense"}, [[[[[[]]]]]],
)  # fmt: skip
_WORDS = (0, 1, 2, 3, 4, 7, 8, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change bits, bytes, words or lengths, as a disk or a network does."""
    data, size = bytearray(content), len(content)
    begin = rng.randrange(max(1, size))
    end = min(size, begin + rng.choice((1, 2, 4, 8, 64, 1024)))
    action = rng.randrange(9)
    if action == 0:
        return content[:begin]
    if action == 1:
        return content[:begin] + content[end:]
    if action == 2:
        return content[:end] + content[begin:end] + content[end:]
    if action == 3:
        return content[:begin] + rng.randbytes(rng.choice((1, 4, 64))) + content[begin:]
    if action == 4:
        data[begin:end] = bytes(end - begin)
    elif action == 5:
        data[begin:end] = rng.randbytes(end - begin)
    elif action == 6 and size >= 4:
        at = 4 * rng.randrange(size // 4)
        data[at : at + 4] = struct.pack("<I", rng.choice(_WORDS))
    else:
        for _ in range(rng.choice((1, 1, 2, 8)) if size else 0):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove, repeat or swap one value of a document."""
    document = json.loads(content)
    places = list(_places(document))
    if rng.random() < 0.15 or not places:
        return _nested(content, rng) if rng.random() < 0.3 else mutate_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        owner, key = rng.choice(places)
        action = rng.randrange(5)
        try:
            if action == 0:
                del owner[key]
            elif action == 1:
                other, other_key = rng.choice(places)
                owner[key] = json.loads(json.dumps(other[other_key]))
            elif action == 2 and isinstance(owner, dict):
                owner[rng.choice(("", "name", "x" * 300, "\0", key.upper()))] = owner.pop(key)
            elif action == 3 and isinstance(owner, list):
                owner.insert(key, owner[key])
            else:
                owner[key] = rng.choice(_ODD_VALUES)
        except (KeyError, IndexError, ValueError):  # an earlier change has removed the place, or made a circle
            continue
    return json.dumps(document).encode()


def _nested(content: bytes, rng: random.Random) -> bytes:
    """Put something deep, or very long, into the place of a value."""
    depth = rng.choice((50, 2000, 200_000))
    deep = b"[" * depth + b"]" * depth if rng.random() < 0.5 else b"9" * depth
    return content.replace(b"null", deep, 1) if b"null" in content else content.replace(b"1", deep, 1)


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def _mutate_log(content: bytes, rng: random.Random) -> bytes:
    """Change the header of a log, or its rows, with checksums that fit half of the time."""
    lines = content.splitlines(keepends=True)
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    number = rng.choice((0, rng.randrange(len(lines))))
    text, tab, _ = lines[number].rstrip(b"\n").partition(b"\t")
    text = _mutate_json(text, rng)
    checksum = f"{zlib.crc32(text):08x}".encode() if rng.random() < 0.5 else b"00000000"
    lines[number] = text + (tab + checksum if tab else b"") + b"\n"
    return b"".join(lines)


def _mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """Change an entry of an archive by its kind, or the list of entries."""
    if rng.random() < 0.15:
        return mutate_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    number = rng.randrange(len(entries))
    name, entry = entries[number]
    action = rng.randrange(12)
    if action == 0:
        del entries[number]
    elif action == 1:
        entries[number] = (rng.choice((name + "x", "config.json", "../x", "a" * 300)), entry)
    elif action == 2:
        entries[number] = (name, rng.choice(entries)[1])
    else:
        mutator = MUTATORS.get(name.rpartition(".")[2], mutate_bytes)
        entries[number] = (name, mutator(entry, rng))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for entry_name, data in entries:
            archive.writestr(entry_name, data)
    return packed.getvalue()


def _mutate_array(content: bytes, rng: random.Random) -> bytes:
    """Change shape, dtype or values of an array in NumPy's format."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    action = rng.randrange(7)
    if action == 0:
        array = array.reshape(-1)[: rng.randrange(array.size + 1)]
    elif action == 1:
        array = np.zeros(rng.choice(((), (0,), (1,), (2, 3), (1, 2, 3))), array.dtype)
    elif action == 2:
        array = array.astype(rng.choice(("float64", "int8", "uint8", "bool", "U3", "complex64", "datetime64[s]")))
    elif action == 3 and array.dtype.kind in "iuf" and array.size:
        array = array.copy()
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice((0, 1, 127) if array.dtype.kind in "iu" else (np.nan, np.inf, 1e30, -1.0))  # fmt: skip
    elif action == 4 and array.dtype == np.uint8 and array.ndim == 1:
        array = np.frombuffer(MUTATORS["json"](array.tobytes(), rng), np.uint8)
    else:
        return mutate_bytes(content, rng)
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def _mutate_hdf5(content: bytes, rng: random.Random) -> bytes:
    """Change an attribute, a link or a dataset, or bytes of the tables."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    h5py = importlib.import_module("h5py")
    packed = io.BytesIO(content)
    with h5py.File(packed, "r+") as opened:
        items: list[Any] = [opened]
        opened.visititems(lambda _, item: items.append(item))
        item = rng.choice(items)
        names = list(item.attrs)
        if names and rng.random() < 0.6:
            _mutate_attribute(item.attrs, rng.choice(names), rng)
        elif item is not opened and rng.random() < 0.4:
            del opened[item.name]
        elif isinstance(item, h5py.Dataset):
            name, shape = item.name, rng.choice(((), (0,), (3,), (2, 2), (10**9,), (2**40,)))
            dtype = rng.choice(("float32", "int8", "S8", "float64", "complex64"))
            del opened[name]
            opened.create_dataset(name, shape, dtype, **({"chunks": True} if shape and shape[0] > 3 else {}))
        else:
            item.create_group("other_group")
    return packed.getvalue()


def _mutate_attribute(attributes: Any, name: str, rng: random.Random) -> None:
    value = attributes[name]
    if isinstance(value, str | bytes) and value[:1] in ("{", b"{"):
        mutated = _mutate_json(value.encode() if isinstance(value, str) else value, rng)
        attributes[name] = np.bytes_(mutated) if len(mutated) < 60_000 else np.bytes_(mutated[:60_000])
    elif rng.random() < 0.3:
        del attributes[name]
    else:
        attributes[name] = rng.choice((0, -1, 1.5, "x", np.zeros(3), np.array([b"a", b"b"]), np.float64("nan")))


def _mutate_flatbuffer(content: bytes, rng: random.Random) -> bytes:
    """Change fields of the tables of a TensorFlow Lite file, or words of it."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    tools = importlib.import_module("ai_edge_litert.tools.flatbuffer_utils")
    model = tools.read_model_from_bytearray(bytearray(content))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _mutate_object(model, rng)
    try:
        return bytes(tools.convert_object_to_bytearray(model))
    except Exception:  # noqa: BLE001 - the schema's writer does not take every value
        return mutate_bytes(content, rng)


def _mutate_object(model: Any, rng: random.Random) -> None:
    """Change one field of one of the objects that a table holds."""
    objects: list[Any] = [model]
    for inner in objects:
        for value in vars(inner).values():
            listed = value if isinstance(value, list) else [value]
            objects += [entry for entry in listed if hasattr(entry, "__dict__") and hasattr(type(entry), "Pack")]
        if len(objects) > 500:
            break
    chosen = rng.choice(objects)
    name = rng.choice([*vars(chosen)])
    value = getattr(chosen, name)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        setattr(chosen, name, rng.choice((0, 1, -1, 2, 5, 127, int(value) + 1, 2**20)))
    elif isinstance(value, list) and value and rng.random() < 0.7:
        entry = rng.choice(value)
        value.insert(0, entry) if rng.random() < 0.5 else value.remove(entry)
    elif isinstance(value, np.ndarray) and value.size and rng.random() < 0.8:
        changed = value.copy()
        changed[rng.randrange(value.size)] = rng.choice((0, 1, 2, 100, 127))
        setattr(chosen, name, changed if rng.random() < 0.6 else changed[: rng.randrange(value.size)])
    elif isinstance(value, bytes):
        setattr(chosen, name, rng.choice((b"", b"\xff\xfe", b"a" * 300, b"\0", b"\x1b[2J")))
    else:
        setattr(chosen, name, None)


def _mutate_onnx(content: bytes, rng: random.Random) -> bytes:
    """Change fields of the messages of an ONNX file, or bytes of it."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    model = importlib.import_module("onnx").load_model_from_string(content)
    for _ in range(rng.choice((1, 1, 2))):
        _mutate_message(model, rng)
    return bytes(model.SerializeToString())


def _mutate_message(model: Any, rng: random.Random) -> None:
    messages: list[Any] = [model]
    for message in messages:
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                messages += [value] if hasattr(value, "ListFields") else list(value)
    message = rng.choice([message for message in messages if message.ListFields()])
    field, value = rng.choice(message.ListFields())
    is_list = not isinstance(value, str | bytes) and hasattr(value, "__len__")
    if is_list and rng.random() < 0.6:
        entry = rng.choice(value)
        value.remove(entry) if rng.random() < 0.5 else value.extend([entry])
    elif field.type == field.TYPE_STRING and not is_list:
        setattr(message, field.name, rng.choice(("", "x", "é" * 300, "\x1b[2J", value + "_")))
    elif field.type == field.TYPE_BYTES and not is_list:
        setattr(message, field.name, value[: rng.randrange(len(value) + 1)])
    elif field.type in (field.TYPE_INT64, field.TYPE_INT32) and not is_list:
        setattr(message, field.name, rng.choice((0, 1, -1, 2, 7, 16, 2**31 - 1, int(value) ^ 1)))
    else:
        message.ClearField(field.name)


def _mutate_xml(content: bytes, rng: random.Random) -> bytes:
    """Change an element or an attribute of an OpenVINO file, or bytes of it."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    root = ElementTree.fromstring(content)
    for _ in range(rng.choice((1, 1, 2))):
        parent = rng.choice([element for element in root.iter() if len(element) or element.attrib])
        if len(parent) and rng.random() < 0.4:
            child = rng.choice(list(parent))
            parent.remove(child) if rng.random() < 0.6 else parent.append(child)
        elif parent.attrib:
            key = rng.choice([*parent.attrib])
            parent.set(
                key, rng.choice(("", "-1", "0", "1", "99999999999999999999", "x", "f16", "i8", "1,2,3", "?", "nan"))
            )
        elif parent.text:
            parent.text = rng.choice(("", "-1", "0", "99999999999999999999", "x"))
    return ElementTree.tostring(root)


MUTATORS: dict[str, Mutator] = {
    "json": _mutate_json,
    "partial": _mutate_log,
    "keras": _mutate_zip,
    "npz": _mutate_zip,
    "npy": _mutate_array,
    "h5": _mutate_hdf5,
    "tflite": _mutate_flatbuffer,
    "onnx": _mutate_onnx,
    "xml": _mutate_xml,
    "bin": mutate_bytes,
}
"""What changes the content of a file, by its suffix."""
