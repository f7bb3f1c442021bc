#!/usr/bin/env python3
"""Proves that the checker can fail: each lie is told on a copy of a run that passed, and the check for it must bite.

    doctor.py --node 1=DIR ... CLIENT.jsonl...

Without arguments it makes up a small run of its own. Lies about journals are told well: checksums and the chain are made
right again afterwards, as a program with a bug would write them, not as a failing disk would.
"""

import argparse
import copy
import pathlib
import random
import shutil
import struct
import sys
import tempfile

import checker
import example
from journal import ENTRY, HARD_STATE, HEADER, SEGMENT_HEADER, Journal, crc32c, _segment


class Copy:
    """A run that may be lied about: journals in a directory of their own, sessions in memory."""

    def __init__(self, nodes, sessions, place):
        self.nodes = []
        for name, data_dir in nodes:
            target = pathlib.Path(place) / name
            shutil.copytree(pathlib.Path(data_dir) / "journal", target / "journal")
            self.nodes.append((name, target))
        self.sessions = copy.deepcopy(sessions)

    def rewrite(self, node, change):
        """Lets `change` have the list of a node's blocks (bytearrays, file order), and seals what comes back."""
        name, data_dir = self.nodes[node]
        paths = sorted((data_dir / "journal").glob("*.seg"))
        header, blocks = None, []
        for path in paths:
            head, found, _ = _segment(path, path == paths[-1])
            header = header or (head, path.read_bytes()[:SEGMENT_HEADER])
            blocks += [bytearray(block.data) for block in found]
            path.unlink()
        example.write_segment(data_dir, header[1], seal(header[0]["before"], change(blocks)))

    def everywhere(self, change):
        for node in range(len(self.nodes)):
            self.rewrite(node, change)


def kind(block):
    return struct.unpack_from("<H", block, 36)[0]


def index_of(block):
    return struct.unpack_from("<Q", block, 8)[0]


def seal(before, blocks):
    """Makes lengths, checksums and the chain right again, block by block, replacements included."""
    chains = {before["index"]: before["chain"]}
    last = before["index"]
    for block in blocks:
        struct.pack_into("<I", block, 0, len(block) - HEADER)
        index = index_of(block)
        log = kind(block) in (1, 3)
        chain = chains[index - 1] if log else chains[last]
        struct.pack_into("<Q", block, 40, chain)
        crc = crc32c(block[HEADER:], crc32c(block[8:56], crc32c(block[0:4])))
        struct.pack_into("<I", block, 4, crc)
        struct.pack_into("<I", block, 60, crc32c(block[:60]))
        if log:
            last = index
            chains[index] = crc << 32 | crc32c(crc.to_bytes(4, "little"), chain & 0xFFFFFFFF)
    return blocks


def commands_of(block):
    found, at = [], HEADER
    while kind(block) == ENTRY and at < len(block):
        (length,) = struct.unpack_from("<I", block, at)
        found.append(bytes(block[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def with_commands(block, commands):
    payload = b"".join(struct.pack("<I", len(command)) + command for command in commands)
    changed = bytearray(block[:HEADER]) + payload
    struct.pack_into("<I", changed, 32, len(commands))
    return changed


def first_of(block):
    return struct.unpack_from("<Q", block, 24)[0]


def end_of(block):
    first, count = struct.unpack_from("<QI", block, 24)
    return first + count


def last_answer(run):
    return max(a["log_seq"] for s in run.sessions for a in s.answered)


def last_with_commands(blocks):
    return max(at for at, block in enumerate(blocks) if commands_of(block))


# -- the lies: each names the check that must notice -----------------------------------------------------------------


def a_bit_flips_in_the_middle(run, dice):
    path = sorted((run.nodes[0][1] / "journal").glob("*.seg"))[0]
    data = bytearray(path.read_bytes())
    end = len(bytes(data).rstrip(b"\0"))
    data[dice.randrange(SEGMENT_HEADER, (SEGMENT_HEADER + end) // 2)] ^= 1 << dice.randrange(8)
    # Padding is covered by nothing and means nothing: aim at a header, which always is.
    data[SEGMENT_HEADER + 9] ^= 1
    path.write_bytes(data)


def one_node_has_another_command(run, dice):
    last = last_answer(run)

    def change(blocks):
        at = next(at for at, block in enumerate(blocks) if commands_of(block) and first_of(block) <= last < end_of(block))
        commands = commands_of(blocks[at])
        commands[-1] = commands[0] if len(commands) > 1 else example.tick()
        blocks[at] = with_commands(blocks[at], commands)
        return blocks

    run.rewrite(1, change)


def the_last_answer_is_lost_everywhere(run, dice):
    last = last_answer(run)

    def change(blocks):
        kept = []
        for block in blocks:
            first, count = struct.unpack_from("<QI", block, 24)
            if kind(block) == ENTRY and first <= last < first + count:
                break
            if kind(block) == HARD_STATE:
                struct.pack_into("<Q", block, HEADER + 16, 0)
            kept.append(block)
        return kept

    run.everywhere(change)


def an_order_is_there_twice(run, dice):
    repeat(run, "place")


def a_mass_quote_is_there_twice(run, dice):
    repeat(run, "mass_quote")


def repeat(run, do):
    """The last request of a kind once more under the next client number, on all nodes alike."""

    def change(blocks):
        for at in range(len(blocks) - 1, -1, -1):
            commands = commands_of(blocks[at])
            for command in reversed(commands):
                again = example.under_next_number(command, {s.id for s in run.sessions}, do)
                if again:
                    last = blocks[last_log(blocks)]
                    index, term, first, count = struct.unpack_from("<QQQI", last, 8)
                    block = with_commands(bytearray(last[:HEADER]), [again])
                    struct.pack_into("<QQQ", block, 8, index + 1, term, first + count)
                    struct.pack_into("<H", block, 36, ENTRY)
                    return blocks + [block, hard_state(blocks, index + 1)]
        raise AssertionError(f"the run has none of {do}")

    run.everywhere(change)


def last_log(blocks):
    top = max(index_of(block) for block in blocks if kind(block) in (1, 3))
    return max(at for at, block in enumerate(blocks) if kind(block) in (1, 3) and index_of(block) == top)


def hard_state(blocks, commit, vote=None, term=None):
    """A hard state after all of these blocks."""
    states = [block for block in blocks if kind(block) == HARD_STATE]
    old = struct.unpack_from("<QQQ", states[-1], HEADER) if states else (1, 1, 0)
    last = blocks[last_log(blocks)]
    index, log_term, first, count = struct.unpack_from("<QQQI", last, 8)
    index = max(index, commit)
    block = bytearray(last[:HEADER])
    struct.pack_into("<QQQIHH", block, 8, index, log_term, first + count, 0, HARD_STATE, 0)
    return block + struct.pack("<QQQ", term or old[0], vote or old[1], commit)


def a_number_is_skipped(run, dice):
    def change(blocks):
        at = last_with_commands(blocks)
        (first,) = struct.unpack_from("<Q", blocks[at], 24)
        for block in blocks[at:]:
            (seq,) = struct.unpack_from("<Q", block, 24)
            struct.pack_into("<Q", block, 24, seq + 1)
        assert first
        return blocks

    run.everywhere(change)


def a_committed_block_is_replaced(run, dice):
    def change(blocks):
        at = last_log(blocks)
        index = index_of(blocks[at])
        return blocks + [hard_state(blocks, index), bytearray(blocks[at])]

    run.rewrite(0, change)


def a_vote_is_changed(run, dice):
    def change(blocks):
        commit = max((struct.unpack_from("<Q", b, HEADER + 16)[0] for b in blocks if kind(b) == HARD_STATE), default=0)
        states = [b for b in blocks if kind(b) == HARD_STATE]
        term = struct.unpack_from("<Q", states[-1], HEADER)[0] if states else 1
        return blocks + [hard_state(blocks, commit, 1, term + 1), hard_state(blocks, commit, 2, term + 1)]

    run.rewrite(0, change)


def one_node_stays_behind(run, dice):
    last = last_answer(run)

    def change(blocks):
        kept = []
        for block in blocks:
            first, count = struct.unpack_from("<QI", block, 24)
            if kind(block) == ENTRY and first + count > last:
                break
            kept.append(block)
        return kept

    run.rewrite(2, change)


def answered(run):
    return [(session, answer) for session in run.sessions for answer in session.answered if answer["log_seq"]]


def an_answer_names_another_place(run, dice):
    session, answer = dice.choice(answered(run))
    answer["log_seq"] += 1
    answer["answer"]["log_seq"] += 1


def an_answer_came_before_an_earlier_send(run, dice):
    """Received, by its clock, before something was sent that stands ahead of it in the log."""
    all_ = sorted(answered(run), key=lambda pair: pair[1]["log_seq"])
    first, last = all_[0], all_[-1]
    last[1]["at"] = first[0].sent[first[1]["n"]]["at"] - 1
    last[0].sent[last[1]["n"]]["at"] = last[1]["at"] - 1


def an_answer_says_something_else(run, dice):
    fitting = [a for _, a in answered(run) if a["answer"]["kind"] == "execution"]
    dice.choice(fitting)["answer"]["leaves"] += 1


def a_refusal_becomes_an_acceptance(run, dice):
    fitting = [a for _, a in answered(run) if a["answer"]["kind"] == "reject"]
    answer = dice.choice(fitting)["answer"]
    for key in ("code", "existing"):
        del answer[key]
    answer.update({"kind": "done", "id": 0})


def a_fill_reports_another_price(run, dice):
    fills = [line for s in run.sessions for line in s.reports if line["report"].get("exec") == "trade"]
    dice.choice(fills)["report"]["last_price"] += 1


def of_kind(run, kind_):
    return [line["report"] for s in run.sessions for line in s.reports if line["report"]["kind"] == kind_]


def a_refused_quote_stands(run, dice):
    answer = dice.choice([a["answer"] for _, a in answered(run) if a["answer"].get("refused")])
    answer["accepted"] += 1
    answer["refused"] -= 1


def a_quote_is_refused_for_another_reason(run, dice):
    dice.choice(of_kind(run, "quote_refused"))["code"] += 1


def a_fill_is_of_another_quote(run, dice):
    fills = [report for report in of_kind(run, "execution") if report["exec"] == "trade" and report["quote"]]
    dice.choice(fills)["quote"] += 1


def a_quote_is_not_pulled(run, dice):
    dice.choice([report for report in of_kind(run, "quotes_pulled") if report["count"]])["count"] -= 1


def a_report_is_missing(run, dice):
    session = max(run.sessions, key=lambda s: len(s.reports))
    del session.reports[len(session.reports) // 2]


def a_report_came_twice(run, dice):
    session = max(run.sessions, key=lambda s: len(s.reports))
    session.reports.append(copy.deepcopy(session.reports[0]))


def something_else_was_sent(run, dice):
    session, answer = dice.choice([(s, a) for s, a in answered(run) if s.sent[a["n"]]["command"]["do"] == "place"])
    session.sent[answer["n"]]["command"]["qty"] += 1


def nobody_sent_it(run, dice):
    session, answer = dice.choice([(s, a) for s, a in answered(run) if s.sent[a["n"]]["command"]["do"] == "place"])
    session.sent[answer["n"]]["command"]["label"] += 1 << 60


LIES = (
    ("journal", a_bit_flips_in_the_middle),
    ("agreement", one_node_has_another_command),
    ("acked", the_last_answer_is_lost_everywhere),
    ("acked", one_node_stays_behind),
    ("acked", an_answer_names_another_place),
    ("acked", something_else_was_sent),
    ("twice", an_order_is_there_twice),
    ("twice", a_mass_quote_is_there_twice),
    ("sequence", a_number_is_skipped),
    ("commit", a_committed_block_is_replaced),
    ("vote", a_vote_is_changed),
    ("order", an_answer_came_before_an_earlier_send),
    ("reply", an_answer_says_something_else),
    ("reply", a_refusal_becomes_an_acceptance),
    ("reply", a_fill_reports_another_price),
    ("reply", a_refused_quote_stands),
    ("reply", a_quote_is_refused_for_another_reason),
    ("reply", a_fill_is_of_another_quote),
    ("reply", a_quote_is_not_pulled),
    ("reports", a_report_is_missing),
    ("reports", a_report_came_twice),
    ("invented", nobody_sent_it),
)


def prove(nodes, sessions, dice):
    """Sentences about lies that were not noticed; none is what is wanted."""
    failures = []
    findings, _ = checker.judge(nodes, sessions)
    if findings.by_check:
        return ["the run itself does not pass: " + "; ".join(findings.lines())]
    for name, lie in LIES:
        with tempfile.TemporaryDirectory() as place:
            run = Copy(nodes, sessions, place)
            lie(run, dice)
            findings, _ = checker.judge(run.nodes, run.sessions)
            if name not in findings.by_check:
                failures.append(f"{lie.__name__}: {name} did not notice; found were {list(findings.lines())}")
    return failures


def main():
    parser = argparse.ArgumentParser(description="Proves that the checker can fail.")
    parser.add_argument("--node", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("clients", nargs="*")
    args = parser.parse_args()
    dice = random.Random(args.seed)
    if args.node:
        sessions = [checker.Session.read(path) for path in args.clients]
        failures = prove([tuple(node.split("=", 1)) for node in args.node], sessions, dice)
    else:
        with tempfile.TemporaryDirectory() as place:
            nodes, sessions = example.run(pathlib.Path(place), dice)
            failures = prove(nodes, sessions, dice)
    for failure in failures:
        print(failure)
    print(f"{len(LIES) - len(failures)} of {len(LIES)} lies noticed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
