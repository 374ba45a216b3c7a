"""Whose a process is while something is measured."""

import os
from collections.abc import Sequence

from harness.machine.kernel import descendants, processes
from harness.server.lifecycle import ServerInfo

CLIENT, SERVER, STUBS = "client", "server", "stubs"


def parts(servers: Sequence[ServerInfo]) -> dict[str, set[int]]:
    """Ids of the processes that are there now: the clients below this one, the servers, and their stubs."""
    found = processes()
    served = {server.pid for server in servers}
    stubs = descendants(found, served) - served
    # A server's supervisor is a child of ours.
    supervisors = {found[pid].parent for pid in served if pid in found}
    clients = descendants(found, [os.getpid()]) - {os.getpid()} - served - stubs - supervisors
    return {CLIENT: clients, SERVER: served, STUBS: stubs}
