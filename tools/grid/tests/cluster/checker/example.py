"""A small run made up by hand: three journals that agree, and the logs of two clients that traded.

For the proof that the checker can fail, where no real run is at hand. What the clients were told comes from the reference
model, so this shows only that a true story passes; that the model is right is shown by real runs.
"""

import hashlib
import struct

import checker
import doctor
from commands import SIDES, STPS, TIFS, decode
from journal import ENTRY, FORMAT, HARD_STATE, HEADER, MAGIC, SEGMENT_HEADER, crc32c
from market import Market

START = 1_700_000_000_000_000_000
KEYS = {"operator": b"o" * 32, "supplier": b"s" * 32, "taker": b"t" * 32}
SESSIONS = {"operator": 77, "supplier": 2**100 + 1, "taker": 2**101 + 1}


def uint(value):
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def int_(value):
    return uint(value << 1 if value >= 0 else (-value << 1) - 1)


def text(value):
    return uint(len(value.encode())) + value.encode()


def wide(value):
    return uint(16) + value.to_bytes(16, "little") if value else uint(0)


def option(value, write=uint):
    return b"\0" if value is None else b"\1" + write(value)


def entry(session, client_seq, account, command):
    return wide(session) + uint(client_seq) + uint(account) + command


def tick():
    return entry(0, 0, 0, uint(27))


def fingerprint(key):
    return hashlib.sha256(key).digest()


def place(instrument, side, price, qty, label, tif="gtc"):
    return (uint(0) + uint(instrument) + uint(SIDES.index(side)) + uint(0) + uint(price) + uint(TIFS.index(tif)) + uint(qty)
            + uint(STPS.index("allow")) + uint(label) + text("") + b"\0")


def cancel(label):
    return uint(1) + uint(1) + uint(label)


def mass_quote(*quotes):
    """Quotes of the first instrument: number, bid and ask as price and quantity each."""
    entries = b"".join(uint(0) + bytes([number]) + b"".join(uint(value) for value in bid + ask) for number, bid, ask in quotes)
    return uint(44) + uint(len(quotes)) + entries + uint(STPS.index("allow")) + b"\0"


def quote_protection(window, fills, qty):
    return uint(45) + b"\1" + uint(window) + uint(fills) + uint(qty)


def mass_cancel():
    return uint(3) + b"\0\0\0"


def define(symbol):
    quality = text("") + b"".join(uint(0) for _ in range(5))
    market = int_(10_000_000) + uint(1) + uint(1) + uint(10_000) + uint(1_000_000) + uint(5) + uint(10)
    return uint(19) + text(symbol) + text(symbol) + text("") + quality + market + b"\0" + uint(0) + uint(1)


def under_next_number(data, sessions, do):
    """The same request under a client number of its own; None where this is none of that kind and these sessions."""
    known = decode(data)
    if known["session"] not in sessions or known["command"]["do"] != do:
        return None
    head = entry(known["session"], known["client_seq"], known["account"], b"")
    return entry(known["session"], known["client_seq"] + 1_000_000, known["account"], data[len(head) :])


def write_segment(data_dir, head, blocks):
    """One segment that holds all these blocks."""
    body = b"".join(bytes(block) + bytes(-len(block) % HEADER) for block in blocks)
    size = SEGMENT_HEADER + len(body) + 4096
    head = bytearray(head)
    struct.pack_into("<Q", head, 16, 1)
    struct.pack_into("<Q", head, 40, size)
    struct.pack_into("<I", head, 96, crc32c(head[:96]))
    path = data_dir / "journal" / "journal-0000000001.seg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + body + bytes(4096))


def header(node):
    head = bytearray(SEGMENT_HEADER)
    struct.pack_into("<8sIIQQQQQQQQQ", head, 0, MAGIC, FORMAT, 1, 1, 4711, node, 0, 1, 0, 1, 0, 0)
    return head


def block(index, term, first_seq, kind, payload, count):
    head = bytearray(HEADER)
    struct.pack_into("<QQQIHHQQ", head, 8, index, term, first_seq, count, kind, 0, 0, START + index * 1_000_000)
    return head + payload


def entries(dice):
    """The log's commands, one after the other; what clients sent carries their name."""
    operator, supplier, taker = SESSIONS["operator"], SESSIONS["supplier"], SESSIONS["taker"]
    log = [(None, entry(0, 0, 0, uint(23) + KEYS["operator"]))]

    def session(name):
        key = fingerprint(KEYS[name])
        log.append((None, entry(0, 0, 0, uint(24) + wide(SESSIONS[name]) + key)))
        log.append((None, entry(0, 0, 0, uint(25) + wide(SESSIONS[name]) + key + b"\0" + uint(9))))

    session("operator")
    numbers = {name: 0 for name in SESSIONS}

    def send(name, account, command):
        numbers[name] += 1
        log.append((name, entry(SESSIONS[name], numbers[name], account, command)))

    for number, name in ((2, "supplier"), (3, "taker")):
        send("operator", 1, uint(15) + text(name) + uint(1) + b"\0\0")
        send("operator", number, uint(11) + KEYS[name] + text(name))
        send("operator", number, uint(16) + int_(1_000 * 10**9))
    send("operator", 1, define("text-prime"))
    send("operator", 2, uint(21) + text("supplier") + text("http://127.0.0.1/v1") + b"\0\0\0")
    send("operator", 2, uint(22) + uint(0) + uint(10_000))
    session("supplier")
    session("taker")
    send("supplier", 2, uint(8) + uint(0) + uint(5_000))
    send("supplier", 2, uint(9) + uint(0) + uint(5_000))
    for label in range(1, 120):
        side = dice.choice(("buy", "sell"))
        name, account = dice.choice((("supplier", 2), ("taker", 3)))
        tif = dice.choice(TIFS[:3] + ("post_only",))
        send(name, account, place(0, side, 78 + dice.randrange(5), 1 + dice.randrange(9), label, tif))
        if dice.randrange(4) == 0:
            send(name, account, cancel(1 + dice.randrange(label)))
        if dice.randrange(25) == 0:
            send(name, account, mass_cancel())
        if label % 20 == 1:
            send(name, account, quote_protection(10**9, 3, 0))
        if dice.randrange(3) == 0:
            # Some of them cross themselves.
            sides = [(78 + dice.randrange(4), dice.randrange(9)) for _ in range(2)]
            send(name, account, mass_quote((1, *sides), (2, (77, 5), (81 + dice.randrange(3), 5))))
    return log


def run(place_, dice):
    """Three data directories and the sessions of the supplier and the taker."""
    log = entries(dice)
    blocks, seq, index = [], 1, 0
    term = 2
    while seq <= len(log):
        batch = [data for _, data in log[seq - 1 : seq - 1 + 1 + dice.randrange(4)]]
        index += 1
        payload = b"".join(struct.pack("<I", len(data)) + data for data in batch)
        blocks.append(block(index, term, seq, ENTRY, payload, len(batch)))
        seq += len(batch)
    last = blocks[-1]
    state = block(index, term, seq, HARD_STATE, struct.pack("<QQQ", term, 1, index), 0)
    struct.pack_into("<Q", state, 48, struct.unpack_from("<Q", last, 48)[0])
    blocks.append(state)
    doctor.seal({"index": 0, "chain": 0}, blocks)
    nodes = []
    for node in (1, 2, 3):
        write_segment(place_ / f"node-{node}", header(node), blocks)
        nodes.append((str(node), place_ / f"node-{node}"))
    return nodes, tell(log, blocks)


def tell(log, blocks):
    """What the clients would have written down."""
    stamps = []
    for block_ in blocks:
        count, kind = struct.unpack_from("<IH", block_, 32)
        stamps += [struct.unpack_from("<Q", block_, 48)[0]] * (count if kind == ENTRY else 0)
    market, lines = Market(), {}
    for name in ("supplier", "taker"):
        lines[name] = [{"what": "session", "session": f"{SESSIONS[name]:x}", "account": 0}]
    by_id = {id_: name for name, id_ in SESSIONS.items()}
    for seq, (name, data) in enumerate(log, 1):
        known = decode(data)
        for id_, report in market.apply(seq, stamps[seq - 1], known):
            if by_id[id_] in lines:
                lines[by_id[id_]].append({"what": "report", "at": seq * 10 + 5, "report": dict(report)})
                if report["client_seq"] == known["client_seq"] and id_ == known["session"]:
                    answer = {"what": "answered", "n": known["client_seq"], "at": seq * 10 + 5,
                              "client_seq": known["client_seq"], "log_seq": seq, "answer": dict(report)}
                    lines[name].append({"what": "sent", "n": known["client_seq"], "at": seq * 10,
                                        "command": known["command"]})
                    lines[name].append(answer)
    return [checker.Session(told, name) for name, told in lines.items()]
