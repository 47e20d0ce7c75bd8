# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter derived_knock: the same steps for ever, others for each host, none that a scan would hit in order."""

import collections
import itertools

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleFilterError
from ansible_collections.sesame.portknock.plugins.filter.derived_knock import FilterModule
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.plugin_utils.derived_steps import APART, FIRST, LAST, POPULAR

derived_knock = FilterModule().filters()["derived_knock"]
SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def fleet():
    return [tuple(derived_knock(SECRET, "web{0:05}.example.org".format(number), "ssh")) for number in range(10000)]


def test_what_a_secret_gives_never_changes():
    """Hosts have these steps already: a change here shuts everybody out who has not run the playbook since."""
    assert derived_knock(SECRET, "alpha", "ssh") == [27679, 46210, 40311]
    assert derived_knock(SECRET, "alpha", "ssh", 8) == [21716, 63650, 51553, 65291, 18966, 42467, 39258, 48406]


def test_every_host_of_a_fleet_has_others(fleet):
    assert len(set(fleet)) == len(fleet)


def test_no_step_is_near_another_or_popular(fleet):
    for steps in fleet:
        assert all(FIRST <= port <= LAST and port not in POPULAR for port in steps)
        assert all(abs(one - other) >= APART for one, other in itertools.combinations(steps, 2))


def test_steps_neither_rise_nor_fall(fleet):
    assert [steps for steps in fleet if list(steps) in (sorted(steps), sorted(steps, reverse=True))] == []


def test_ports_are_evenly_distributed(fleet):
    """30,000 ports in 16 parts of the range: chi-square with 15 degrees of freedom, above 50 once in 80,000 secrets."""
    part = (LAST - FIRST + 1) / 16
    counted = collections.Counter(int((port - FIRST) / part) for steps in fleet for port in steps)
    expected = 3 * len(fleet) / 16
    assert sum((counted[number] - expected) ** 2 / expected for number in range(16)) < 50


@pytest.mark.parametrize("steps", range(1, 9))
def test_the_role_takes_them(steps):
    door = {"name": "ssh", "knock": derived_knock(SECRET, "alpha", "ssh", steps), "opens": [22]}
    assert len(spec_from_options({"doors": [door]}).doors[0].knock) == steps


def test_each_word_counts():
    words = [("alpha", "ssh", 3), ("alph", "assh", 3), ("alpha", "web", 3), ("beta", "ssh", 3), ("alpha", "ssh", 4)]
    found = {tuple(derived_knock(secret, *each)[:3]) for each in words for secret in (SECRET, SECRET + "x")}
    assert len(found) == 10


REFUSED = {
    "no secret": (None, "alpha", "ssh", 3, "the secret must be a text of 16 characters or more"),
    "short": ("fifteen letters", "alpha", "ssh", 3, "the secret must be a text of 16 characters or more"),
    "a list": ([SECRET], "alpha", "ssh", 3, "the secret must be a text of 16 characters or more"),
    "no host": (SECRET, "", "ssh", 3, "host must be a text that is not empty"),
    "door": (SECRET, "alpha", 22, 3, "door must be a text that is not empty"),
    "none": (SECRET, "alpha", "ssh", 0, "steps must be a whole number from 1 to 8"),
    "nine": (SECRET, "alpha", "ssh", 9, "steps must be a whole number from 1 to 8"),
    "text": (SECRET, "alpha", "ssh", "3", "steps must be a whole number from 1 to 8"),
    "true": (SECRET, "alpha", "ssh", True, "steps must be a whole number from 1 to 8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    *words, message = REFUSED[name]
    with pytest.raises(AnsibleFilterError) as refused:
        derived_knock(*words)
    assert message in str(refused.value)
    assert not isinstance(words[0], str) or words[0] not in str(refused.value)
