# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes of people, with the real ansible-playbook: each is answered by one line, and before anything is touched."""

import json

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from mistakes import DOOR, MISTAKES
from rig.controller import cores
from rig.local_play import play_locally, run_locally

ROLE = {"ansible.builtin.include_role": {"name": "sesame.portknock.portknock"}}
CHECK = {"sesame.portknock.portknock_variables": {}}
ROOT_NEEDED = "this needs root. Set become: true for the play or the task, or log in as root."
LONGEST_LINE = 400


@pytest.fixture
def release(rig):
    """The oldest release and the newest, each in one of the two runs of these tests."""
    return cores()[0 if rig.backend == "nft" else -1]


def attempt(name, task, **variables):
    """Return a task that notes what is said of it, under a name."""
    note = {"ansible.builtin.set_fact": {"said": f"{{{{ said | combine({{'{name}': ansible_failed_result.msg}}) }}}}"}}
    return {"name": name, "block": [dict(task, name="Try", **variables)], "rescue": [note]}


def play_of(tasks, **more):
    end = {
        "ansible.builtin.copy": {"content": "{{ said | to_json }}", "dest": "{{ playbook_dir }}/{{ inventory_hostname }}.json"},
        "check_mode": False,
    }  # fmt: skip
    variables = {"said": {}, "ansible_python_interpreter": "/usr/bin/python3"}
    play = {"name": "Mistakes", "hosts": "all", "gather_facts": False, "vars": variables, "tasks": [*tasks, end]}
    return dict(play, **more)


def test_each_mistake_is_answered_by_one_message(release, tmp_path):
    """ansible-core's own check of a role's variables would answer with all of their documentation, ten kilobytes."""
    # Every fourth with the role, and the others with what the role does first: it takes half the time.
    tasks = [
        attempt(f"m{index}", CHECK if index % 4 else ROLE, vars=variables)
        for index, (variables, _message) in enumerate(MISTAKES)
    ]
    # Those of a removal, and without root.
    nobody = {"become": True, "become_user": "nobody", "become_method": "su", "become_flags": "-s /bin/sh"}
    removal = {"ansible.builtin.include_role": {"name": "sesame.portknock.portknock", "tasks_from": "remove"}}
    modules = {
        "sesame.portknock.knock_ruleset_info": ROOT_NEEDED,
        "sesame.portknock.knock_ruleset": ROOT_NEEDED + " Nothing was changed.",
    }
    tasks.append(attempt("removal", removal, vars={"portknock_guard_timeout": 1}))
    tasks += [attempt(name, {name: {}}, **nobody) for name in modules]
    done = play_locally(release, tmp_path, [play_of(tasks)], "-i", "localhost,")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = json.loads((tmp_path / "localhost.json").read_text())
    wanted = {f"m{index}": message for index, (_variables, message) in enumerate(MISTAKES)}
    assert said == {**wanted, "removal": "portknock_guard_timeout: must be a whole number from 5 to 600.", **modules}
    shown = done.stdout + done.stderr
    assert max(map(len, shown.splitlines())) < LONGEST_LINE
    assert not [line for line in shown.splitlines() if any(str(step) in line for step in DOOR["knock"])]


def test_an_encrypted_file_is_not_quoted(release, tmp_path):
    """Where a variable is undefined, ansible-core from 2.19 on shows the lines around it of any other file."""
    secret = VaultSecret(b"secret")
    text = yaml.safe_dump({"portknock_doors": [dict(DOOR, opens=["{{ nosuch }}"])]})
    (tmp_path / "vault.yml").write_bytes(VaultLib([("default", secret)]).encrypt(text, secret))
    (tmp_path / "password").write_bytes(secret.bytes)
    words = ["-i", "localhost,", "-e", "@vault.yml", "--vault-password-file", "password"]
    done = play_locally(release, tmp_path, [play_of([ROLE])], *words)
    shown = done.stdout + done.stderr
    assert done.returncode != 0
    assert "'nosuch' is undefined" in shown
    assert not [line for line in shown.splitlines() if any(str(step) in line for step in DOOR["knock"])], shown


def test_a_wrong_name_is_found_wherever_it_is_set(release, tmp_path):
    """In the inventory for a host or a group, in a play, for one include, on the command line; not what tasks made."""
    group = {"hosts": {"by_group": {}}, "vars": {"portknock_door": []}}
    hosts = {"by_host": {"portknock_polcy": "reject"}, "by_play": {}, "by_include": {}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": {"wrong": group}}}))
    made = [
        {"ansible.builtin.set_fact": {"portknock_begun": "now"}},
        {"ansible.builtin.debug": {"msg": ""}, "register": "portknock_doors_seen"},
        {"ansible.builtin.debug": {"msg": ""}, "register": "portknock_guards"},
    ]
    tried = attempt("it", ROLE, vars={"portknock_doors": [DOOR]})
    included = attempt("it", ROLE, vars={"portknock_doors": [DOOR], "portknock_gaurd": True})
    rest = play_of([*made, tried], hosts="all:!by_play:!by_include")
    of_play = play_of([tried], hosts="by_play")
    of_play["vars"]["portknock_engin"] = "knockd"
    plays = [rest, of_play, play_of([included], hosts="by_include")]
    done = play_locally(release, tmp_path, plays, "-i", "hosts.yml", "-e", "portknock_log_=true")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    nearest = {
        "by_host": ("polcy", "policy"),
        "by_group": ("door", "doors"),
        "by_play": ("engin", "engine"),
        "by_include": ("gaurd", "guard"),
    }
    for host, pair in nearest.items():
        wanted = [
            f"portknock_{wrong}: there is no such variable. Did you mean portknock_{right}?"
            for wrong, right in sorted([pair, ("log_", "log")])
        ]
        assert json.loads((tmp_path / f"{host}.json").read_text()) == {"it": " ".join(wanted)}


def test_the_removal_asks_for_its_hosts(release, tmp_path):
    """Nothing of it is done: no task has the tag that is asked for, but for the one that asks."""
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": {}, "b": {}, "c": {}}}}))

    def remove(*words):
        return run_locally(
            release, tmp_path, "--check", "-i", "hosts.yml", "--tags", "nothing", *words, "sesame.portknock.remove"
        )

    asked = remove()
    assert asked.returncode != 0
    assert (
        '"msg": "Which hosts? portknock_hosts is not given with -e, and this would remove the doors of all 3 hosts of the inventory. '
        'Nothing was removed. Give -e portknock_hosts=GROUP or --limit; -e portknock_hosts=all means all of them."'
    ) in asked.stdout
    mistyped = remove("-e", "portknock_hosts=NOSUCH")
    assert mistyped.returncode != 0
    assert "portknock_hosts: NOSUCH matches no host of the inventory, so nothing was done." in " ".join(
        mistyped.stderr.split()
    )
    for words in (("-e", "portknock_hosts=all"), ("--limit", "a,b")):
        done = remove(*words)
        assert (done.returncode, "Which hosts?" in done.stdout) == (0, False), done.stdout + done.stderr
