# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs only the options and the host is found by info and by the command as it is by a run of the module."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._paths import OPTIONS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.canonical import options_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_host import EL, knockd_host
from fake_systemd import ENABLED, NOT_THERE
from module_run import DOOR, options, run


def kept(host, **wanted):
    """Apply options, and keep them on the host as the command does; return the findings of the next run."""
    run(host, **wanted)
    asked = options(**wanted)
    text = json.dumps(dict(options_of(spec_from_options(asked)), persist=asked.get("persist", True)))
    host.files[OPTIONS] = (text, 0o600)
    return findings(run(host, **wanted))


def findings(result):
    return sorted((each["kind"], each["ip_version"], each["rule"], each["message"]) for each in result["findings"])


def small_list(host):
    host.size, host.module = 100, True


def saves(host):
    host.files["/etc/os-release"] = (EL, 0o644)
    host.files["/etc/sysconfig/iptables-config"] = ('IPTABLES_SAVE_ON_STOP="yes"\n', 0o600)
    host.units.update({"iptables": ENABLED, "ip6tables": ENABLED})


def ferm(host):
    host.files["/etc/ferm/ferm.conf"] = ("", 0o644)
    host.services = {"ferm"}


def masked(host):
    host.units["netfilter-persistent"] = NOT_THERE._replace(masked=True, present=True)


def elsewhere(host):
    host.listens = {("tcp", "0.0.0.0", 443, 7): "nginx"}


HOSTS = [
    ("list_size", small_list, {}),
    ("saves_on_stop", saves, {}),
    ("other_firewall", ferm, {}),
    ("not_loaded_at_boot", masked, {}),
    ("nothing_listens", elsewhere, {}),
    ("not_persisted", None, {"persist": False}),
    ("family_open", None, {"ip_versions": ["ipv4"]}),
    ("broad_trust", None, {"trusted_sources": ["128.0.0.0/2"]}),
    ("single_step", None, {"doors": [dict(DOOR, knock=["17005"])]}),
]


@pytest.mark.parametrize(("kind", "prepare", "wanted"), HOSTS, ids=[item[0] for item in HOSTS])
@pytest.mark.parametrize("engine", ["iptables", "knockd"])
def test_info_finds_what_a_run_finds(engine, kind, prepare, wanted):
    host = knockd_host()
    if prepare:
        prepare(host)
    found = kept(host, engine=engine, **wanted)
    assert kind in [each[0] for each in found]
    assert findings(inspect(host)) == found
    # As it is without what the command keeps.
    del host.files[OPTIONS]
    assert {each[0] for each in findings(inspect(host))} <= {"single_step", "only_at_boot"}


def test_a_first_step_that_is_a_later_one_of_knockd():
    found = kept(knockd_host(), engine="knockd", doors=[DOOR, dict(name="web", knock=["18300", "20500"], opens=["80"])])
    assert [each[0] for each in found].count("knockd") == 2


@pytest.mark.parametrize("text", ['{"doors": "none"}', '{"acknowledge": ["single_step"]}'])
def test_kept_options_that_were_edited_hide_nothing_else(text):
    host = knockd_host()
    run(host)
    host.files[OPTIONS] = (text, 0o600)
    inspect(host)
