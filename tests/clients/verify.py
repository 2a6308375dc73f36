"""A second verifier, written from spec/ alone: chapters 00, 01, 02, 04, 08, 11.

    verify.py FILE --origin VKEY    one line; exit 0: it holds, 1: it does not,
                                    2: it is no such file
    verify.py --vectors DIR         every case that such a reader needs
"""

import argparse
import base64
import hashlib
import json
import re
import struct
import sys
import unicodedata
from collections import Counter, namedtuple
from pathlib import Path

import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class NoFile(Exception):
    """The bytes are no such file."""


class Fails(Exception):
    """The file does not hold."""


def need(condition, why, error=Fails):
    if not condition:
        raise error(why)


# Chapter 00: hashes, numbers, text.

ROLES = ("leaf", "node", "directory-path", "directory-entry", "directory-node")
KEYS = {r: blake3.blake3(b"", derive_key_context=f"converge-ledger v1 {r}").digest() for r in ROLES}
SEQUENCE_MAX, U64_MAX = 2**62 - 1, 2**64 - 1
BYTES_MAX = {"entry-proof": 16 << 20, "consistency-proof": 16 << 20,
             "store-consistency-proof": 256 << 20, "evidence": 2 << 20}
NODES_MAX, CONTEXTS_MAX = (256 << 20) // 77, (256 << 20) // 126


def keyed(role, data):
    return blake3.blake3(data, key=KEYS[role]).digest()


def has_control(text, allowed=""):
    return any(unicodedata.category(c) == "Cc" and c not in allowed for c in text)


def number(text, error):
    # 20 digits at most: int() gives up on thousands of them.
    digits = re.fullmatch("0|[1-9][0-9]{0,19}", text, re.ASCII)
    need(digits and int(text) <= U64_MAX, "a number", error)
    return int(text)


def unbase64(text, error, least=0, most=1 << 30):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as bad:
        raise error("base64") from bad
    need(base64.b64encode(data).decode() == text, "base64 in another spelling", error)
    need(least <= len(data) <= most, "bytes of a value", error)
    return data


def utf8(data, error):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise error("not UTF-8") from bad


def context_id(text, error):
    size = len(text.encode())
    need(1 <= size <= 1024 and not has_control(text), "context id", error)
    return text


# Chapter 04: keys, notes, heads, takeovers.

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P


def good_point(data):
    """The canonical encoding of a point of the curve, and not of small order."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        return False
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return False
    if x & 1 != sign:
        x = P - x
    for _ in range(3):  # eight times the point is not the neutral one
        both = D * x * x * y * y % P
        x, y = (2 * x * y * pow(1 + both, P - 2, P) % P,
                (y * y + x * x) * pow(1 - both, P - 2, P) % P)
    return (x, y) != (0, 1)


Key = namedtuple("Key", "name id public")


def origin_name(text, error):
    bad = any(c == "+" or c.isspace() for c in text) or has_control(text)
    need(1 <= len(text.encode()) <= 255 and not bad, "origin name", error)
    return text


def parse_vkey(text, error=Fails):
    parts = text.split("+", 2)
    need(len(parts) == 3, "a vkey", error)
    name = origin_name(parts[0], error)
    data = unbase64(parts[2], error, 33, 33)
    need(data[0] == 1, "algorithm of a key", error)
    key_id = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    need(parts[1] == key_id.hex(), "key id", error)
    need(good_point(data[1:]), "a weak key", error)
    return Key(name, key_id, data[1:])


Note = namedtuple("Note", "text lines data")


def parse_note(data, error=Fails):
    need(1 <= len(data) <= 8192, "bytes of a note", error)
    text, found, rest = utf8(data, error).rpartition("\n\n")
    text += "\n"
    need(found and 1 <= len(text.encode()) <= 4096 and not has_control(text, "\n"), "a text", error)
    need(rest.endswith("\n"), "a note's last line", error)
    lines = []
    for line in rest[:-1].split("\n"):
        parts = line.split(" ", 2)
        need(len(parts) == 3 and parts[0] == "\u2014", "a signature line", error)
        payload = unbase64(parts[2], error, 5)
        lines.append((origin_name(parts[1], error), payload[:4], payload[4:]))
    need(1 <= len(lines) <= 8, "signature lines", error)
    return Note(text, lines, data)


def signed(note, key):
    """Whether the key signed the note; a line by it that is wrong refuses the note."""
    mine = [signature for name, key_id, signature in note.lines if (name, key_id) == key[:2]]
    need(len(mine) <= 1, "two lines of one key")
    for signature in mine:
        need(len(signature) == 64 and good_point(signature[:32]), "a signature's form")
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, note.text.encode())
        except InvalidSignature as bad:
            raise Fails("a signature") from bad
    return bool(mine)


Head = namedtuple("Head", "origin order root counts rotation text")
Takeover = namedtuple("Takeover", "origin term base text")


def lines_of(text, kind, counts, error):
    lines = text.split("\n")
    need(lines.pop() == "" and lines[0] == kind and len(lines) in counts, "lines of a text", error)
    return lines


def pair(line, error, least):
    parts = line.split(" ")
    need(len(parts) == 2, "two numbers", error)
    out = tuple(number(part, error) for part in parts)
    need(min(out) >= least, "a number too low", error)
    return out


def parse_head(text, error=Fails):
    lines = lines_of(text, "converge-ledger/head/v1", (6, 7), error)
    rotation = None
    if len(lines) == 7:
        parts = lines[6].split(" ")
        need(len(parts) == 3 and parts[0] == "rotate", "a rotation", error)
        rotation = tuple(parse_vkey(part, error) for part in parts[1:])
    number(lines[5], error)
    return Head(origin_name(lines[1], error), pair(lines[2], error, 1),
                unbase64(lines[3], error, 32, 32), pair(lines[4], error, 0), rotation, text)


def parse_takeover(text, error=Fails):
    lines = lines_of(text, "converge-ledger/takeover/v1", (7,), error)
    term, base = number(lines[2], error), pair(lines[3], error, 1)
    need(term > base[0], "a takeover's term", error)
    unbase64(lines[4], error, 32, 32)
    pair(lines[5], error, 0)
    number(lines[6], error)
    return Takeover(origin_name(lines[1], error), term, base, text)


def check_rotation(head):
    old, new = head.rotation
    need(old.name == new.name == head.origin and old != new, "the keys of a rotation")


def only_lines(note, keys):
    """Exactly these keys signed, in this order, and nobody else."""
    need([line[:2] for line in note.lines] == [key[:2] for key in keys], "signature lines")
    need(all(signed(note, key) for key in keys), "not signed")


class Chain:
    """The chain of keys, from the pinned one on."""

    def __init__(self, pinned, rotations):
        line, orders = [], []
        for data in rotations:
            head = self.open_rotation(data, pinned)
            old, new = head.rotation
            line = line or [old]
            need(line[-1] == old and all(head.order > order for order in orders), "the rotations")
            need(new not in line, "a key came back")
            line.append(new)
            orders.append(head.order)
        line = line or [pinned]
        need(pinned in line, "the rotations do not hold the key")
        at = line.index(pinned)
        after, through = [None, *orders], [*orders, None]
        self.links = list(zip(line, after, through, strict=True))[at:]
        self.pinned, self.last = pinned, line[-1]

    @staticmethod
    def open_rotation(data, pinned):
        note = parse_note(data)
        head = parse_head(note.text)
        need(head.origin == pinned.name and head.rotation, "no rotation of the origin")
        check_rotation(head)
        only_lines(note, head.rotation)
        return head

    def head(self, data, error=Fails):
        note = parse_note(data, error)
        head = parse_head(note.text, error)
        need(head.origin == self.pinned.name, "another origin")
        for key, after, through in self.links:
            if (after is None or head.order > after) and (through is None or head.order <= through):
                break
        else:
            key, after, _ = self.links[0]
            leads = head.rotation and head.rotation[1] == key and head.order == after
            need(leads, "older than the pinned key")
        if head.rotation:
            check_rotation(head)
            need(key in head.rotation, "a rotation of another key")
        only_lines(note, head.rotation or [key])
        return head

    def takeover(self, data):
        note = parse_note(data)
        takeover = parse_takeover(note.text)
        need(takeover.origin == self.pinned.name and len(note.lines) == 1, "a takeover's line")
        for key, _, through in self.links:
            if signed(note, key):
                need(through is None or through >= takeover.base, "a key that no longer counts")
                return takeover
        raise Fails("not signed")

    def check_used(self, notes):
        """The last key signed one of the notes, all of which were verified."""
        lines = [line[:2] for data in notes for line in parse_note(data).lines]
        need(self.last[:2] in lines, "rotations that nothing needs")


# Chapter 04: the directory.

Slot = namedtuple("Slot", "child hash commitment counts")
EMPTY_ROOT = keyed("directory-node", bytes([1, 0, 0, 0, 0, 0, 0, 0]))


def digit(path, depth):
    return path[depth // 2] >> (0 if depth % 2 else 4) & 15


def parse_node(data):
    """Depth and sixteen slots, None for an empty one."""
    need(8 <= len(data) <= 1160, "bytes of a node")
    version, depth, occupied, children, reserved = struct.unpack_from("<BBHHH", data)
    need(version == 1 and depth <= 63 and reserved == 0 and not children & ~occupied, "a node")
    slots, at = [], 8
    for i in range(16):
        child = children >> i & 1
        size = 48 if child else 72
        if not occupied >> i & 1:
            slots.append(None)
            continue
        need(len(data) >= at + size, "a node's slots")
        if child:
            below, contexts, entries = struct.unpack_from("<32sQQ", data, at)
            need(depth < 63 and contexts >= 2 and entries >= contexts, "a child slot")
            slots.append(Slot(True, below, None, (contexts, entries)))
        else:
            path, commitment, entries = struct.unpack_from("<32s32sQ", data, at)
            need(digit(path, depth) == i and 1 <= entries <= SEQUENCE_MAX, "an entry slot")
            slots.append(Slot(False, path, commitment, (1, entries)))
        at += size
    need(at == len(data), "bytes behind a node")
    sums = tuple(sum(slot.counts[i] for slot in slots if slot) for i in (0, 1))
    need(max(sums) <= U64_MAX and (depth == 0 or sums[0] >= 2), "a node's sums")
    return depth, slots, sums


def open_node(data, want, prefix, sums):
    """The slots of the node that stands at a prefix, a tuple of digits."""
    need(keyed("directory-node", data) == want, "a node's hash")
    depth, slots, found = parse_node(data)
    need(depth == len(prefix) and sums in (None, found), "a node's place or sums")
    for slot in slots:
        if slot and not slot.child:
            need(all(digit(slot.hash, i) == d for i, d in enumerate(prefix)), "an entry's prefix")
    return slots


def look_up(root, counts, context, nodes):
    """The entry slot of a context under a root, None if there is none."""
    path = keyed("directory-path", context.encode())
    want, prefix = root, ()
    for i, data in enumerate(nodes):
        need(i < 64, "a path's length")
        slot = open_node(data, want, prefix, counts)[digit(path, i)]
        if slot is None or not slot.child:
            need(i + 1 == len(nodes), "nodes behind the end of a path")
            return slot if slot and slot.hash == path else None
        want, counts, prefix = slot.hash, slot.counts, (*prefix, digit(path, i))
    raise Fails("a path that has no end")


State = namedtuple("State", "size root")


def check_opening(slot, context, state):
    need(slot is not None and keyed("directory-path", context.encode()) == slot.hash, "no context")
    opening = b"\x01" + struct.pack("<Q", state.size) + state.root + context.encode()
    need(keyed("directory-entry", opening) == slot.commitment, "size or root of a context")
    need(slot.counts == (1, state.size), "the size of a context")


def check_state(head, context, state, nodes):
    """What a head's directory says; state None: nothing."""
    slot = look_up(head.root, head.counts, context, nodes)
    if state is None:
        need(slot is None, "a context that is there")
    else:
        check_opening(slot, context, state)


# Chapter 02: the tree.

def split(lo, hi):
    return 1 << (hi - lo - 1).bit_length() - 1


def take(hashes):
    need(hashes, "a hash is missing")
    return hashes.pop(0)


def node(left, right):
    return keyed("node", left + right)


def check_inclusion(leaf, index, size, proof, root):
    need(0 <= index < size <= SEQUENCE_MAX, "an index")
    hashes = list(proof)

    def climb(lo, hi):
        if hi - lo == 1:
            return leaf
        k = split(lo, hi)
        if index < lo + k:
            left = climb(lo, lo + k)
            return node(left, take(hashes))
        right = climb(lo + k, hi)
        return node(take(hashes), right)

    need(climb(0, size) == root and not hashes, "inclusion")


def check_consistency(old, new, proof):
    m, n, hashes = old.size, new.size, list(proof)
    need(m <= n <= SEQUENCE_MAX, "sizes in the wrong order")

    def both(lo, hi, whole):
        if m == hi:
            known = old.root if whole else take(hashes)
            return known, known
        k = split(lo, hi)
        if m <= lo + k:
            before, after = both(lo, lo + k, whole)
            return before, node(after, take(hashes))
        before, after = both(lo + k, hi, False)
        left = take(hashes)
        return node(left, before), node(left, after)

    if m == 0:
        need(old.root == keyed("node", b""), "the root of nothing")
    elif m == n:
        need(old.root == new.root, "two roots of one size")
    else:
        need(both(0, n, True) == (old.root, new.root), "consistency")
    need(not hashes, "hashes too many")


# Chapter 01: headers.

def parse_header(data):
    """Sequence, key, bytes and hash of the payload."""
    need(73 <= len(data) <= 67400 and data[:2] == b"\x01\x00", "a header")
    key, request, pairs, sequence, lamport, _, payload, metadata = struct.unpack_from(
        "<HHHQQQII", data, 2)
    need(len(data) == 72 + key + request + metadata, "a header's length")
    need(1 <= key <= 512 and request <= 256 and pairs <= 256, "a header's lengths")
    need(1 <= sequence <= SEQUENCE_MAX and lamport < 2**62 and payload <= 4 << 20, "header numbers")
    at = 72 + key
    utf8(data[at:at + request], Fails)
    at, last, total = at + request, b"", 0
    for _ in range(pairs):
        need(len(data) >= at + 4, "metadata")
        a, b = struct.unpack_from("<HH", data, at)
        name, value = data[at + 4:at + 4 + a], data[at + 4 + a:at + 4 + a + b]
        need(len(name + value) == a + b and 1 <= a <= 256 and name > last, "metadata")
        utf8(name, Fails), utf8(value, Fails)
        at, last, total = at + 4 + a + b, name, total + a + b
    need(at == len(data) and total <= 65536, "metadata")
    return sequence, utf8(data[72:72 + key], Fails), payload, data[40:72]


# Chapter 08: the lines of files.

class Lines:
    def __init__(self, data):
        text = utf8(data, NoFile)
        need(text.endswith("\n"), "the last line has no end", NoFile)
        self.lines, self.at = text[:-1].split("\n"), 1

    def line(self):
        need(self.at < len(self.lines), "the file ends early", NoFile)
        self.at += 1
        return self.lines[self.at - 1]

    def is_next(self, name):
        return self.at < len(self.lines) and self.lines[self.at].startswith(name + " ")

    def field(self, name):
        need(self.is_next(name), f"no {name}", NoFile)
        return self.line()[len(name) + 1:]

    def number(self, name):
        return number(self.field(name), NoFile)

    def hash(self, name):
        return unbase64(self.field(name), NoFile, 32, 32)

    def state(self, name):
        """A state, or None for `name 0`."""
        value = self.field(name)
        if value == "0":
            return None
        size, found, root = value.partition(" ")
        need(found, "a state", NoFile)
        return State(number(size, NoFile), unbase64(root, NoFile, 32, 32))

    def whole_state(self, name):
        state = self.state(name)
        need(state, "a state", NoFile)
        return state

    def list(self, name, count_max, least, most):
        count = self.number(name)
        need(count <= count_max, "a list's count", NoFile)
        return [unbase64(self.line(), NoFile, least, most) for _ in range(count)]

    def hashes(self, name):
        return self.list(name, 63, 32, 32)

    def nodes(self, name, count_max=64, least=8):
        return self.list(name, count_max, least, 1160)

    def note(self, name):
        count = self.number(name)
        need(1 <= count <= 8192, "a note's lines", NoFile)
        data = "".join(self.line() + "\n" for _ in range(count)).encode()
        need(len(data) <= 8192, "a note's bytes", NoFile)
        return data

    def notes(self, name):
        notes = []
        while self.is_next(name):
            need(len(notes) < 63, "notes too many", NoFile)
            notes.append(self.note(name))
        return notes

    def end(self):
        need(self.at == len(self.lines), "lines too many", NoFile)


def shown(head):
    return {"term": head.order[0], "epoch": head.order[1], "contexts": head.counts[0],
            "entries": head.counts[1], "directory_root": head.root.hex()}


def shown_state(state):
    return state and {"size": state.size, "root": state.root.hex()}


def entry_proof(r, key):
    context = context_id(r.field("context"), NoFile)
    sequence, size, root = r.number("sequence"), r.number("size"), r.hash("root")
    header = unbase64(r.field("header"), NoFile, 0, 67400)
    payload = None
    if r.is_next("payload"):
        payload = unbase64(r.field("payload"), NoFile, 0, 4 << 20)
    inclusion, nodes = r.hashes("inclusion"), r.nodes("directory")
    rotations, note = r.notes("rotation"), r.note("head")
    r.end()
    chain = Chain(key, rotations)
    head = chain.head(note)
    chain.check_used([note])
    number_, name, payload_bytes, payload_hash = parse_header(header)
    need(number_ == sequence, "the sequence")
    leaf = keyed("leaf", header)
    check_inclusion(leaf, sequence - 1, size, inclusion, root)
    check_state(head, context, State(size, root), nodes)
    if payload is not None:
        need(blake3.blake3(payload).digest() == payload_hash, "the payload")
        need(len(payload) == payload_bytes, "the payload's length")
    return "entry", {
        "context": context, "sequence": sequence, "size": size, "root": root.hex(),
        "id": leaf.hex(), "key": name, "payload_bytes": payload_bytes,
        "payload_checked": payload is not None, "head": shown(head)}


def two_heads(chain, older_note, note):
    older, newer = chain.head(older_note), chain.head(note)
    chain.check_used([older_note, note])
    rises = older.order[0] == newer.order[0] and older.order[1] < newer.order[1]
    need(rises or older.text == newer.text, "the heads' order")
    need(older.text == newer.text or not contradicts(older, newer), "the heads' counts or roots")
    return older, newer


def check_extends(old, new, hashes):
    check_consistency(old or State(0, keyed("node", b"")), new, hashes)


def context_proof(r, key):
    context = context_id(r.field("context"), NoFile)
    old, new = r.state("from"), r.whole_state("to")
    hashes, older_nodes = r.hashes("consistency"), r.nodes("older-directory")
    nodes, rotations = r.nodes("directory"), r.notes("rotation")
    older_note, note = r.note("older-head"), r.note("head")
    r.end()
    older, newer = two_heads(Chain(key, rotations), older_note, note)
    check_state(older, context, old, older_nodes)
    check_state(newer, context, new, nodes)
    check_extends(old, new, hashes)
    return "context", {"context": context, "from": shown_state(old), "to": shown_state(new),
                       "older_head": shown(older), "head": shown(newer)}


def store_proof(r, key):
    rotations, older_note, note = r.notes("rotation"), r.note("older-head"), r.note("head")
    older_nodes, nodes = (r.nodes(name, NODES_MAX, 56) for name in ("older-nodes", "nodes"))
    count = r.number("contexts")
    need(count <= CONTEXTS_MAX, "a list's count", NoFile)
    contexts = [(context_id(r.field("context"), NoFile), r.whole_state("from"),
                 r.whole_state("to"), r.hashes("consistency")) for _ in range(count)]
    r.end()
    older, newer = two_heads(Chain(key, rotations), older_note, note)
    lists = {"older": iter(older_nodes), "newer": iter(nodes), "contexts": iter(contexts)}

    def item(name):
        found = next(lists[name], None)
        need(found is not None, "the file ends before the descent")
        return found

    def whole(head):
        none = head.root == EMPTY_ROOT and head.counts == (0, 0)
        return None if none else Slot(True, head.root, None, head.counts)

    def walk(prefix, old, new):
        if old is None or old == new:
            return
        need(new is not None, "a context is gone")
        if not old.child and not new.child:
            need(old.hash == new.hash, "a context is gone")
            context, before, after, hashes = item("contexts")
            check_opening(old, context, before)
            check_opening(new, context, after)
            check_extends(before, after, hashes)
            return
        need(new.child, "contexts are gone")
        if not old.child:
            d = digit(old.hash, len(prefix))
            walk((*prefix, d), old, open_node(item("newer"), new.hash, prefix, new.counts)[d])
            return
        before = open_node(item("older"), old.hash, prefix, old.counts)
        after = open_node(item("newer"), new.hash, prefix, new.counts)
        for d in range(16):
            walk((*prefix, d), before[d], after[d])

    walk((), whole(older), whole(newer))
    need(all(next(left, None) is None for left in lists.values()), "more than the descent needs")
    return "store", {"changed": len(contexts), "older_head": shown(older), "head": shown(newer)}


# Chapter 04, Order; chapter 11.

def contradicts(first, second):
    """Whether a head cannot descend from an earlier one, by their texts."""
    contexts, entries = (b - a for a, b in zip(first.counts, second.counts, strict=True))
    same = (contexts, entries) == (0, 0)
    return (same != (first.root == second.root) or contexts < 0 or entries < 0
            or contexts > entries)


def check_descends(chain, earlier, later, takeovers):
    at = earlier.order
    for data in takeovers:
        takeover = chain.takeover(data)
        need(takeover.base[0] == at[0], "takeovers that do not lead from term to term")
        need(takeover.base >= at, "a head that was given up")
        need(takeover.base[1] < U64_MAX, "a takeover that leaves no epoch")
        at = (takeover.term, takeover.base[1] + 1)
    need(later.order[0] == at[0] and later.order >= at, "a head that does not descend")


def evidence(r, key):
    rotations, takeovers = r.notes("rotation"), r.notes("takeover")
    notes = [r.note("earlier"), r.note("later")]
    context, rewritten = None, None
    if r.is_next("context"):
        context = context_id(r.field("context"), NoFile)
        states = [r.whole_state("earlier-state")]
        paths = [r.nodes("earlier-directory")]
        states.append(r.state("later-state"))
        paths.append(r.nodes("later-directory"))
        if r.is_next("rewritten-root"):
            rewritten = r.hash("rewritten-root"), r.hashes("consistency")
    r.end()
    chain = Chain(key, rotations)

    def verdict(kind, orders, heads=None):
        roots = heads and [head.root.hex() for head in heads]
        return kind, {"origin": key.name, "earlier": list(orders[0]), "later": list(orders[1]),
                      "directory_roots": roots, "context": context}

    if notes[0].startswith(b"converge-ledger/takeover/v1\n"):
        one, other = (chain.takeover(data) for data in notes)
        chain.check_used(notes)
        need(not takeovers and context is None, "more than two takeovers need")
        need(one.term == other.term and one.text != other.text, "no two takeovers of one term")
        need(notes[0] < notes[1], "the order of the takeovers")
        return verdict("two-takeovers", [(t.term, t.base[1]) for t in (one, other)])
    if context is None and (two := two_rotations(chain, notes)):
        need(not takeovers and two[0].rotation[0] == chain.last, "more than two rotations need")
        need(two[0].order < two[1].order, "the order of the rotations")
        return verdict("two-rotations", [head.order for head in two], two)
    heads = earlier, later = [chain.head(data) for data in notes]
    chain.check_used(notes + takeovers)
    need(earlier.order <= later.order, "the order of the heads")
    orders = [head.order for head in heads]
    if context is None and earlier.order == later.order:
        need(not takeovers and earlier.text != later.text, "no two texts")
        need(notes[0] < notes[1], "the order of the texts")
        return verdict("two-texts", orders, heads)
    need(earlier.order < later.order, "one head needs no directories")
    check_descends(chain, earlier, later, takeovers)
    if context is None:
        need(contradicts(earlier, later), "the later head may extend the earlier one")
        return verdict("counts", orders, heads)
    for head, state, nodes in zip(heads, states, paths, strict=True):
        check_state(head, context, state, nodes)
    return verdict(about_context(*states, rewritten), orders, heads)


def two_rotations(chain, notes):
    try:
        one, other = (chain.open_rotation(data, chain.pinned) for data in notes)
    except Fails:
        return None
    known = any(one.rotation[0] == link[0] for link in chain.links)
    same = one.rotation[0] == other.rotation[0] and one.order[0] == other.order[0]
    return (one, other) if known and same and one.order != other.order else None


def about_context(before, after, rewritten):
    if rewritten is None:
        need(after is None or after.size <= before.size, "the context may extend what it was")
        if after is None:
            return "dropped"
        need(after != before, "the context stayed")
        return "shrunk" if after.size < before.size else "other-root"
    root, hashes = rewritten
    need(after and after.size > before.size and root != before.root, "not rewritten")
    check_consistency(State(before.size, root), after, hashes)
    return "rewritten"


READERS = {"entry-proof": entry_proof, "consistency-proof": context_proof,
           "store-consistency-proof": store_proof, "evidence": evidence}


def verify(data, key):
    """Kind and contents of a file."""
    first = data.partition(b"\n")[0] if b"\n" in data else b""
    if first == b"converge-ledger/head/v1":
        return "head", {"head": shown(Chain(key, []).head(data, NoFile))}
    for kind, read in READERS.items():
        if first == f"converge-ledger/{kind}/v1".encode():
            need(len(data) <= BYTES_MAX[kind], "a file too large", NoFile)
            return read(Lines(data), key)
    raise NoFile("an unknown first line")


# The vectors.

def open_wire_head(data, key):
    """A head from a peer: lines that are not known are ignored."""
    note = parse_note(data)
    head = parse_head(note.text)
    need(head.origin == key.name, "another origin")
    if head.rotation:
        check_rotation(head)
        need(key in head.rotation, "a rotation of other keys")
    need(all([signed(note, by) for by in head.rotation or [key]]), "not signed")
    return head


def relation(known, other):
    if known.text == other.text:
        return "same"
    first, second = sorted((known, other), key=lambda head: head.order)
    need(first.order != second.order, "two texts")
    if first.order[0] != second.order[0]:
        return "across terms"
    both = first.rotation and second.rotation
    need(not both or first.rotation[0] != second.rotation[0], "two rotations of one key")
    need(not contradicts(first, second), "a contradiction")
    return "newer" if second is other else "older"


def judge_file(case):
    try:
        kind, proves = verify(case["file"].encode(), parse_vkey(case["vkey"]))
    except (NoFile, Fails) as error:
        need(not case["good"], error, AssertionError)
        exit_code = 2 if isinstance(error, NoFile) else 1
        need(case["exit"] == exit_code, f"exit {exit_code}: {error}", AssertionError)
        raise
    need(not case["good"] or (case["kind"], case["proves"]) == (kind, proves), "what it proves")


def judge_note(case):
    if case["kind"] == "key":
        key = parse_vkey(case["vkey"])
        public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["seed"])).public_key()
        need((key.public, key.id.hex()) == (public.public_bytes_raw(), case["key_id"]), "the key")
    elif case["kind"] == "takeover":
        parse_takeover(case["text"])
    elif case["kind"] == "head":
        open_wire_head(case["note"].encode(), parse_vkey(case["vkey"]))
    else:
        key = parse_vkey(case["vkey"])
        heads = [open_wire_head(case[name].encode(), key) for name in ("known", "other")]
        need(relation(*heads) == case["relation"], "the relation")


def judge_directory(case):
    if case["kind"] == "node":
        data = bytes.fromhex(case["node"])
        parse_node(data)
        need(keyed("directory-node", data).hex() == case["hash"], "a node's hash")
        return
    nodes = [bytes.fromhex(data) for data in case["nodes"]]
    slot = look_up(bytes.fromhex(case["root"]), None, case["context"], nodes)
    if case["size"] == 0:
        need(slot is None, "present")
    else:
        root = bytes.fromhex(case["context_root"])
        check_opening(slot, case["context"], State(case["size"], root))


def judge_tree(case):
    proof = [bytes.fromhex(data) for data in case["proof"]]
    root = bytes.fromhex(case["root"])
    if case["kind"] == "inclusion":
        leaf = bytes.fromhex(case["leaf"])
        check_inclusion(leaf, case["index"], case["size"], proof, root)
    else:
        old = State(case["from"], bytes.fromhex(case["old_root"]))
        check_consistency(old, State(case["to"], root), proof)


def judge_entry(case):
    if "header" in case:
        header = bytes.fromhex(case["header"])
        sequence, key, size, payload_hash = parse_header(header)
        found = sequence, key, size, payload_hash.hex(), keyed("leaf", header).hex()
        stated = [case[name] for name in ("sequence", "key", "payload", "payload_hash", "leaf")]
        stated[2] = len(stated[2]) // 2
        need(list(found) == stated, "a header's fields")
    else:
        path = keyed("directory-path", context_id(case["context_id"], Fails).encode())
        need(path.hex() == case["path_hash"], "a path hash")


def judge_hash(case):
    role = case["derivation_context"].rpartition(" ")[2]
    found = KEYS[role].hex(), keyed(role, bytes.fromhex(case["input"])).hex()
    need(found == (case["key"], case["keyed"]), "a hash")


# Of these kinds only mirrors have need, not readers of files.
NOT_NEEDED = ("difference", "right", "root")
JUDGES = {"proof": judge_file, "evidence": judge_file, "note": judge_note,
          "directory": judge_directory, "tree": judge_tree, "entry": judge_entry,
          "hashes": judge_hash}


def vectors(folder):
    wrong = 0
    for name, judge in JUDGES.items():
        counts = Counter()
        for case in json.loads((folder / f"{name}.json").read_text("utf-8"))["cases"]:
            if case.get("kind") in NOT_NEEDED:
                counts["not needed"] += 1
                continue
            try:
                judge(case)
                good = True
            except (NoFile, Fails):
                good = False
            except AssertionError as error:
                good = error
            if good is case["good"]:
                counts["good" if good else "bad"] += 1
            else:
                wrong += 1
                print(f"{name}: {case['name']}: {good}", file=sys.stderr)
        print(f"{name}: {counts['good']} good, {counts['bad']} bad, "
              f"{counts['not needed']} of mirrors only")
    print(f"{wrong} disagreements")
    return 1 if wrong else 0


def main():
    arguments = argparse.ArgumentParser(description="verifies a proof, evidence or head")
    arguments.add_argument("file", nargs="?", type=Path)
    arguments.add_argument("--origin", metavar="VKEY")
    arguments.add_argument("--vectors", metavar="DIR", type=Path)
    options = arguments.parse_args()
    if options.vectors:
        return vectors(options.vectors)
    if not options.file or not options.origin:
        arguments.error("a file and --origin VKEY, or --vectors DIR")
    try:
        kind, proves = verify(options.file.read_bytes(), parse_vkey(options.origin, NoFile))
    except NoFile as error:
        print(f"no such file: {error}")
        return 2
    except Fails as error:
        print(f"does not hold: {error}")
        return 1
    print(f"{kind}: {json.dumps(proves)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
