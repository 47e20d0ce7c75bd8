# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The quick start, command by command, as a stranger types it, the README has the same ones; and what docs/fleet.md says to do."""

import contextlib
import json
import re
import shlex

import pytest
from rig.bare_host import BareHost, play_role, user_of
from rig.controller import PING
from rig.stranger import Stranger, page
from rig.target import ROOT, door

WAY = page(ROOT / "docs" / "quick-start.md")


@pytest.fixture
def stranger(bare_host, core):
    """Somebody who has one host and the page."""
    made = Stranger([bare_host], core, WAY)
    yield made
    made.close()


@pytest.fixture
def beta(request):
    """A second host."""
    request.getfixturevalue("docker")
    made = BareHost("beta")
    yield made
    made.close()


@pytest.mark.on_one_backend
def test_the_quick_start(bare_host, beta, core):
    with contextlib.closing(Stranger([bare_host, beta], core, WAY)) as stranger:
        walk(stranger, bare_host, beta)


def walk(stranger, alpha, beta):
    """Type what the page says, and look at both hosts."""
    create, check, close, verify, configure, into, remove = WAY.commands
    stranger.type(create)
    shown = stranger.type(check)
    assert "would change (check mode)" in shown
    assert not alpha.has_command("iptables")
    shown = stranger.type(close)
    assert "Plain ssh is refused without a knock." in shown
    assert "door ssh: 22/tcp closed" in shown
    assert re.search(r"^alpha +changed .*\nbeta +changed .*\n2 changed$", shown, re.M), shown
    # That the window ends is seen by the tests of verify.
    shown = stranger.type(f"{verify} -e portknock_verify_wait=0")
    for name in ("alpha", "beta "):
        line = rf"^{name}  door ssh .*refused.*open.*not waited for.* proved  ok: its window"
        assert re.search(line, shown, re.M), shown
    stranger.type(configure)
    for name, host in (("alpha", alpha), ("beta", beta)):
        typed = into.replace("alpha", name)
        assert stranger.type(typed).splitlines()[-1] == host.run("hostname").stdout.strip()
        assert host.own_rules()
    stranger.type(remove)
    assert alpha.own_rules() == beta.own_rules() == []
    stranger.type(f"ansible-playbook -i hosts.ini -b -J {ROOT}/examples/ssh-only.yml")
    assert alpha.own_rules()
    assert beta.own_rules()


# What the examples read: one knock, so that each can follow another, and a web server's other door.
VARIABLES = """
vault_knock_secret: a secret that is long enough
vault_knock: "{{ vault_knock_secret | sesame.portknock.derived_knock(inventory_hostname, 'ssh') }}"
vault_knock_ssh: "{{ vault_knock }}"
vault_knock_admin: "{{ vault_knock_secret | sesame.portknock.derived_knock(inventory_hostname, 'admin') }}"
"""
SSH = {"name": "ssh", "knock": "{{ vault_knock }}", "opens": [22]}
ADMIN = {"name": "admin", "knock": "{{ vault_knock_admin }}", "opens": [8443]}
SERVER = """
import http.server, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/both.pem")
server = http.server.HTTPServer(("", 8443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.mark.soak
@pytest.mark.on_one_backend
def test_the_other_examples(bare_host, stranger):
    """Each on the host that the one before has left; ssh-only.yml is run by the test of the quick start."""

    def play(playbook, *more):
        return stranger.type(" ".join(["ansible-playbook -i examples.ini -b", playbook, *map(shlex.quote, more)]))

    inventory = f"[guarded]\nalpha ansible_host={bare_host.address}\n[web]\nalpha\n"
    (stranger.project / "examples.ini").write_text(inventory)
    (stranger.project / "group_vars" / "all.yml").write_text(VARIABLES)
    folder = ROOT / "examples"
    bare_host.run("mkdir", "-p", "/var/lib/prometheus/node-exporter")
    assert re.search(r"alpha .*changed=\d.*failed=0", play(f"{folder}/fleet.yml"))
    play(f"{folder}/web-server.yml")
    status = bare_host.run("portknock", "status").stdout
    assert re.search(r"^admin +8443/tcp +60 s ", status, re.M), status
    bare_host.run("portknock", "close", "ssh")
    play(f"{folder}/nftables.yml")
    assert "Engine nftables" in bare_host.run("portknock", "status").stdout
    assert bare_host.own_rules() == []
    play("sesame.portknock.site", "-e", json.dumps({"portknock_doors": [SSH, ADMIN]}))
    serve(bare_host, stranger)
    shown = play(f"{folder}/knock-in-a-play.yml")
    assert re.search(r'"doors.drift": \[\]', shown), shown


def serve(host, stranger):
    """Have a web server run on the host, which the controller trusts."""
    key, certificate = stranger.home / "key.pem", stranger.home / "server.pem"
    stranger.type(
        "openssl req -x509 -newkey rsa:2048 -noenc -days 2 -subj /CN=alpha"
        f" -addext subjectAltName=IP:{host.address} -keyout {key} -out {certificate}"
    )
    host.write("/srv/both.pem", key.read_text() + certificate.read_text(), "0600")
    host.write("/srv/health", "well\n", "0644")
    host.write("/srv/server.py", SERVER, "0644")
    host.run("systemd-run", "--working-directory=/srv", "python3", "/srv/server.py")
    stranger.trust(certificate)


@pytest.mark.soak
def test_a_host_that_was_down_while_the_knock_was_changed(bare_host, core):
    page_of_fleets = (ROOT / "docs" / "fleet.md").read_text()
    words = shlex.split(re.search(r"--limit web3 (-e .*)$", page_of_fleets, re.M)[1])

    def pings():
        bare_host.run("portknock", "close", "ssh")
        user.end_masters()
        return user.play(PING).code

    with user_of(bare_host, core, portknock_doors=[door(*json.loads(words[1])["ansible_knock"])]) as user:
        play_role(user)
        assert pings() == 0
        user.variables["portknock_doors"] = [door(19173, 11411, 17707)]
        assert pings() == 4, "the new knock opens the door of a host that does not know it"
        play_role(user, *words)
        assert pings() == 0
