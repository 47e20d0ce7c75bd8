# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other programs that load a whole ruleset: named before the change, and the doors come back behind them."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._boot.loaders import (
    DROP_IN_TEXT,
    drop_in,
    drop_in_folders,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LOADERS
from fake_host import FakeHost
from fake_iptables import FakeIptables
from module_run import run, settled


def host(name, service=True, config=True):
    made = FakeHost(files={LOADERS[name]: ("its rules\n", 0o644)} if config else {})
    made.services = {name} if service else set()
    return made


def told(result):
    return [(each["kind"], each["message"]) for each in result["findings"]]


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_one_that_is_in_use(name):
    made = host(name)
    message = (
        "{0} is in use on this host, and whenever it loads its rules it takes the doors out. A drop-in has them put back whenever its "
        "service starts, reloads or stops; after it was called by hand, run: systemctl restart portknock.service. Better have one "
        "program for all rules.".format(name)
    )
    assert told(run(made, check=True)) == [("other_firewall", message)]
    assert made.mode(drop_in(name)) is None
    assert told(settled(made)) == [("other_firewall", message)]
    assert made.files[drop_in(name)] == (DROP_IN_TEXT, 0o644)
    assert [path for path in made.files if path.endswith(".d/portknock.conf")] == [drop_in(name)]
    assert drop_in_folders(made.mode) == [], "ours is in there"
    settled(made, state="absent")
    assert made.mode(drop_in(name)) is None
    assert drop_in_folders(made.mode) == ["/etc/systemd/system/{0}.service.d".format(name)]


def test_one_that_is_no_more_in_use():
    made = host("ferm")
    settled(made)
    made.services = set()
    assert told(settled(made)) == []
    assert made.mode(drop_in("ferm")) is None


@pytest.mark.parametrize("more", [{"service": False}, {"config": False}])
def test_one_that_is_not(more):
    made = host("shorewall", **more)
    assert told(settled(made)) == []
    assert made.mode(drop_in("shorewall")) is None


def test_what_is_not_kept_is_not_put_back():
    made = host("csf")
    assert told(settled(made, persist=False)) == [
        ("other_firewall", "csf is in use on this host, and whenever it loads its rules it takes the doors out. Nothing puts them back, "
                           "since persist is false. Better have one program for all rules."),
        ("not_persisted", "persist: the doors are not restored at boot, nor after another program has flushed the rules; from then on "
                          "their ports are as open as the rest leaves them. Set persist to true, or restore them yourself."),
    ]  # fmt: skip
    assert made.mode(drop_in("csf")) is None


@pytest.mark.parametrize("lost", ["flush", "boot"])
def test_doors_that_are_gone_are_told(lost):
    made = FakeHost()
    run(made, persist=False)
    assert [each["kind"] for each in inspect(made)["findings"]] == []
    if lost == "boot":
        made.reboot()
    else:
        made.rules["iptables"], made.rules["ip6tables"] = FakeIptables(""), FakeIptables("")
    found = inspect(made)["findings"]
    assert [(each["kind"], each["ip_version"]) for each in found] == [("doors_gone", "ipv4"), ("doors_gone", "ipv6")]
    assert found[0]["message"] == (
        "persist: the doors were loaded here and are gone, by a boot or because another program has flushed the rules, and nothing "
        "restores them. Run knock_ruleset again, with persist set to true."
    )
    run(made)
    assert inspect(made)["findings"] == []
    run(made, state="absent")
    assert inspect(made)["findings"] == []


def test_what_was_taken_out_is_not_missed():
    made = FakeHost()
    run(made, persist=False)
    run(made, state="absent", persist=False)
    assert inspect(made)["findings"] == []
