# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An update from the first release: a host that it closed, and a change that it has left pending."""

import subprocess
from pathlib import Path

import pytest
from rig.bare_host import begin_and_leave, changed, play_role, session, user_of
from rig.controller import cores

RELEASED = Path(__file__).resolve().parents[1] / "released" / "sesame-portknock-1.0.0.tar.gz"
DOOR = {"name": "shell", "knock": [58391, "61427/udp", 53819], "opens": ["22"], "window": 60}
OTHER = {"name": "web", "knock": [57113, 59021], "opens": ["8080"]}
LIST = "/proc/net/xt_recent/pk4_shell"
SOMEBODY = "192.0.2.77"

pytestmark = pytest.mark.only("nft")


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """The first release, installed for a controller."""
    folder = tmp_path_factory.mktemp("released")
    place = folder / "ansible_collections" / "sesame" / "portknock"
    place.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", RELEASED, "-C", place], check=True)
    return {"ANSIBLE_COLLECTIONS_PATH": str(folder)}


@pytest.fixture
def user(bare_host):
    """With the newest release of ansible-core: with the older ones the first release did not get through."""
    with user_of(bare_host, cores()[-1], portknock_doors=[DOOR]) as made:
        yield made


def comments(host):
    """The comments of our rules, without their ids."""
    lines = [line for line in host.rules().splitlines() if "PORTKNOCK" in line and line.startswith("-A")]
    return {line.partition('"portknock:')[2][9:].partition('"')[0] for line in lines}


def test_one_change_and_nobody_falls_out(bare_host, user, released):
    """The update is one change; one that the first release has left pending is ended before it, by its own program."""
    play_role(user, environment=released)
    old = comments(bare_host)
    assert old
    with session(user, bare_host) as answers:
        bare_host.run("sh", "-c", f"echo +{SOMEBODY} >{LIST}")
        first = play_role(user)
        assert [task for task in changed(first) if "knock ruleset" in task], first.output
        assert len(changed(first)) == 1
        assert f"src={SOMEBODY} " in bare_host.run("cat", LIST).stdout
        assert answers()
    assert comments(bare_host) != old
    assert changed(play_role(user)) == []
    assert changed(play_role(user, portknock_state="absent"))
    assert "PORTKNOCK" not in bare_host.rules()

    # On the same host, which has nothing of ours again.
    begin_and_leave(user, bare_host, released, portknock_doors=[DOOR, OTHER], portknock_guard_timeout=600)
    assert "version" not in bare_host.pending()
    assert "web" in bare_host.rules()
    run = play_role(user)
    assert bare_host.pending() == {}
    assert comments(bare_host)
    assert "door web" not in bare_host.rules(), run.output
