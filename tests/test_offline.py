"""The guard of conftest.py: tests cannot leave this machine, and can talk to it."""

import socket
import urllib.request

import pytest


def test_no_way_out():
    with socket.socket() as outside, pytest.raises(RuntimeError, match=r"network is blocked.*192\.0\.2\.1"):
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match=r"network is blocked.*example\.org"):
        urllib.request.urlopen("http://example.org", timeout=1)


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as inside:
        server.accept()[0].sendall(b"here")
        assert inside.recv(4) == b"here"
