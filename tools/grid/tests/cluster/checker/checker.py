#!/usr/bin/env python3
"""Judges a run of the cluster from outside: the clients' logs against the journals of all nodes.

    checker.py --node 1=DIR --node 2=DIR --node 3=DIR CLIENT.jsonl...

Independent of the Rust code: it reads the journal files itself, decodes the commands itself and foretells every answer
with a market of its own. Run it when the nodes have stopped. Each finding names its check:

| check | what must hold |
|---|---|
| journal | every journal reads from end to end |
| commit | no node ever replaced a block that it had called committed |
| vote | no node ever voted twice in one term, or went back to an earlier one |
| agreement | nodes have the same bytes at the same place of the log |
| sequence | commands are numbered from 1 without a gap, blocks follow each other |
| acked | what was answered is in every node's log, at the number and with the command of the answer |
| order | what was answered before something was sent stands before it in the log |
| twice | no request is in the log under two numbers, and none is answered in two ways |
| invented | what is in the log under a session was sent by it |
| reply | answers and reports are those of the reference model |
| reports | a session gets its reports once each, without a gap |
| model | the log has nothing that the model does not cover |
"""

import argparse
import json
import pathlib
import sys

from commands import decode
from journal import Damage, Journal
from market import Market, NotCovered

#: Findings of one check that are printed; more are counted.
SHOWN = 5


class Findings:
    def __init__(self):
        self.by_check = {}

    def add(self, check, sentence):
        self.by_check.setdefault(check, []).append(sentence)

    def lines(self):
        for check, sentences in self.by_check.items():
            for sentence in sentences[:SHOWN]:
                yield f"{check}: {sentence}"
            if len(sentences) > SHOWN:
                yield f"{check}: and {len(sentences) - SHOWN} more"


class Session:
    """One client's own account of what it asked and was told."""

    def __init__(self, lines, name):
        self.name = name
        self.id = None
        self.sent, self.answered, self.reports = {}, [], []
        for line in lines:
            what = line["what"]
            if what == "session":
                self.id = int(line["session"], 16)
                self.account = line["account"]
            elif what == "sent":
                self.sent[line["n"]] = line
            elif what == "answered":
                self.answered.append(line)
            elif what == "report":
                self.reports.append(line)

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8") as file:
            return Session([json.loads(line) for line in file], pathlib.Path(path).stem)


def check(journals, sessions, findings):
    """Every check; gives counts for the summary."""
    for journal in journals:
        for name, sentence in journal.wrong:
            findings.add(name, f"node {journal.name}: {sentence}")
    acked_seq = max((a["log_seq"] for s in sessions for a in s.answered), default=0)
    reference = max(journals, key=lambda j: (j.commit, j.position(j.last_index)["term"], j.last_index))
    # What is certainly committed: what any node called so, and what anybody was told.
    limit = reference.commit
    for index in sorted(reference.log):
        if reference.log[index].first_seq <= acked_seq:
            limit = max(limit, index)
    blocks = agree(journals, reference, limit, acked_seq, findings)
    log = number(blocks, findings)
    answers_stand(log, sessions, findings)
    nothing_invented(log, sessions, findings)
    order(sessions, findings)
    replies(log, sessions, findings)
    return {
        "nodes": {j.name: {"last_index": j.last_index, "commit": j.commit, "notes": j.notes} for j in journals},
        "blocks": len(blocks),
        "commands": len(log),
        "answered": sum(len(s.answered) for s in sessions),
        "unanswered": sum(len(s.sent) - len(s.answered) for s in sessions),
        "reports": sum(len(s.reports) for s in sessions),
        "terms": len({block.term for block in blocks}),
    }


def agree(journals, reference, limit, acked_seq, findings):
    """The one log up to `limit`, block by block, from whoever still has it."""
    log = {}
    for journal in [reference, *(j for j in journals if j is not reference)]:
        for index, block in journal.log.items():
            if index > limit:
                continue
            known = log.setdefault(index, (journal.name, block))
            if known[1].identity() != block.identity():
                findings.add("agreement", f"block {index} differs between node {known[0]} and node {journal.name}")
    for journal in journals:
        start = journal.start["index"]
        if start in log and log[start][1].next_chain() != journal.start["chain"]:
            findings.add("agreement", f"node {journal.name} starts after another block {start} than the others have")
        end = journal.position(journal.last_index)["seq"]
        if end < acked_seq:
            findings.add("acked", f"node {journal.name} ends with command {end}, answers reach to {acked_seq}")
    missing = [index for index in range(1, limit + 1) if index not in log]
    if missing:
        findings.add("sequence", f"no node has block {missing[0]} ({len(missing)} are missing)")
    return [log[index][1] for index in sorted(log)]


def number(blocks, findings):
    """Sequence number -> (stamp, entry)."""
    log, expected = {}, 1
    for block in blocks:
        if block.first_seq != expected:
            findings.add("sequence", f"block {block.index} begins with command {block.first_seq}, not {expected}")
        for offset, data in enumerate(block.commands()):
            log[block.first_seq + offset] = (block.at, decode(data))
        expected = block.first_seq + block.count
    return log


def answers_stand(log, sessions, findings):
    """Each answer's command is in the log, where the answer says, and what was sent."""
    for session in sessions:
        seen = {}
        for answer in session.answered:
            seq = answer["log_seq"]
            if not seq:
                continue
            what = f"{session.name} request {answer['n']} (client number {answer['client_seq']})"
            if answer["client_seq"] in seen:
                findings.add("twice", f"{what} has the client number of request {seen[answer['client_seq']]}")
            seen[answer["client_seq"]] = answer["n"]
            if seq not in log:
                findings.add("acked", f"{what} was answered with log number {seq}, which is not there")
                continue
            entry = log[seq][1]
            if (entry["session"], entry["client_seq"]) != (session.id, answer["client_seq"]):
                findings.add("acked", f"{what}: log number {seq} is another's command")
            elif not same(session.sent[answer["n"]]["command"], entry["command"]):
                findings.add("acked", f"{what}: log number {seq} holds {entry['command']}, sent was "
                                      f"{session.sent[answer['n']]['command']}")


def same(sent, logged):
    return all(logged.get(key) == value for key, value in sent.items())


def nothing_invented(log, sessions, findings):
    """Each command under a load session was sent by it, and none is there under two client numbers."""
    by_id = {session.id: session for session in sessions}
    numbers, client_seqs = {}, {s.id: set() for s in sessions}
    sent = {s.id: {(line["command"]["do"], line["command"].get("label")) for line in s.sent.values()} for s in sessions}
    for seq, (_, entry) in log.items():
        session = by_id.get(entry["session"])
        if session is None:
            continue
        command = entry["command"]
        client_seqs[session.id].add(entry["client_seq"])
        key = (command["do"], command.get("label"))
        if key not in sent[session.id]:
            findings.add("invented", f"log number {seq}: {session.name} never sent {command}")
        if command["do"] == "place" and command["label"]:
            first = numbers.setdefault((session.id, command["label"]), entry["client_seq"])
            if first != entry["client_seq"]:
                findings.add("twice", f"log number {seq}: {session.name}'s order {command['label']} is there under "
                                      f"client numbers {first} and {entry['client_seq']}")
    for session in sessions:
        unknown = client_seqs[session.id] - {answer["client_seq"] for answer in session.answered}
        waiting = len(session.sent) - len(session.answered)
        if len(unknown) > waiting:
            findings.add("twice", f"{session.name} waits for {waiting} answers, but {len(unknown)} client numbers are in the log "
                                  f"that none of its answers has: {sorted(unknown)[:SHOWN]}")


def order(sessions, findings):
    """Whoever sends after an answer was received, by anybody, comes later in the log."""
    moments = []
    for session in sessions:
        for answer in session.answered:
            if answer["log_seq"]:
                name = f"{session.name} request {answer['n']}"
                moments.append((answer["at"], 1, answer["log_seq"], name))
                moments.append((session.sent[answer["n"]]["at"], 0, answer["log_seq"], name))
    highest = (0, "")
    for _, received, seq, name in sorted(moments):
        if received:
            highest = max(highest, (seq, name))
        elif seq <= highest[0]:
            findings.add("order", f"{name} was sent after the answer to {highest[1]}, but is {seq} in the log, "
                                  f"not after {highest[0]}")


def replies(log, sessions, findings):
    """Runs the model over the log and compares everything that a session was told."""
    market = Market()
    wanted = {session.id for session in sessions}
    told, answers = {id_: {} for id_ in wanted}, {}
    for seq in sorted(log):
        at, entry = log[seq]
        try:
            said = market.apply(seq, at, entry)
        except NotCovered as gap:
            findings.add("model", f"log number {seq}: {gap}")
            return
        for session, report in said:
            if session in wanted:
                told[session][report["session_seq"]] = report
                if report["client_seq"]:
                    answers.setdefault((session, report["client_seq"]), report)
    for session in sessions:
        for answer in session.answered:
            if answer["log_seq"]:
                expected = answers.get((session.id, answer["client_seq"]))
                compare(session, f"the answer to request {answer['n']}", answer["answer"], expected, findings)
        numbers = [line["report"]["session_seq"] for line in session.reports if line["report"]["session_seq"]]
        if len(set(numbers)) != len(numbers):
            findings.add("reports", f"{session.name} got a report twice")
        if numbers and sorted(set(numbers)) != list(range(min(numbers), max(numbers) + 1)):
            findings.add("reports", f"{session.name} lacks reports between {min(numbers)} and {max(numbers)}")
        for line in session.reports:
            number_ = line["report"]["session_seq"]
            if number_:
                compare(session, f"report {number_}", line["report"], told[session.id].get(number_), findings)


def compare(session, what, got, expected, findings):
    if expected is None:
        findings.add("reply", f"{session.name}: {what} is none that the model gives")
        return
    if expected["kind"] == "delivery":
        return
    if got != expected:
        differs = {key: (got.get(key), expected.get(key)) for key in sorted({*got, *expected})
                   if got.get(key) != expected.get(key)}
        findings.add("reply", f"{session.name}: {what} differs from the model's (told, expected): {differs}")


def judge(nodes, sessions):
    """Findings and the summary; `nodes` are (name, data directory)."""
    findings, journals = Findings(), []
    for name, data_dir in nodes:
        try:
            journals.append(Journal(name, data_dir))
        except Damage as damage:
            findings.add("journal", str(damage))
    summary = {}
    if journals:
        try:
            summary = check(journals, sessions, findings)
        except (ValueError, Damage) as error:
            findings.add("journal", str(error))
    return findings, summary


def main():
    parser = argparse.ArgumentParser(description="Judges a run of the cluster from outside.")
    parser.add_argument("--node", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("clients", nargs="*")
    args = parser.parse_args()
    findings, summary = judge([tuple(node.split("=", 1)) for node in args.node], [Session.read(p) for p in args.clients])
    for line in findings.lines():
        print(line)
    print(json.dumps(summary | {"findings": sum(len(s) for s in findings.by_check.values())}))
    sys.exit(1 if findings.by_check else 0)


if __name__ == "__main__":
    main()
