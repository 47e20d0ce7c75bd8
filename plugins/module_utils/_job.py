# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What knock_ruleset does, in order: read, plan, and where something is to do, apply and keep."""

import hashlib
import ipaddress
import json

from ansible_collections.sesame.portknock.plugins.module_utils._change import apply_plans, undo_plans
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._findings import Finding, spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._iptables import NFT, Iptables
from ansible_collections.sesame.portknock.plugins.module_utils._keep import (
    DIRECTORY,
    MODPROBE,
    STATE_FILE,
    layout_of,
    modprobe_text,
    wanted_files,
)
from ansible_collections.sesame.portknock.plugins.module_utils._place import lets_in
from ansible_collections.sesame.portknock.plugins.module_utils._plan import plan_family, readable_file, shortened
from ansible_collections.sesame.portknock.plugins.module_utils._rules import TAIL, own_rules
from ansible_collections.sesame.portknock.plugins.module_utils._spec import FAMILIES, IPV4, family_of, spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._state import place_of, same_ids


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
        self._saves = {family: self._save(family) for family in self._present()}
        self.backend = self._backend()
        self._state = json.loads(host.read(STATE_FILE) or "{}")
        self.plans = [self._known_spelling(self._plan(family, save)) for family, save in self._saves.items()]
        self._check_connection()
        self.files = self._changed_files()
        self.unit_due = self.keeps and (bool(self.files) or not host.unit_ready())
        self._diff = self._read_diff() if with_diff else []
        self.changed = any(plan.change for plan in self.plans) or bool(self.files) or self.unit_due

    # Reading and planning

    def _present(self):
        return [family for family in self._host.families() if self._iptables.installed(family) or not self.installed]

    def _save(self, family):
        return self._iptables.save(family) if self.installed else ""

    def _wanted_spec(self, family):
        return self.spec if family in self.families and not self.absent else None

    def _plan(self, family, text):
        return plan_family(text, self._wanted_spec(family), family, self._owns.get(family))

    def _backend(self):
        if not self.installed:
            return NFT
        backend = self._iptables.backend(self._saves[IPV4])
        if not self.absent:
            for family in self._saves:
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
        words = self._host.ssh_connection()
        if self.absent or not words or len(words) != 4:
            return
        source = ipaddress.ip_address(words[0].split("%", 1)[0])
        for plan in self.plans:
            if plan.family == family_of(source) and plan.family in self.families:
                self._check_lets_in(plan, int(words[3]), source)

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
        return {
            path: (text, mode)
            for path, (text, mode) in wanted.items()
            if (self._host.read(path) or None) != text or (text is not None and self._host.mode(path) != mode)
        }

    def _wanted_files(self):
        try:
            layout = layout_of(self._host.read("/etc/os-release"))
        except HostError:
            if self.keeps:
                raise
            return {}
        spec = self.spec if self.keeps else None
        files = wanted_files(spec, self._owns if spec else {}, layout, self._host.read)
        if spec is None or self._host.recent_is_module():
            files[MODPROBE] = (modprobe_text(spec) if spec else None, 0o644)
        if spec is None:
            modes = self._state.get("modes", {})
            return {path: (text, modes.get(path, mode)) for path, (text, mode) in files.items()}
        return files

    # Changing

    def apply(self):
        """Do what was planned: modprobe options, then the ruleset, then what is kept over a reboot.

        :raises HostError: with what failed; the ruleset is then as it was.
        """
        before = {path: (self._host.read(path) or None, self._host.mode(path)) for path in self.files}
        self._host.replace_files({path: self.files[path] for path in self.files if path == MODPROBE})
        loaded = []
        try:
            after = apply_plans(self._iptables, self.plans, self._plan)
            loaded = [plan for plan in self.plans if plan.change]
            self._keep({path: self.files[path] for path in self.files if path != MODPROBE}, after)
        except HostError as error:
            said = undo_plans(self._iptables, loaded) if loaded else ""
            raise HostError(" ".join((str(error), said, self._put_back(before))).strip()) from error
        if not self.absent:
            self._host.hide_lists()

    def _put_back(self, before):
        """Put the files back as they were, and say if that cannot be done."""
        try:
            self._host.replace_files(before)
        except HostError as error:
            return "Putting the files back failed too: {0}".format(error)
        return ""

    def _keep(self, files, after):
        if not self.keeps:
            self._host.disable_unit()
        state = self._next_state(files, after)
        if state != self._state and not self.absent:
            files = dict(files)
            files[STATE_FILE] = (json.dumps(state, sort_keys=True) + "\n" if state else None, 0o600)
        self._host.replace_files(files)
        if self.unit_due:
            self._host.enable_unit()
        elif not self.keeps and files:
            self._host.reload_units()
        if self.absent:
            self._host.remove_directory(DIRECTORY)

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
        found += [_open_family(family) for family in self._host.families() if family not in self.families]
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
            before, after = shortened(readable_file(self._host.read(path)), readable_file(text or ""))
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


def _digest(plan):
    texts = [text for name in sorted(plan.now.chains) for text in plan.now.chains[name]] + [
        hook.text for hook in plan.now.hooks
    ]
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


__all__ = ("Job",)
