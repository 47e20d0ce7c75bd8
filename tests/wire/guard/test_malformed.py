# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Malformed wishes, given to the role and to the module: with -vvv nothing that ansible-playbook prints shows a step."""

import sys

import yaml
from rig.controller import cores
from rig.local_play import play_locally
from wishes import SHAPES, STEP, holds_step, shaped

ROLE = "sesame.portknock.portknock"
RULESET, VERIFY, KNOCK = (f"sesame.portknock.{name}" for name in ("knock_ruleset", "knock_verify", "knock"))
SENT = {
    "a knock as a dictionary": {"knock": {STEP: "tcp"}},
    "a knock in lists": {"knock": [[STEP]]},
    "a knock in one text": {"knock": f"{STEP} 7000"},
    "a port to wait for that is a knock": {"knock": [7000], "wait_for": [STEP]},
    "a port in a list": {"knock": [7000], "wait_for": {"port": [STEP]}},
    "a key of another name": {"knock": [7000], "knocks": [STEP]},
}
"""What the mistake is to the options of the module that sends a knock."""


def attempts():
    """Yield (name, task) for every shape and for everything that takes it, the options out of variables."""
    for index, name in enumerate(sorted(SHAPES)):
        options = {option: f"{{{{ wishes[{index}].{option} }}}}" for option in shaped(name)}
        yield f"{name}, ruleset", {RULESET: options}
        yield f"{name}, verify", {VERIFY: options, "check_mode": False}
        role = {"portknock_" + option: value for option, value in options.items()}
        yield f"{name}, role", {"ansible.builtin.include_role": {"name": ROLE}, "vars": role}
    for name, options in SENT.items():
        values = {option: f"{{{{ sent['{name}'].{option} }}}}" for option in options}
        yield f"{name}, knock", {KNOCK: dict(values, host="localhost")}


def play():
    """Return a play that makes all attempts and counts those that were not refused. In check mode it changes nothing."""
    taken = {"ansible.builtin.set_fact": {"taken": "{{ taken + [attempt] }}"}}
    refused = {"ansible.builtin.debug": {"msg": "refused"}}
    tasks = [
        {"name": name, "vars": {"attempt": name}, "block": [dict(task, name="Try"), taken], "rescue": [refused]}
        for name, task in attempts()
    ]
    end = {"ansible.builtin.assert": {"that": "taken == []", "fail_msg": "{{ taken }}"}}
    return {
        "name": "Wishes",
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"taken": []},
        "tasks": [*tasks, end],
    }


def test_no_shape_shows_a_step(rig, tmp_path):
    """Of the oldest release and the newest, each in one of the two runs of the tests of the guard."""
    core = cores()[0 if rig.backend == "nft" else -1]
    variables = {"wishes": [shaped(name) for name in sorted(SHAPES)], "sent": SENT}
    (tmp_path / "wishes.yml").write_text(yaml.safe_dump(dict(variables, ansible_python_interpreter=sys.executable)))
    done = play_locally(core, tmp_path, [play()], "-i", "localhost,", "-vvv", "-e", "@wishes.yml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count('"msg": "refused"') == 3 * len(SHAPES) + len(SENT)
    shown = [line for line in (done.stdout + done.stderr).splitlines() if holds_step(line)]
    assert shown == []
