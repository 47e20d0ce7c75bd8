# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A play that closes the door it comes through goes on to its end, and a door's knock changes in one run."""

import json
import re

import pytest
from rig.controller import MODULE, PING, knock_task
from rig.counter import close_doors
from rig.guard import BEHIND, DOOR, NEW, Case
from rig.masters import end_masters
from rig.target import ROOT, door

SHORT = dict(DOOR, window=4)
OTHER = dict(door(7100, "9200/udp", 3300), window=4)
ROLE = {"name": "role", "ansible.builtin.include_role": {"name": "sesame.portknock.portknock"}}
SECRETS = ("the secret of last year", "the secret of this year")
FLEET = (ROOT / "docs" / "fleet.md").read_text()
LATER = {"name": "later", "ansible.builtin.pause": {"seconds": 7}}


@pytest.mark.parametrize(
    ("options", "window"),
    [("-o ControlMaster=auto -o ControlPersist=2s", 4), ("-o ControlMaster=no", 1)],
    ids=["short-lived master", "no master"],
)
def test_a_play_of_plain_ssh_goes_on_through_the_closed_door(rig, controller, options, window):
    """It has no master and the window is over when it needs the next connection: the role has changed to knock_ssh.

    Without any master that is already so when core removes the module's temporary files.
    """
    case = Case(rig, controller)
    short = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config} {options}"}
    run = controller.play(
        *[dict(task, tags=["always"]) for task in (PING, ROLE, LATER, dict(PING, name="after"))],
        hosts={"target": {"portknock_doors": [dict(DOOR, window=window)]}}, environment=short, words=["--tags", "portknock_ruleset"],
    )  # fmt: skip
    assert run.code == 0, run.output
    assert run.only(task="after").kind == "ok"
    case.check_target(NEW)


def test_a_changed_knock_in_one_run(rig, controller):
    """In by the old steps, confirmed by the new ones, and on with a message about what to change."""
    case = Case(rig, controller)
    case.check(NEW, controller.play(knock_task(SHORT), hosts={"target": BEHIND}))
    end_masters(controller)
    run = controller.play(LATER, knock_task(OTHER), hosts={"target": BEHIND})
    case.check(NEW, run)
    result = run.only(task=MODULE).result
    assert (result["guard"]["knocked"], result["guard"]["tries"]) == ("ssh", 1)
    assert "ansible_knock of target has other steps" in re.sub(r"\s+", " ", run.output)
    end_masters(controller)
    there = {**BEHIND, "ansible_knock": OTHER["knock"]}
    assert controller.play(LATER, PING, hosts={"target": there}).code == 0
    end_masters(controller)
    assert controller.play(LATER, PING, hosts={"target": BEHIND}).code != 0, "the steps before open nothing"


def test_a_new_secret_with_the_old_knock_worked_out_on_the_command_line(rig, controller, tmp_path):
    """The words of docs/fleet.md: derived_knock in the doors, and the old secret's in a file for -e, for one run."""
    case = Case(rig, controller)
    (knock,) = re.findall(r'^ +knock: ("{{ vault_knock_secret .*}}")$', FLEET, re.M)
    (old,) = re.findall(r"`(ansible_knock: \"{{ vault_old_secret .*}}\")`", FLEET)
    (tmp_path / "old-knock.yml").write_text(f"vault_old_secret: {SECRETS[0]}\n{old}\n")

    def play(secret, *words, apply=False):
        doors = [dict(SHORT, knock=json.loads(knock))]
        known = {
            "ansible_connection": BEHIND["ansible_connection"],
            "portknock_doors": doors,
            "vault_knock_secret": secret,
        }
        tasks = [PING, knock_task(doors="{{ portknock_doors }}")][: 2 if apply else 1]
        run = controller.play(*tasks, hosts={"target": known}, words=words)
        end_masters(controller)
        close_doors(rig)
        return run

    case.check(NEW, play(SECRETS[0], apply=True))
    assert play(SECRETS[1]).code == 4, "the new knock opens the door of a host that does not know it"
    run = play(SECRETS[1], "-e", f"@{tmp_path}/old-knock.yml", apply=True)
    case.check(NEW, run)
    assert run.only(task=MODULE).result["guard"]["knocked"] == "ssh"
    assert play(SECRETS[1]).code == 0, "the host does not have the new knock"
