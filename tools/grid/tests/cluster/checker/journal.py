"""Reads a journal directory, written from `sequencer/JOURNAL.md` alone.

Nothing here knows the Rust code. A journal is read as a stream of blocks in file order; `Journal` then says what the log
of that node is: blocks that were replaced later are gone, and what was replaced is checked against what was committed.
"""

import pathlib
import struct

FORMAT = 2
SEGMENT_HEADER = 4096
HEADER = 64
ENTRY, HARD_STATE, CONF_CHANGE, SNAPSHOT = 1, 2, 3, 4
MAGIC = b"GRIDJRNL"


def _tables():
    """Eight tables, so that the checksum takes eight bytes a step."""
    first = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        first.append(value)
    tables = [first]
    for _ in range(7):
        last = tables[-1]
        tables.append([(value >> 8) ^ first[value & 0xFF] for value in last])
    return tables


_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7 = _tables()


def crc32c(data, value=0):
    """CRC32C (Castagnoli) of `data`, going on from the checksum `value`."""
    crc = value ^ 0xFFFFFFFF
    whole = len(data) - len(data) % 8
    for low, high in struct.iter_unpack("<II", data[:whole]):
        low ^= crc
        crc = (
            _T7[low & 0xFF] ^ _T6[(low >> 8) & 0xFF] ^ _T5[(low >> 16) & 0xFF] ^ _T4[low >> 24]
            ^ _T3[high & 0xFF] ^ _T2[(high >> 8) & 0xFF] ^ _T1[(high >> 16) & 0xFF] ^ _T0[high >> 24]
        )
    for byte in data[whole:]:
        crc = _T0[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class Damage(Exception):
    """A journal that says something impossible."""


class Block:
    """One block as it stands in a file."""

    __slots__ = ("where", "data", "index", "term", "first_seq", "count", "kind", "chain", "at", "nth", "crc")

    def __init__(self, where, data):
        self.where = where
        (length, self.crc, self.index, self.term, self.first_seq, self.count, self.kind, flags, self.chain, self.at,
         self.nth, own) = struct.unpack_from("<IIQQQIHHQQII", data)
        if crc32c(data[:60]) != own:
            raise Damage(f"{where}: the block's header does not check")
        if HEADER + length > len(data):
            raise Damage(f"{where}: the block ends outside of its segment")
        if self.kind not in (ENTRY, HARD_STATE, CONF_CHANGE, SNAPSHOT) or flags:
            raise Damage(f"{where}: a block of kind {self.kind} with flags {flags}")
        self.data = bytes(data[: HEADER + length])
        if self.body_crc() != self.crc:
            raise Damage(f"{where}: the block's payload does not check")

    def body_crc(self):
        return crc32c(self.data[HEADER:], crc32c(self.data[8:56], crc32c(self.data[0:4])))

    @property
    def payload(self):
        return self.data[HEADER:]

    @property
    def size(self):
        return (len(self.data) + HEADER - 1) // HEADER * HEADER

    @property
    def is_log(self):
        return self.kind in (ENTRY, CONF_CHANGE)

    @property
    def last_seq(self):
        return self.first_seq + self.count - 1

    def identity(self):
        """The bytes that must be the same on every node: all but what only tells about this node's file."""
        return self.data[:56] + self.data[HEADER:]

    def next_chain(self):
        return self.crc << 32 | crc32c(self.crc.to_bytes(4, "little"), self.chain & 0xFFFFFFFF)

    def commands(self):
        """The commands' bytes, in order."""
        if self.kind != ENTRY:
            return []
        found, rest = [], self.payload
        while rest:
            (length,) = struct.unpack_from("<I", rest)
            if 4 + length > len(rest):
                raise Damage(f"{self.where}: a command ends outside of its block")
            found.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        if len(found) != self.count:
            raise Damage(f"{self.where}: {len(found)} commands where the header says {self.count}")
        return found


def _segment(path, last):
    """The header and the blocks of one segment; a note when its tail was torn."""
    data = path.read_bytes()
    head = data[:100]
    if len(head) < 100 or head[:8] != MAGIC or crc32c(head[:96]) != struct.unpack_from("<I", head, 96)[0]:
        raise Damage(f"{path}: no segment header that checks")
    form, _machine, ordinal, cluster, node, size = struct.unpack_from("<IIQQQQ", head, 8)
    if form != FORMAT:
        raise Damage(f"{path}: format {form}; this reader knows {FORMAT}")
    if path.name != f"journal-{ordinal:010}.seg" or size != len(data):
        raise Damage(f"{path}: header says number {ordinal} of {size} bytes")
    index, term, seq, chain, at = struct.unpack_from("<QQQQQ", head, 48)
    before = {"index": index - 1, "term": term, "seq": seq - 1, "chain": chain, "at": at}
    blocks, at_byte, note = [], SEGMENT_HEADER, None
    view = memoryview(data)
    # What was filled with zeros ahead of use is most of a young segment.
    end = len(data.rstrip(b"\0"))
    while at_byte < end:
        where = f"{path}:{at_byte}"
        try:
            block = Block(where, view[at_byte:])
        except (Damage, struct.error) as damage:
            if not last or _follows(view, at_byte + HEADER, end):
                raise Damage(str(damage)) from None
            note = f"{where}: a torn tail"
            break
        blocks.append(block)
        at_byte += block.size
    return {"ordinal": ordinal, "cluster": cluster, "node": node, "before": before}, blocks, note


def _follows(view, at_byte, end):
    """Whether a whole block of a later write stands behind: then what is bad was once synced."""
    at_byte = (at_byte + HEADER - 1) // HEADER * HEADER
    while at_byte < end:
        try:
            block = Block("", view[at_byte:])
        except (Damage, struct.error):
            at_byte += HEADER
            continue
        if block.nth == 0:
            return True
        at_byte += block.size
    return False


class Journal:
    """What one node has written."""

    def __init__(self, name, data_dir):
        self.name = name
        #: index -> block, after all replacements
        self.log = {}
        #: the log begins after this position: zeros, or where the first segment or an installed snapshot says
        self.start = None
        self.commit = 0
        self.notes = []
        #: what this journal alone proves to be wrong: (check, sentence)
        self.wrong = []
        self._hard_state = None
        #: Damaged segments were put aside, and the vote that such a repair may write was not seen yet: where it does not know for
        #: whom the node voted last, it votes for the node itself, which then votes for nobody else in that term.
        self._repaired = any((pathlib.Path(data_dir) / "journal").glob("journal-*.damaged-*"))
        paths = sorted((pathlib.Path(data_dir) / "journal").glob("journal-*.seg"))
        if not paths:
            raise Damage(f"{data_dir}: no journal")
        expected = None
        for path in paths:
            header, blocks, note = _segment(path, path == paths[-1])
            if expected is not None and header["ordinal"] != expected:
                raise Damage(f"{path}: segment {expected} is missing")
            expected = header["ordinal"] + 1
            if self.start is None:
                self.start = header["before"]
                self.cluster, self.node = header["cluster"], header["node"]
            if (header["cluster"], header["node"]) != (self.cluster, self.node):
                raise Damage(f"{path}: of cluster {header['cluster']}, node {header['node']}")
            for block in blocks:
                self._take(block)
            if note:
                self.notes.append(note)

    def __repr__(self):
        return f"{self.name}: log {self.start['index'] + 1}..{self.last_index}, committed to {self.commit}"

    @property
    def last_index(self):
        return max(self.log, default=self.start["index"])

    def position(self, index):
        """Where the log stands after the block of that index; None where this journal does not say."""
        if index == self.start["index"]:
            return self.start
        block = self.log.get(index)
        if block is None:
            return None
        return {"index": index, "term": block.term, "seq": block.last_seq, "chain": block.next_chain(), "at": block.at}

    def _take(self, block):
        if block.kind == HARD_STATE:
            self._take_hard_state(block)
        elif block.kind == SNAPSHOT:
            index, term, seq, chain, at = struct.unpack_from("<QQQQQ", block.payload)
            if index < self.commit:
                self.wrong.append(("commit", f"{block.where}: a snapshot of {index} replaces what is committed to {self.commit}"))
            self.start = {"index": index, "term": term, "seq": seq, "chain": chain, "at": at}
            self.log = {}
            self.commit = max(self.commit, index)
        else:
            self._take_log(block)

    def _take_hard_state(self, block):
        term, vote, commit = struct.unpack_from("<QQQ", block.payload)
        if self._hard_state is not None:
            old_term, old_vote, _ = self._hard_state
            if term < old_term or (term == old_term and old_vote and vote != old_vote):
                if self._repaired and term == old_term and vote == self.node:
                    self._repaired = False
                else:
                    self.wrong.append(
                        ("vote", f"{block.where}: term {term} vote {vote} after term {old_term} vote {old_vote}"))
        if commit < self.commit:
            self.wrong.append(("commit", f"{block.where}: committed to {commit} after {self.commit}"))
        self._hard_state = (term, vote, commit)
        self.commit = max(self.commit, commit)

    def _take_log(self, block):
        last = self.last_index
        if block.index <= last:
            if block.index <= self.commit:
                self.wrong.append(("commit", f"{block.where}: replaces block {block.index}, committed to {self.commit}"))
            for index in range(block.index, last + 1):
                self.log.pop(index, None)
        before = self.position(block.index - 1)
        if before is None:
            raise Damage(f"{block.where}: block {block.index} after {last}")
        if block.chain != before["chain"]:
            raise Damage(f"{block.where}: block {block.index} does not follow the block ahead of it")
        if block.first_seq != before["seq"] + 1:
            self.wrong.append(
                ("sequence", f"{block.where}: begins with command {block.first_seq} after {before['seq']}"))
        if block.term < before["term"] or block.at < before["at"]:
            self.wrong.append(("sequence", f"{block.where}: its term or stamp is before that of the block ahead"))
        self.log[block.index] = block
