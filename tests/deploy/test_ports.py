"""A service's two ports are its own, from the moment in which they are found."""

import socket
from contextlib import closing
from dataclasses import replace

import pytest

from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.ports import open_ports
from accelserve.errors import Kind, ScoringError

ANY = ServiceDefinition("numbers", "m", 1, replicas=1)


def refusal(definition: ServiceDefinition, *remedy: str) -> str:
    with pytest.raises(ScoringError) as refused:
        open_ports(definition, *remedy).close()
    assert refused.value.kind is Kind.CONFLICT
    return refused.value.message


@pytest.mark.parametrize("taken", ["http", "grpc"])
def test_a_port_that_another_service_keeps_is_refused_though_no_replica_listens_yet(taken):
    with closing(open_ports(ANY)) as ports:
        found = ports.written_into(ANY)
        wanted = {f"{taken}_port": getattr(found, f"{taken}_port")}
        said = refusal(replace(ANY, **wanted))
        assert f"is in use; choose another with --{taken}-port, or 0 for a free one" in said
        assert refusal(replace(ANY, **wanted), "end who has it").endswith("is in use; end who has it")


def test_replicas_listen_side_by_side_at_the_port_that_is_kept_for_them():
    with closing(open_ports(ANY)) as ports:
        address = ports.grpc.getsockname()
        replicas = [socket.socket() for _ in range(2)]
        for replica in replicas:
            replica.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            replica.bind(address)
            replica.listen()
        for replica in replicas:
            replica.close()


def test_ports_whose_clients_left_a_moment_ago_can_be_had_again():
    with closing(open_ports(ANY)) as ports:
        found = ports.written_into(ANY)
        client = socket.create_connection(("127.0.0.1", found.http_port))
        ports.http.setblocking(True)
        served, _ = ports.http.accept()
        served.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    open_ports(found).close()
