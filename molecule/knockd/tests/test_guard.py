# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that cannot be confirmed leaves the daemon as it was, whatever happens in between."""

import pytest
from rig_console import soon
from rig_knockd import IN_RUN, KNOCK, OTHER_KNOCK, PATIENCE, options

OTHER_DOORS = [{"name": "shell", "knock": OTHER_KNOCK, "opens": ["22", "7007"], "window": 3}]
_FAILING = """
    set -e
    mv /usr/sbin/knockd /usr/sbin/knockd.whole
    printf '#!/bin/sh\\ncase $* in */run/portknock*) exit 1 ;; esac\\nexec /usr/sbin/knockd.whole "$@"\\n' >/usr/sbin/knockd
    chmod 755 /usr/sbin/knockd
"""
"""A knockd that does not run with a configuration that is not confirmed."""


@pytest.fixture
def trusted(machine, operator):
    """The host, with the controller's address as one that needs no knock."""
    source = machine.out("ip route show default").split()[2]
    assert operator.apply(options(trusted_sources=[source])).only().kind == "ok"
    yield source
    operator.knock_elsewhere("")
    event = operator.apply(options()).only()
    assert event.kind == "ok" and event.result["guard"]["state"] == "confirmed", event


def check_as_before(machine, state):
    """The daemon, its files and its unit are as before, and the old knock opens."""
    assert soon(lambda: machine.daemon() == state and machine.listens(), PATIENCE), (machine.daemon(), state)
    assert soon(machine.is_tidy), machine.leftovers()
    machine.shut()
    assert not machine.opens_to(OTHER_KNOCK)
    machine.shut()
    assert machine.opens_to(KNOCK)


def check_rolled_back(machine, state, event):
    """The result says so too."""
    result = event.result
    assert event.kind == "failed" and result["rolled_back"] and not result["changed"], event
    assert not result.get("unreachable") and result["guard"]["state"] == "rolled_back"
    check_as_before(machine, state)
    return result


def start_cut_off(served, operator, timeout):
    """Begin a change whose knock never arrives, and return its run once the change waits to be confirmed."""
    operator.come_in()
    operator.knock_elsewhere(served.client_address())
    run = operator.start(options(doors=OTHER_DOORS), guard_timeout=timeout)
    run.until(served.waits)
    return run


def test_knock_that_never_arrives_is_rolled_back(served, operator):
    state = served.daemon()
    run = start_cut_off(served, operator, timeout=15)
    # The new daemon runs, from where no boot finds it.
    assert served.argv()[2].startswith("/run/portknock/") and served.listens()
    result = check_rolled_back(served, state, run.only())
    assert (
        "cut this controller off" in result["msg"]
        and "Door shell" in result["msg"]
        and "knockd_interface" in result["msg"]
    )
    assert result["guard"]["tries"] > 1


def test_daemon_that_does_not_come_up_is_rolled_back_at_once(served, operator):
    state = served.daemon()
    served.run(_FAILING)
    try:
        event = operator.apply(options(doors=OTHER_DOORS), guard_timeout=300).only()
    finally:
        served.run("mv /usr/sbin/knockd.whole /usr/sbin/knockd; systemctl restart knockd.service")
    assert event.kind == "failed" and "knockd does not listen" in event.result["msg"], event
    assert not event.result.get("unreachable")
    check_as_before(served, state)


def test_reboot_in_the_window_brings_the_old_daemon(served, operator):
    state = served.daemon()
    run = start_cut_off(served, operator, timeout=300)
    assert served.listens() and served.daemon() != state
    # It could not come in any more: its knocks go elsewhere.
    run.kill()
    served.reboot()
    assert soon(served.listens, PATIENCE)
    assert served.out(f"find {IN_RUN} 2>/dev/null || true") == ""
    assert soon(lambda: served.opens_to(KNOCK), PATIENCE)
    assert served.daemon() == state


def test_controller_that_needs_no_knock_proves_knockd_all_the_same(served, operator, trusted):
    state = served.daemon()
    change = options(trusted_sources=[trusted], doors=OTHER_DOORS)
    operator.knock_elsewhere(served.client_address())
    result = check_rolled_back(served, state, operator.apply(change, guard_timeout=15).only())
    # Which of the two it is depends on whether the host was asked once more before the deadline.
    said = (f"knockd has not heard a knock of {trusted} at door shell", "knockd receives no knock from this controller")
    assert any(text in result["msg"] for text in said), result["msg"]
    assert result["guard"]["tries"] > 1
    operator.knock_elsewhere("")
    event = operator.apply(change).only()
    guard = event.result["guard"]
    assert event.kind == "ok" and (guard["state"], guard["knocked"]) == ("confirmed", ""), event
    # knockd has heard it, and nothing else puts a source there.
    assert f"src={trusted} " in served.out("cat /proc/net/xt_recent/pk4_shell")
