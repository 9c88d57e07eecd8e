"""What scripts/image-check lends to a build, and when it refuses; the rest of it is run by `make image-check`."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from image_check import workplace
from image_check.load import ANSWERED, FINE, REFUSED, LoadClient
from image_check.progress import CheckFailed
from image_check.traffic import parse_settings, pip_conf

LISTING = """\
:env:.timeout='180'
global.cert='/somewhere/ca.pem'
global.extra-index-url='file:///disk/simple https://index.example/simple'
global.find-links='/disk/wheels'
global.timeout='60'
"""


def test_pips_variables_win_over_its_files():
    settings = parse_settings(LISTING)
    assert settings["timeout"] == "180"
    assert settings["cert"] == "/somewhere/ca.pem"


def test_a_build_is_lent_what_means_something_inside_of_it():
    assert pip_conf(parse_settings(LISTING), has_ca=True).splitlines() == [
        "[global]",
        "extra-index-url = https://index.example/simple",
        "timeout = 180",
        "cert = /etc/ssl/certs/ca-certificates.crt",
    ]


def test_where_pip_has_no_settings_nothing_is_lent():
    assert pip_conf(parse_settings(""), has_ca=False) == "[global]\n"


def test_without_root_it_says_so_and_installs_nothing(monkeypatch):
    monkeypatch.setattr(workplace.os, "geteuid", lambda: 10001)
    monkeypatch.setattr(workplace, "_run", lambda *_: pytest.fail("a command was run"))
    with pytest.raises(CheckFailed, match=r"needs root .*apt-get install buildah podman"):
        workplace.install_tools()


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis").touch()
    with pytest.raises(CheckFailed, match="want a folder that is new or empty"), workplace.Workplace(tmp_path, False):
        pytest.fail("it was taken")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


class Teller(http.server.BaseHTTPRequestHandler):
    """Answers rightly, then wrongly, then breaks off; the server ends with that."""

    protocol_version = "HTTP/1.1"
    answers = (b'[{"label": "seven"}]', b'[{"label": "one"}]')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        asked = self.server.asked = getattr(self.server, "asked", 0) + 1
        if asked > len(self.answers):
            self.close_connection = True
            self.server.socket.close()
            return
        body = self.answers[asked - 1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def teller() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Teller) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield server
        thread.join(20)


def test_a_load_client_keeps_wrong_and_lost_answers_apart_from_right_ones(teller):
    client = LoadClient(teller.server_port, b"a picture", "seven")
    client.start()
    outcomes = client.outcomes()
    lost = [outcome for outcome in outcomes if outcome.startswith("lost: ")]
    assert len(lost) == 1
    assert not FINE & {"wrong: 200", *lost}
    assert outcomes == {ANSWERED: 1, "wrong: 200": 1, lost[0]: 1, REFUSED: 1}
