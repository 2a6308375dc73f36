"""The API as a program in another language sees it: stubs compiled from
spec/proto, all five calls, health, reflection, and the codes of errors.

Usage: grpc_client.py ADDRESS PROTO_DIR
"""

import importlib
import pathlib
import sys
import tempfile
import threading

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

# No call takes nearly as long, however busy the machine.
DEADLINE = 60
# A snapshot may be larger than the 4 MiB that clients take by default.
OPTIONS = [
    ("grpc.max_receive_message_length", 65 << 20),
    ("grpc.max_send_message_length", 65 << 20),
]
SERVICE = "converge.context.v1.ContextService"


def compile_stubs(proto_dir):
    """Compiles context.proto and returns its two modules."""
    out = tempfile.mkdtemp(prefix="stubs-")
    arguments = ["protoc", f"-I{proto_dir}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*arguments, str(pathlib.Path(proto_dir) / "context.proto")]) != 0:
        sys.exit("context.proto does not compile")
    sys.path.insert(0, out)
    return importlib.import_module("context_pb2"), importlib.import_module("context_pb2_grpc")


def refused(code, call, *arguments):
    """The call fails with this code, and says something."""
    try:
        call(*arguments, timeout=DEADLINE)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} instead of {code}: {error.details()}"
        assert error.details(), "an error without a message"
        return error.details()
    raise AssertionError(f"{code} was expected")


def appends(pb, stub):
    """Appends, exactly once with a request id, and what is refused."""
    request = pb.AppendRequest(
        context_id="python",
        key="facts",
        payload=b"\x00\xffit rains",
        metadata={"agent": "me", "größe": "", "z": "ü"},
        request_id="r-1",
    )
    first = stub.Append(request, timeout=DEADLINE).entry
    assert first.sequence == 1 and first.payload == request.payload
    assert dict(first.metadata) == dict(request.metadata)
    assert first.id == first.content_hash.hex() and len(first.content_hash) == 32
    assert first.appended_at_ns > 0 and first.lamport > 0
    # A retry stores nothing and is answered with the same entry.
    assert stub.Append(request, timeout=DEADLINE).entry == first
    other = pb.AppendRequest()
    other.CopyFrom(request)
    other.payload = b"something else"
    refused(grpc.StatusCode.ALREADY_EXISTS, stub.Append, other)
    second = stub.Append(
        pb.AppendRequest(context_id="python", key="more", observed_lamport=1000), timeout=DEADLINE
    ).entry
    assert second.sequence == 2 and second.lamport > 1000

    bad = grpc.StatusCode.INVALID_ARGUMENT
    refused(bad, stub.Append, pb.AppendRequest(context_id="", key="k"))
    refused(bad, stub.Append, pb.AppendRequest(context_id="a\n", key="k"))
    refused(bad, stub.Append, pb.AppendRequest(context_id="c", key=""))
    refused(bad, stub.Append, pb.AppendRequest(context_id="c", key="k" * 513))
    refused(bad, stub.Append, pb.AppendRequest(context_id="c", key="k", request_id="r" * 257))
    refused(bad, stub.Append, pb.AppendRequest(context_id="c", key="k", metadata={"": "v"}))
    refused(
        bad, stub.Append, pb.AppendRequest(context_id="c", key="k", observed_lamport=1 << 41)
    )
    refused(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        stub.Append,
        pb.AppendRequest(context_id="c", key="k", payload=bytes((4 << 20) + 1)),
    )
    refused(grpc.StatusCode.NOT_FOUND, stub.Get, pb.GetRequest(context_id="c"))
    return [first, second]


def gets(pb, stub, entries):
    """Pages, keys, and the end."""
    for _ in range(8):
        request = pb.AppendRequest(context_id="python", key="many", payload=b"x" * 1000)
        entries.append(stub.Append(request, timeout=DEADLINE).entry)
    got, after = [], 0
    while True:
        request = pb.GetRequest(context_id="python", after_sequence=after, limit=3)
        page = stub.Get(request, timeout=DEADLINE)
        assert len(page.entries) <= 3 and page.latest_sequence == len(entries)
        got.extend(page.entries)
        after = page.next_after_sequence
        if after == 0:
            break
    assert got == entries
    many = stub.Get(pb.GetRequest(context_id="python", key="many"), timeout=DEADLINE)
    assert [entry.sequence for entry in many.entries] == list(range(3, 11))
    # Whose context it is; named in a request, it is that one or none.
    assert many.origin
    named = pb.GetRequest(context_id="python", key="many", origin=many.origin)
    assert stub.Get(named, timeout=DEADLINE) == many
    named.origin = "nobody.example"
    assert "nobody.example" in refused(grpc.StatusCode.NOT_FOUND, stub.Get, named)
    beyond = stub.Get(pb.GetRequest(context_id="python", after_sequence=99), timeout=DEADLINE)
    assert not beyond.entries and beyond.next_after_sequence == 0
    refused(grpc.StatusCode.NOT_FOUND, stub.Get, pb.GetRequest(context_id="nobody"))


def watches(pb, stub, entries):
    """From the middle on, then live, then cancelled by the watcher."""
    watch = stub.Watch(pb.WatchRequest(context_id="python", from_sequence=4), timeout=DEADLINE)
    events = iter(watch)
    for at, expected in enumerate(entries[4:]):
        event = next(events)
        assert event.entry == expected
        # It is said once whose context this is.
        assert bool(event.origin) == (at == 0)
    live = pb.AppendRequest(context_id="python", key="live")
    writer = threading.Thread(
        target=lambda: entries.append(stub.Append(live, timeout=DEADLINE).entry)
    )
    writer.start()
    event = next(events)
    writer.join()
    assert event.entry == entries[-1] and event.entry.key == "live"
    watch.cancel()
    try:
        next(events)
        raise AssertionError("a cancelled watch ends")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.CANCELLED
    by_key = stub.Watch(pb.WatchRequest(context_id="python", key="more"), timeout=DEADLINE)
    assert next(iter(by_key)).entry == entries[1]
    by_key.cancel()


def archives(pb, stub, entries):
    """A snapshot, loaded under another name, has the same root."""
    made = stub.Snapshot(pb.SnapshotRequest(context_id="python"), timeout=DEADLINE)
    assert made.sequence == made.metadata.entry_count == len(entries)
    assert made.metadata.version == 1 and len(made.metadata.merkle_root) == 32
    assert made.snapshot.startswith(b"converge-ledger/archive/v1\ncontext python\n")
    load = pb.LoadRequest(context_id="copy", snapshot=made.snapshot, fail_if_exists=True)
    loaded = stub.Load(load, timeout=DEADLINE)
    assert loaded.entries_restored == loaded.latest_sequence == len(entries)
    copy = stub.Snapshot(pb.SnapshotRequest(context_id="copy"), timeout=DEADLINE)
    assert copy.metadata.merkle_root == made.metadata.merkle_root
    page = stub.Get(pb.GetRequest(context_id="copy"), timeout=DEADLINE)
    assert list(page.entries) == entries

    refused(grpc.StatusCode.ALREADY_EXISTS, stub.Load, load)
    load.fail_if_exists = False
    assert stub.Load(load, timeout=DEADLINE).entries_restored == 0
    middle = len(made.snapshot) // 2
    changed = bytearray(made.snapshot)
    changed[middle] ^= 1
    bad = grpc.StatusCode.INVALID_ARGUMENT
    for archive in (bytes(changed), made.snapshot[:-1], b"hello", b""):
        refused(bad, stub.Load, pb.LoadRequest(context_id="new", snapshot=archive))
    refused(grpc.StatusCode.NOT_FOUND, stub.Get, pb.GetRequest(context_id="new"))
    refused(grpc.StatusCode.NOT_FOUND, stub.Snapshot, pb.SnapshotRequest(context_id="nobody"))


def about(channel):
    """Health, and what reflection tells."""
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    refused(
        grpc.StatusCode.NOT_FOUND, health.Check, health_pb2.HealthCheckRequest(service="nobody")
    )
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert {SERVICE, "converge.ledger.v1.InspectService"} <= services, services
    described = database.FindFileContainingSymbol(SERVICE)
    methods = {method.name for method in described.service[0].method}
    assert methods == {"Append", "Get", "Snapshot", "Load", "Watch"}, methods


def main(address, proto_dir):
    pb, pb_grpc = compile_stubs(proto_dir)
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        stub = pb_grpc.ContextServiceStub(channel)
        entries = appends(pb, stub)
        gets(pb, stub, entries)
        watches(pb, stub, entries)
        archives(pb, stub, entries)
        about(channel)
    print(f"grpc_client: all as it should be, {len(entries)} entries")


if __name__ == "__main__":
    main(*sys.argv[1:])
