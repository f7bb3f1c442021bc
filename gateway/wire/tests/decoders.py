"""Other people's reading of our schema: decodes every golden frame with PyPI `sbedecoder` and PyPI `sbe`
and compares each field and each group entry with the golden JSON. Variable data is beyond both decoders
and is checked by hand here. usage: decoders.py SCHEMA GOLDEN_DIR"""

import json
import pathlib
import struct
import sys
import xml.etree.ElementTree as ElementTree

import sbe
from sbedecoder import SBEMessage, SBESchema


def choices(path):
    """Name to number, for the enumerations and sets that `sbe` reports by name."""
    root = ElementTree.parse(path).getroot()
    types = {t.get("name"): {c.get("name"): int(c.text) for c in t} for t in root.find("types")
             if t.tag in ("enum", "set")}
    sets = {t.get("name") for t in root.find("types") if t.tag == "set"}
    kinds = {}
    for message in root:
        if message.tag.endswith("message"):
            for field in message.iter("field"):
                kinds[message.get("name"), field.get("name")] = field.get("type")
    return types, sets, kinds


def plain(value):
    """The golden form: numbers as text, text without padding, absent as None."""
    if isinstance(value, bytes):
        return value.split(b"\0", 1)[0].decode("ascii")
    return value.split("\0", 1)[0] if isinstance(value, str) else None if value is None else str(value)


def by_sbedecoder(schema, body):
    message = SBEMessage.parse_message(schema, body)
    header = {"blockLength", "templateId", "schemaId", "version"}
    read = lambda field: field.value if field.__class__.__name__ == "TypeMessageField" else field.raw_value
    fields = {f.original_name: plain(read(f)) for f in message.fields if f.original_name not in header}
    entries = [{f.original_name: plain(read(f)) for f in entry.fields}
               for group in message.groups for entry in group.repeating_groups]
    return message.name, fields, entries


def by_sbe(schema, known, body):
    types, sets, kinds = known
    message = schema.decode(body)

    def number(field, value):
        kind = kinds[message.message_name, field]
        if kind in sets:
            return str(sum(1 << types[kind][name] for name in value))
        if kind in types:
            return str(types[kind][value])
        return plain(value)

    value = dict(message.value)
    groups = [value.pop(name) for name in list(value) if isinstance(value[name], list) and
              kinds.get((message.message_name, name)) not in sets]
    fields = {name: number(name, found) for name, found in value.items()
              if (message.message_name, name) in kinds}
    entries = [{name: number(name, found) for name, found in entry.items()} for group in groups for entry in group]
    return message.message_name, fields, entries


def main(schema_path, golden):
    first = SBESchema()
    first.parse(schema_path)
    with open(schema_path, encoding="utf-8") as file:
        second = sbe.Schema.parse(file)
    known = choices(schema_path)
    checked = 0
    for path in sorted(pathlib.Path(golden).glob("*.bin")):
        frame = path.read_bytes()
        expected = json.loads(path.with_suffix(".json").read_text())
        length, magic = struct.unpack_from("<IH", frame)
        assert (length, magic) == (len(frame), 0xEB50), path.name
        body = frame[6:]
        want = (expected["template"], expected["fields"], expected["entries"])
        for name, found in (("sbedecoder", by_sbedecoder(first, body)), ("sbe", by_sbe(second, known, body))):
            assert found == want, f"{path.name} by {name}:\n found {found}\n want  {want}"
        block, = struct.unpack_from("<H", body)
        if "data" in expected:
            size, = struct.unpack_from("<H", body, 8 + block)
            assert body[10 + block:] == bytes.fromhex(expected["data"]) and size == len(body) - 10 - block
        checked += 1
    assert checked == len(first.message_map) == len(second.messages), "a golden frame for every message"
    print(f"{checked} messages agree in both decoders")


main(*sys.argv[1:])
