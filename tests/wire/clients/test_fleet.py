# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks site and verify over many hosts: their batches, where they stop, what they say. The role's tasks are a stand-in's."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from rig.controller import playbook_of
from rig.target import ROOT, clean_environment

ROLE = """
- name: Write the ruleset
  sesame.portknock.stand_in:
    fate: "{{ fate }}"
  register: __portknock_result
  tags: [portknock_ruleset]
"""
LOOK = ROLE.replace("__portknock_result", "__portknock_seen")
MODULE = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"fate": {"type": "str"}})
if module.params["fate"] == "rolled back":
    module.fail_json(msg="Rolled back: no new connection got in.", rolled_back=True)
row = dict.fromkeys(("what", "ip_version", "without", "wrong", "right", "later", "proof", "note"), "-")
wrong = module.params["fate"] == "wrong"
rows = [dict(row, state="wrong" if wrong else "ok", note="open." if wrong else "")]
module.exit_json(changed=True, findings=[{"severity": "warning"}], rows=rows, ok=not wrong, problems=["open."] * wrong)
"""
# The rig is not used: with it each test has one release of ansible-core, and one backend.
pytestmark = pytest.mark.usefixtures("rig")
DOWN = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
REASON = "Rolled back: no new connection got in."


@pytest.fixture
def site(core, tmp_path):
    """Run the playbook on hosts of this machine, some of which are down, and some of which roll back."""
    copy = tmp_path / "ansible_collections" / "sesame" / "portknock"
    for folder in ("meta", "plugins", "playbooks", "roles"):
        shutil.copytree(ROOT / folder, copy / folder)
    shutil.copy2(ROOT / "galaxy.yml", copy)
    (copy / "roles/portknock/tasks/main.yml").write_text(ROLE)
    (copy / "roles/portknock/tasks/verify.yml").write_text(LOOK)
    (copy / "plugins/modules/stand_in.py").write_text(MODULE)

    def run(count, *words, back=(), down=(), wrong=(), playbook="site"):
        hosts = {f"h{number}": {"fate": "changed"} for number in range(1, count + 1)}
        for numbers, fate in ((back, "rolled back"), (wrong, "wrong")):
            hosts.update({f"h{number}": {"fate": fate} for number in numbers})
        for number in down:
            hosts[f"h{number}"].update(DOWN)
        common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = tmp_path / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
        environment = clean_environment(ANSIBLE_COLLECTIONS_PATH=str(tmp_path), HOME=str(tmp_path), ANSIBLE_NOCOLOR="1")
        command = [playbook_of(core), "-i", inventory, f"sesame.portknock.{playbook}", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return run


def table(done):
    """Return the last table: each host and what became of it, and the sum."""
    lines = done.stdout[re.search(r".*(^host  \w+)", done.stdout, re.M | re.S).start(1) :].splitlines()
    end = next(number for number, line in enumerate(lines) if line[0].isdigit())
    return [" ".join(line.split()) for line in lines[1 : end + 1]]


def test_one_host_then_a_fifth_then_all_unless_one_rolls_back(site):
    done = site(6, "--tags", "portknock_ruleset", back=[2])
    assert done.returncode == 2, done.stdout
    assert table(done) == [
        "h1 changed 1 warning",
        f"h2 rolled back - {REASON}",
        *[f"h{number} not begun -" for number in (3, 4, 5, 6)],
        "1 changed, 1 rolled back, 4 not begun",
    ]
    assert "Rolled back, for the reason above. Hosts that were not begun are as they were." in done.stdout + done.stderr


def test_batches_and_the_share_that_may_fail_can_be_given(site):
    batches = '{"portknock_serial": [3, "100%"], "portknock_max_fail_percentage": 40}'
    done = site(5, "-e", batches, "--skip-tags", "portknock_install", back=[2], down=[4])
    assert done.returncode != 0
    assert table(done) == [
        "h1 changed 1 warning",
        f"h2 rolled back - {REASON}",
        "h3 changed 1 warning",
        "h4 not reached -",
        "h5 changed 1 warning",
        "3 changed, 1 rolled back, 1 not reached",
    ]


def test_doors_are_tried_in_batches(site):
    batches = '{"portknock_serial": 2, "portknock_max_fail_percentage": 49}'
    done = site(5, "-e", batches, wrong=[4], playbook="verify")
    assert done.returncode == 2, done.stdout + done.stderr
    looked = " - - - - - - -"
    assert table(done) == [
        *[f"h{number}{looked} ok" for number in (1, 2, 3)],
        f"h4{looked} WRONG: open.",
        f"h5{looked} not begun",
        "1 wrong, 0 not seen, 1 not begun",
    ]
    assert done.stdout.count("host  what") == 1
