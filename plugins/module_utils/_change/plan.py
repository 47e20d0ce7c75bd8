# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What knock_ruleset does, in order: read, plan, and where something is to do, apply and keep."""

import hashlib
import json
import re

from ansible_collections.sesame.portknock.plugins.module_utils._change.commit import (
    DISABLE,
    ENABLE,
    Keeping,
    finish,
    stage,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.load import apply_plans, undo_plans
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.access import door_for, lets_in, may_knock
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import own_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import NFT, Iptables
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import readable_file, shortened
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.findings import Finding, spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import place_of, same_ids
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import (
    MODPROBE,
    SERVICE_CONFIGS,
    STATE_FILE,
    differing,
    layout_of,
    modprobe_text,
    wanted_files,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.recent_lists import address_of, network_of
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.daemon import CONFIG, Doorman, put_back
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES, IPV4, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options


class Job:
    """One run: everything is planned in the constructor, and only apply() changes anything."""

    def __init__(self, options, host, may_lack_iptables=False, with_diff=True):
        """Read the host and plan.

        :param options: the module's options.
        :param host: a Host.
        :param may_lack_iptables: plan for a bare host where the commands are not installed yet (check mode).
        :param with_diff: whether somebody will read the diff; it takes as long as the plan.
        :raises PortknockError: if the options or the host do not allow it; nothing was changed.
        """
        self._host = host
        self._iptables = Iptables(host.run, host.find, host.read)
        self.absent = options["state"] == "absent"
        self.keeps = options["persist"] and not self.absent
        self.spec = spec_from_options(options)
        self.families = _managed(self.spec, host.families())
        self.installed = self._iptables.installed(IPV4)
        if not self.installed and not may_lack_iptables and not self.absent:
            raise HostError(
                "iptables is not installed on this host. Install it first, the role does that: tag portknock_install."
            )
        self._owns = {} if self.absent else {family: own_rules(self.spec, family) for family in self.families}
        self.saves = {family: self._save(family) for family in self._present()}
        self.backend = self._backend()
        self._state = json.loads(host.read(STATE_FILE) or "{}")
        self.plans = [self._known_spelling(self._plan(family, save)) for family, save in self.saves.items()]
        self.doorman = Doorman(host, self._spec_or_none(), self.families, self.keeps, may_lack_iptables)
        self.door = self._check_connection()
        self.proof_door = self._proof_door()
        self.files = self._changed_files()
        self.unit_due = self.keeps and (bool(self.files) or not host.unit_ready())
        self._diff = self._read_diff() if with_diff else []
        self.loads = any(plan.change for plan in self.plans) or self.doorman.due
        self.changed = self.loads or bool(self.files) or self.unit_due

    # Reading and planning

    def _present(self):
        return [family for family in self._host.families() if self._iptables.installed(family) or not self.installed]

    def _save(self, family):
        return self._iptables.save(family) if self.installed else ""

    def _spec_or_none(self):
        return None if self.absent else self.spec

    def _wanted_spec(self, family):
        return self.spec if family in self.families and not self.absent else None

    def _plan(self, family, text):
        return plan_family(text, self._wanted_spec(family), family, self._owns.get(family))

    def _backend(self):
        if not self.installed:
            return NFT
        backend = self._iptables.backend(self.saves[IPV4])
        if not self.absent:
            for family in self.saves:
                found = self._iptables.other_backend_rules(family, backend)
                if found:
                    raise HostError(
                        "both backends of iptables hold rules, and a packet must pass both: the commands here use {0}, but {1}. "
                        "Remove those rules ({2} -F after a look at them) or switch the alternative, then run this again. "
                        "Nothing was changed.".format(backend, found, found.split(" ", 1)[0].replace("-save", ""))
                    )
        return backend

    def _known_spelling(self, plan):
        """Leave out a change that is only in how this version of iptables-save spells our rules."""
        if (
            plan.change
            and same_ids(plan.now, plan.then)
            and self._state.get("spelling", {}).get(plan.family) == _digest(plan)
        ):
            return plan._replace(change="", undo="")
        return plan

    def _check_connection(self):
        """Return the name of the door that a new connection like the one this runs in must knock at, or ''."""
        words = self._host.ssh_connection()
        if self.absent or not words or len(words) != 4:
            return ""
        source = address_of(words[0])
        for plan in self.plans:
            if plan.family == family_of(source) and plan.family in self.families:
                self._check_lets_in(plan, int(words[3]), source)
                door = door_for(self.spec, int(words[3]), source)
                self._check_hears(door, words[2])
                return door
        return ""

    def _check_hears(self, door, address):
        if door and self.doorman.wanted and not self.doorman.hears(address):
            raise SpecError(
                "knockd_interface",
                "this connection needs door {0} and comes to {1}, which is no address of {2}; there knockd would not hear its knock. "
                "Name the interface that has the address. Nothing was changed.".format(
                    door, address, self.doorman.interface
                ),
            )

    def _proof_door(self):
        """Return the door that a controller which needs none is to knock at, so that knockd is proved all the same."""
        words = self._host.ssh_connection()
        if self.door or not words or not (self.doorman.due and self.doorman.wanted):
            return ""
        source = address_of(words[0])
        if family_of(source) not in self.families or not self.doorman.hears(words[2]):
            return ""
        return next((door.name for door in self.spec.doors if may_knock(door, source)), "")

    def _check_lets_in(self, plan, port, source):
        if not lets_in(plan.document.table("filter"), self.spec, place_of(plan.then, TAIL), port, source):
            raise SpecError(
                "doors" if not self.spec.doors else "policy",
                "policy {0} would shut out this connection: nothing would let {1} in to port {2} again. Open the port with a "
                "door (if there is one, look at its sources), name it in allow, or name the address in "
                "trusted_sources.".format(self.spec.policy, source, port),
            )

    def _changed_files(self):
        """Return path to (text or None, mode) of the files that are not as they should be."""
        wanted = self._wanted_files()
        return {path: wanted[path] for path in differing(wanted, self._host.read, self._host.mode)}

    def _wanted_files(self):
        self._rules_files = ()
        try:
            layout = layout_of(self._host.read("/etc/os-release"))
        except HostError:
            if self.keeps:
                raise
            return dict(self.doorman.files)
        self._rules_files = tuple(layout.rules.values())
        spec = self.spec if self.keeps else None
        files = wanted_files(spec, self._owns if spec else {}, layout, self._host.read)
        if spec is None or self._host.recent_is_module():
            files[MODPROBE] = (modprobe_text(spec) if spec else None, 0o644)
        files.update(self.doorman.files)
        if spec is None:
            modes = self._state.get("modes", {})
            return {path: (text, modes.get(path, mode)) for path, (text, mode) in files.items()}
        return files

    # Changing

    def forget_connection(self):
        """Take whoever runs this off the list of its door.

        It may be there from a knock with the steps before, and then a new connection would get in without the new
        knock, and prove nothing about it. Sessions that run live on.
        """
        words = self._host.ssh_connection()
        name = self.door or self.proof_door
        if name and words:
            source = address_of(words[0])
            lists = Lists(family_of(source), self.spec.ipv6_prefix)
            self._host.forget(lists.door(self._door(name)), network_of(source, self.spec.ipv6_prefix))

    def proof(self):
        """Return what the knock must have done that is to prove knockd, as a Record has it; empty where it need not."""
        if not self.proof_door:
            return {}
        names = {
            family: Lists(family, self.spec.ipv6_prefix).door(self._door(self.proof_door)) for family in self.families
        }
        return dict(names, door=self.proof_door, ipv6_prefix=self.spec.ipv6_prefix)

    def _door(self, name):
        return next(door for door in self.spec.doors if door.name == name)

    def before(self):
        """Return path to (text or None, mode) of the files that this run may change, as they are now."""
        paths = set(self.files) | {STATE_FILE}
        return {path: (self._host.read(path) or None, self._host.mode(path)) for path in paths}

    def load(self):
        """Load the ruleset; the module's options come first, because they count when the module is loaded.

        :returns: family to Loaded, for the families that were changed.
        :raises HostError: with what failed; the ruleset is then as it was.
        """
        self._host.replace_files({path: self.files[path] for path in self.files if path == MODPROBE})
        loaded = apply_plans(self._iptables, self.plans, self._plan)
        if not self.absent:
            self._host.hide_lists()
        return loaded

    def keeping(self, loaded):
        """Return the Keeping: what is left to do once the ruleset is to stay.

        :param loaded: what load() returned.
        """
        files = {path: self.files[path] for path in self.files if path != MODPROBE}
        previous = tuple(path for path in files if self.keeps and path in self._rules_files)
        state = self._next_state(files, {family: one.plan for family, one in loaded.items()})
        if state != self._state and not self.absent:
            files[STATE_FILE] = (json.dumps(state, sort_keys=True) + "\n" if state else None, 0o600)
        unit = DISABLE if not self.keeps else ENABLE if self.unit_due else ""
        return Keeping(files, previous, unit, self.absent, self.doorman.verb())

    def apply(self):
        """Do what was planned, without a guard.

        :raises HostError: with what failed; ruleset and files are then as they were.
        """
        before = self.before()
        loaded = {}
        try:
            loaded = self.load()
            self.doorman.load()
            finish(self._host, stage(self._host, self.keeping(loaded)))
        except HostError as error:
            undone = [plan for plan in self.plans if plan.family in loaded]
            said = undo_plans(self._iptables, undone) if undone else ""
            raise HostError(" ".join((str(error), said, self._put_back(before), self._call_back())).strip()) from error

    def _put_back(self, before):
        """Put the files back as they were, and say if that cannot be done."""
        changed = {
            path: kept
            for path, kept in before.items()
            if ((self._host.read(path) or None), self._host.mode(path)) != kept
        }
        try:
            self._host.replace_files(changed)
        except HostError as error:
            return "Putting the files back failed too: {0}".format(error)
        return ""

    def _call_back(self):
        """Have knockd as it was, and say if that cannot be done."""
        try:
            if self.doorman.due:
                put_back(self._host, self.doorman.was)
        except HostError as error:
            return "knockd could not be put back as it was: {0}".format(error)
        return ""

    def _next_state(self, files, after):
        """Return what is to be remembered: spellings that are not ours, and modes of files before we came."""
        state = {key: dict(value) for key, value in self._state.items()}
        for family, plan in after.items():
            state.setdefault("spelling", {}).pop(family, None)
            if plan.change:
                state["spelling"][family] = _digest(plan)
        for path, (text, mode) in files.items():
            before = self._host.mode(path)
            if self.keeps and text is not None and before not in (None, mode):
                state.setdefault("modes", {}).setdefault(path, before)
        return {key: value for key, value in state.items() if value}

    # Telling

    def findings(self):
        """Return all findings, as dictionaries."""
        if self.absent:
            return []
        found = spec_findings(self.spec) + [finding for plan in self.plans for finding in plan.findings]
        found += self.doorman.findings()
        found += [_open_family(family) for family in self._host.families() if family not in self.families]
        found += [_saves_by_itself(path, name) for path, name in self._saving_services()]
        size = self._host.list_size()
        if size is not None and size < self.spec.list_size:
            found.append(
                Finding(
                    "list_size", "", "",
                    "list_size: the running kernel remembers {0} sources per list, {1} were asked for; that many forged packets push "
                    "a real knock out. {2}".format(size, self.spec.list_size, self._size_advice()),
                )
            )  # fmt: skip
        return [finding._asdict() for finding in found]

    def _saving_services(self):
        """Return path and setting of what makes the distribution's service dump the kernel's rules to its file."""
        return [
            (path, name)
            for path in SERVICE_CONFIGS
            for name in re.findall(
                r"^\s*(IP6?TABLES_SAVE_ON_(?:STOP|RESTART))=[\"']?yes\b", self._host.read(path), re.M
            )
        ]

    def _size_advice(self):
        if self._host.recent_is_module():
            return "It will take effect when the module is loaded next, at the latest with the next boot."
        return "xt_recent is built into this kernel: put xt_recent.ip_list_tot={0} on its command line.".format(
            self.spec.list_size
        )

    def _read_diff(self):
        """Return what a person reads: rules and files before and after, without knock ports."""
        parts = []
        for plan in self.plans:
            if plan.change:
                before, after = shortened(plan.before(), plan.after())
                header = "{0} ruleset in the kernel".format(plan.family)
                parts.append(dict(before_header=header, after_header=header, before=before, after=after))
        for path, (text, mode) in sorted(self.files.items()):
            shown = readable_config if path == CONFIG else readable_file
            before, after = shortened(shown(self._host.read(path)), shown(text or ""))
            note = "" if text is None else " (mode {0:04o})".format(mode)
            parts.append(dict(before_header=path, after_header=path + note, before=before, after=after))
        return parts

    def result(self):
        """Return the module's result."""
        return dict(
            changed=self.changed,
            findings=self.findings(),
            ip_versions=list(self.families),
            backend=self.backend,
            engine="" if self.absent else self.spec.engine,
            diff=self._diff,
        )


def _managed(spec, present):
    families = tuple(family for family in FAMILIES if family in spec.ip_versions and family in present)
    if not families:
        raise SpecError(
            "ip_versions", "names only {0}, which this host does not speak.".format(", ".join(spec.ip_versions))
        )
    return families


def _open_family(family):
    message = (
        "ip_versions: this host speaks {0} too, and there the doors' ports are as open as before. Add {1}.".format(
            "IPv4" if family == IPV4 else "IPv6", family
        )
    )
    return Finding("family_open", family, "", message)


def _saves_by_itself(path, name):
    message = (
        "{0} in {1}: stopping or restarting the service writes whatever is in the kernel to the rules file, a change that nobody "
        "has confirmed yet as well, and rules of programs that come and go. Set it to no."
    )
    return Finding("saves_on_stop", "", "", message.format(name, path))


def _digest(plan):
    texts = [text for name in sorted(plan.now.chains) for text in plan.now.chains[name]] + [
        hook.text for hook in plan.now.hooks
    ]
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


__all__ = ("Job",)
