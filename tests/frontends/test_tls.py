"""Certificates: what is read of PEM files, what is said of wrong ones, and that a new one serves new connections."""

import json
import os
import ssl
import time
from contextlib import suppress
from pathlib import Path

import pytest

from accelserve.frontends.certificates import blocks_of, pem_blocks, validity
from accelserve.frontends.tls import Tls, TlsError, TlsFiles, key_problem, read_identity, validity_problem
from certificates import Pair, authority, new_key, openssl, signed


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("pem")
    ca = authority(folder)
    pairs = {"ca": ca, "ec": signed(ca, folder, "ec"), "rsa": signed(ca, folder, "rsa", "rsa")}
    pairs["old"] = signed(ca, folder, "old", days=("19600101000000Z", "20200102030405Z"))
    pairs["far"] = signed(ca, folder, "far", days=("20490101000000Z", "20991231235959Z"))
    return pairs


def files(pair: Pair, **other: Path) -> TlsFiles:
    return TlsFiles(other.get("cert", pair.cert), other.get("key", pair.key), other.get("client_ca"))


def shake_hands(tls: Tls, roots: Path, client: Pair | None = None) -> ssl.SSLObject:
    """Both sides in memory; the client's side of a connection that both accepted."""
    context = ssl.create_default_context(cafile=roots)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    peer = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(2):  # there and back, of TLS 1.3
        for side in (peer, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    with suppress(ssl.SSLWantReadError):
        peer.read(1)  # the reason why the server refused, if it has
    server.write(b"welcome")
    assert peer.read(100) == b"welcome"
    return peer


@pytest.mark.parametrize(
    ("name", "not_before", "not_after"),
    [("old", "1960-01-01 00:00:00", "2020-01-02 03:04:05"), ("far", "2049-01-01 00:00:00", "2099-12-31 23:59:59")],
)
def test_the_dates_of_a_certificate_are_read_in_both_of_their_forms(made, name, not_before, not_after):
    found = validity(made[name].cert.read_bytes())
    told = [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment)) for moment in (found.not_before, found.not_after)]
    assert told == [not_before, not_after]


@pytest.mark.parametrize("name", ["ca", "ec", "rsa", "old", "far"])
def test_dates_agree_with_openssl(made, name):
    found = validity(made[name].cert.read_bytes())
    told = openssl("x509", "-in", made[name].cert, "-noout", "-enddate").strip().partition("=")[2]
    assert ssl.cert_time_to_seconds(told) == found.not_after


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("rsa", "RSA", False),
        ("ec", "P-256", False),
        ("ec:P-384", "P-384", False),
        ("ec:P-521", "P-521", True),
        ("ed25519", "Ed25519", True),
    ],
)
def test_keys_that_clients_of_grpc_refuse_are_told(made, tmp_path, kind, name, told):
    identity = read_identity(files(signed(made["ca"], tmp_path, kind=kind)))
    assert identity.key_kind == name
    assert (key_problem(name) is not None) is told


@pytest.mark.parametrize("kind", ["ec:secp256k1", "ed448", "rsa-pss"])
def test_keys_that_no_listener_of_grpc_takes_are_refused(made, tmp_path, kind):
    with pytest.raises(TlsError, match="want RSA, P-256 or P-384"):
        read_identity(files(signed(made["ca"], tmp_path, kind=kind)))


def test_grpc_gets_the_blocks_alone(made):
    content = b"\xef\xbb\xbf" + made["ec"].cert.read_bytes() + b"a comment\n" + made["ec"].key.read_bytes()
    assert blocks_of(content, "CERTIFICATE") + b"\n" == made["ec"].cert.read_bytes()
    assert blocks_of(content, "PRIVATE KEY") + b"\n" == made["ec"].key.read_bytes()


def test_the_first_certificate_of_a_chain_is_the_servers_own(made):
    chain = made["old"].cert.read_bytes() + made["ca"].cert.read_bytes()
    assert validity(chain) == validity(made["old"].cert.read_bytes())


@pytest.mark.parametrize("length", [0, 1, 2, 30, 100, 200])
def test_a_certificate_that_is_cut_is_no_certificate(made, length):
    der = ssl.PEM_cert_to_DER_cert(made["ec"].cert.read_text())
    with pytest.raises(ValueError, match="DER"):
        validity(ssl.DER_cert_to_PEM_cert(der[:length] or b"\0").encode())


def test_blocks_are_found_among_text(made):
    assert pem_blocks(b"a comment\n" + made["ec"].key.read_bytes() + made["ec"].cert.read_bytes()) == (
        "PRIVATE KEY",
        "CERTIFICATE",
    )
    assert pem_blocks(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----") == ()


def test_an_expired_and_a_coming_certificate_are_told_apart(made):
    now_s = time.time()
    assert "has expired" in validity_problem(validity(made["old"].cert.read_bytes()), now_s)
    assert "not valid yet" in validity_problem(validity(made["far"].cert.read_bytes()), now_s)
    assert validity_problem(validity(made["ec"].cert.read_bytes()), now_s + 1) is None


@pytest.mark.parametrize("name", ["ec", "rsa"])
def test_clients_that_trust_the_authority_are_served(made, name):
    peer = shake_hands(Tls(read_identity(files(made[name]))), made["ca"].cert)
    assert dict(pair[0] for pair in peer.getpeercert()["subject"])["commonName"] == name
    assert peer.version() == "TLSv1.3"


def test_a_new_identity_serves_new_connections_and_the_old_ones_go_on(made):
    tls = Tls(read_identity(files(made["ec"])))
    old = shake_hands(tls, made["ca"].cert)
    tls.replace(read_identity(files(made["rsa"])))
    new = shake_hands(tls, made["ca"].cert)
    names = [dict(pair[0] for pair in peer.getpeercert()["subject"])["commonName"] for peer in (old, new)]
    assert names == ["ec", "rsa"]


def test_client_certificates_are_wanted_where_an_authority_for_them_is_named(made, tmp_path):
    others = authority(tmp_path, "others")
    tls = Tls(read_identity(files(made["ec"], client_ca=others.cert)))
    shake_hands(tls, made["ca"].cert, signed(others, tmp_path, "friend"))
    for stranger in (None, made["rsa"]):
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate required|unknown ca"):
            shake_hands(tls, made["ca"].cert, stranger)


def test_plain_http_is_told_in_plain_http_that_tls_is_spoken(made):
    tls = Tls(read_identity(files(made["ec"])))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    to_server.write(b"POST /score HTTP/1.1\r\nhost: x\r\n\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert to_client.read().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ssl.SSLError):
        server.do_handshake()


def test_a_failed_handshake_says_why_before_it_ends(made):
    tls = Tls(read_identity(files(made["ec"], client_ca=made["ca"].cert)))
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate required"):
        shake_hands(tls, made["ca"].cert)


def test_old_versions_of_tls_are_not_spoken(made):
    tls = Tls(read_identity(files(made["ec"])))
    assert tls.identity.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls.identity.context.options & ssl.OP_NO_RENEGOTIATION


def _encrypted(made, folder: Path) -> TlsFiles:
    target = folder / "secret.pem"
    openssl("pkey", "-in", made["ec"].key, "-aes256", "-passout", "pass:word", "-out", target)
    return files(made["ec"], key=target)


def _pipe(made, folder: Path) -> TlsFiles:
    os.mkfifo(folder / "pipe")
    return files(made["ec"], cert=folder / "pipe")


def _issuer_first(made, folder: Path) -> TlsFiles:
    (folder / "chain.pem").write_bytes(made["ca"].cert.read_bytes() + made["ec"].cert.read_bytes())
    return files(made["ec"], cert=folder / "chain.pem")


def _text(name: str, content: bytes) -> "object":
    def wrong(made, folder: Path) -> TlsFiles:
        (folder / "wrong.pem").write_bytes(content)
        return files(made["ec"], **{name: folder / "wrong.pem"})

    return wrong


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda made, folder: files(made["ec"], key=folder / "gone.pem"), r"--tls-key .*gone\.pem: No such file"),
        (lambda made, folder: files(made["ec"], cert=folder / "gone.pem"), r"--tls-cert .*gone\.pem: No such file"),
        (lambda made, folder: files(made["ec"], cert=folder), r"--tls-cert .*: Is a directory"),
        (_pipe, r"--tls-cert .*pipe: not a regular file"),
        (_issuer_first, r"does not belong to --tls-cert .* first certificate has to be the server's own"),
        (lambda made, folder: files(made["ec"], key=made["rsa"].key), r"--tls-key .* does not belong to --tls-cert"),
        (lambda made, folder: files(made["ec"], key=made["ec"].cert), r"want PEM .*PRIVATE KEY.*it holds CERTIFICATE"),
        (lambda made, folder: files(made["ec"], cert=made["ec"].key), r"want PEM .*CERTIFICATE.*it holds PRIVATE KEY"),
        (lambda made, folder: files(made["ec"], client_ca=made["ec"].key), r"--tls-client-ca .* want PEM"),
        (_encrypted, r"--tls-key .*secret\.pem: it is encrypted"),
        (_text("cert", b""), r"--tls-cert .*want PEM"),
        (_text("cert", b"\x30\x82\x01"), r"--tls-cert .*want PEM"),
        (_text("key", b"x" * 2**21), r"--tls-key .*want PEM"),
        (_text("cert", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), r"OpenSSL cannot"),
        (_text("key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), r"OpenSSL cannot"),
        (
            _text("client_ca", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            r"--tls-client-ca .*OpenSSL",
        ),
    ],
    ids=range(16),
)
def test_what_is_wrong_is_named(made, tmp_path, wrong, told):
    with pytest.raises(TlsError, match=told) as raised:
        read_identity(wrong(made, tmp_path))
    assert json.dumps(str(raised.value))


def test_a_key_is_not_shown(made):
    identity = read_identity(files(made["ec"]))
    assert made["ec"].key.read_text().splitlines()[1] not in repr(identity)


def test_a_second_key_of_the_same_kind_does_not_fit(made, tmp_path):
    with pytest.raises(TlsError, match="does not belong"):
        read_identity(files(made["ec"], key=new_key(tmp_path / "other.pem")))
