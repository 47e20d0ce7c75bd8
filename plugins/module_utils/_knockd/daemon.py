# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""knockd on this host: which files it should have, whether it listens, and how it is started, kept and taken back.

A change begins with files in /run: a daemon that nobody has confirmed must not come back with the next boot. What is
kept lies in /etc, and the same daemon is started from there once it has been confirmed.
"""

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import RUN
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import DIRECTORY, differing
from ansible_collections.sesame.portknock.plugins.module_utils._knockd import config as _knockd
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import ADDRESSES_SERVICE, SERVICE

CONFIG = "{0}/{1}".format(DIRECTORY, _knockd.NAME)
PREFIX = "{0}/{1}".format(DIRECTORY, _knockd.PREFIX_NAME)
DROP_IN_DIRECTORY = "/etc/systemd/system/{0}.d".format(SERVICE)
DROP_IN = DROP_IN_DIRECTORY + "/portknock.conf"
ADDRESSES_UNIT = "/etc/systemd/system/" + ADDRESSES_SERVICE
ADDRESSES = "/usr/local/sbin/portknock-addresses"
KEPT = (CONFIG, PREFIX, DROP_IN, ADDRESSES_UNIT, ADDRESSES)

RUN_CONFIG = "{0}/{1}".format(RUN, _knockd.NAME)
RUN_PREFIX = "{0}/{1}".format(RUN, _knockd.PREFIX_NAME)
RUN_DROP_IN_DIRECTORY = "/run/systemd/system/{0}.d".format(SERVICE)
RUN_DROP_IN = RUN_DROP_IN_DIRECTORY + "/portknock.unconfirmed.conf"
"""By its name it comes after DROP_IN, and so does what it says."""
IN_RUN = (RUN_CONFIG, RUN_PREFIX, RUN_DROP_IN)

STOP = "stop"
KEEP, LEAVE, REMOVE = "keep", "leave", "remove"
_LISTEN_SECONDS = 5
_GONE = (None, 0o600)
"""Text and mode of a file that is not to be there."""


class Doorman:
    """What this run makes of knockd: everything is planned in the constructor."""

    def __init__(self, host, spec, families, keeps, may_lack=False):
        """Look at the host and plan.

        :param spec: a Spec, None where all of ours is to go.
        :param families: those that are managed.
        :param keeps: whether it is to be kept over a reboot.
        :param may_lack: plan for a host where knockd is still to be installed (check mode).
        :raises PortknockError: if it cannot run here; nothing was changed.
        """
        self._host, self._spec, self._families, self._keeps = host, spec, families, keeps
        self.wanted = _knockd.listens(spec)
        self.was = state_of(host, self.wanted)
        self.interface = self._choose_interface() if self.wanted else ""
        self._program = self._find_program(may_lack) if self.wanted else ""
        self.files = self._kept_files()
        self.due = self._is_due()

    def _choose_interface(self):
        host = self._host
        if not host.systemd_runs():
            raise HostError(
                "engine: knockd is run by systemd, which does not run on this host. Set engine to iptables. Nothing was changed."
            )
        return _knockd.choose_interface(
            self._spec.knockd_interface,
            host.interfaces(),
            _knockd.default_interfaces(host.read("/proc/net/route"), host.read("/proc/net/ipv6_route")),
            self._families,
        )

    def _find_program(self, may_lack):
        missing = [name for name in ("knockd", "ip") if not self._host.find(name)]
        if missing and not may_lack:
            raise HostError(
                "engine: {0} is not installed on this host. Install it first, the role does that: tag portknock_install. "
                "Nothing was changed.".format(" and ".join(missing))
            )
        if not self.was["ours"] and (self.was["runs"] or self.was["enabled"]):
            raise HostError(
                "engine: {0} already runs on this host, or is enabled, with doors of its own in /etc/knockd.conf, and it can run once "
                "only. Carry its doors over to doors, then: systemctl disable --now {0}. Nothing was changed.".format(
                    SERVICE
                )
            )
        program = self._host.find("knockd")
        if program and _knockd.is_too_old(self._host.run([program, "-V"], "")[1]):
            raise HostError(
                "engine: knockd on this host is older than 0.8: it knows no IPv6 and does not start with a configuration for both. Set "
                "engine to iptables, or install a newer one. Nothing was changed."
            )
        return program or "/usr/sbin/knockd"

    def _kept_files(self):
        """Return path to (text, mode) of what is kept over a reboot; text None where it is to go."""
        if not (self.wanted and self._keeps):
            return dict.fromkeys(KEPT, _GONE)
        files = self._files_in(DIRECTORY, DROP_IN, ADDRESSES)
        files[ADDRESSES_UNIT] = (_knockd.ADDRESSES_UNIT.format(ADDRESSES), 0o644)
        files[ADDRESSES] = (_knockd.ADDRESSES_SCRIPT, 0o755)
        return files

    def _unconfirmed_files(self):
        """Return path to (text, mode) of what knockd runs with until the change is confirmed."""
        return self._files_in(RUN, RUN_DROP_IN, "")

    def _files_in(self, directory, drop_in, noted):
        """Return path to (text, mode) of the configuration, what its commands call, and what starts knockd with it.

        :param noted: see _knockd.drop_in_text().
        """
        config = "{0}/{1}".format(directory, _knockd.NAME)
        text = _knockd.config_text(self._spec, self._families, self.interface, directory)
        helper = _knockd.PREFIX_SCRIPT if self._spec.ipv6_prefix != 128 else None
        return {
            config: (text, 0o600),
            "{0}/{1}".format(directory, _knockd.PREFIX_NAME): (helper, 0o600),
            drop_in: (_knockd.drop_in_text(self._program, config, noted), 0o644),
        }

    def _is_due(self):
        if not self.wanted:
            return self.was["ours"]
        if not self._keeps:
            return self._differs(self._unconfirmed_files()) or not is_listening(self._host, RUN_CONFIG)
        unconfirmed = self.was["run"][RUN_DROP_IN][0] is not None
        unready = unconfirmed or not self.was["enabled"] or self._differs(self.files)
        return unready or not is_listening(self._host, CONFIG)

    def _differs(self, files):
        return bool(differing(files, self._host.read, self._host.mode))

    def load(self):
        """Have knockd run, or not, as it is to be; nothing of it outlives a boot yet.

        :raises HostError: if it does not listen, or cannot be stopped.
        """
        if self.due and self.wanted:
            self._host.replace_files(self._unconfirmed_files())
            self._host.service("daemon-reload")
            restart(self._host, RUN_CONFIG)
        elif self.due:
            self._host.service(STOP, SERVICE)

    def verb(self):
        """Return what finish() is to do once the change is to stay: ``keep``, ``leave`` as it runs, ``remove``, or ''."""
        if not self.due:
            return ""
        if not self.wanted:
            return REMOVE
        return KEEP if self._keeps else LEAVE

    def hears(self, address):
        """Tell whether knockd hears knocks at an address of this host."""
        # Check mode may come before the packages.
        return not self._host.find("ip") or address.split("%", 1)[0] in self._host.addresses(self.interface)

    def findings(self):
        """Return what an operator should know, as Findings."""
        if not self.wanted:
            return []
        kind = self._host.read("/sys/class/net/{0}/type".format(self.interface))
        return _knockd.findings(self._spec, self._families, self.interface, kind)


def state_of(host, matters=True):
    """Return how knockd is on a host, as a dictionary that put_back() understands.

    ``ours``: whether files of ours are there; ``enabled``, ``runs``: the unit; ``run``: path to [text, mode] of its files in /run.

    :param matters: whether to ask systemd even where nothing of it is ours.
    """
    run = {path: [host.read(path) or None, host.mode(path)] for path in IN_RUN}
    ours = any(host.mode(path) is not None for path in (DROP_IN, RUN_DROP_IN, CONFIG))
    runs = (ours or matters) and host.running(SERVICE) is not None
    return dict(enabled=host.is_enabled(SERVICE), runs=runs, ours=ours, run=run)


def config_of(host):
    """Return the configuration that knockd runs with, or will after the next boot; '' where there is none of ours."""
    return host.read(RUN_CONFIG if host.mode(RUN_DROP_IN) is not None else CONFIG)


def is_listening(host, config=""):
    """Tell whether knockd runs and captures packets.

    :param config: the configuration that it must run with, if it matters: there may be drop-ins of somebody else.
    """
    pid = host.running(SERVICE)
    return host.captures_packets(pid) and (not config or config in host.words_of(pid))


def restart(host, config):
    """Start knockd anew, and wait until it listens.

    :param config: the configuration that it must run with.
    :raises HostError: if it does not.
    """
    host.service("reset-failed", SERVICE, must=False)
    host.service("restart", SERVICE)
    end = host.monotonic() + _LISTEN_SECONDS
    while not is_listening(host, config):
        if host.monotonic() >= end:
            raise HostError(
                "engine: {0} s after its start knockd does not listen, with {1}. 'journalctl -u knockd' on the host tells why, "
                "or 'systemctl cat knockd', if something there overrides how it is started.".format(
                    _LISTEN_SECONDS, config
                )
            )
        host.sleep(0.02)


def finish(host, verb):
    """Do what is left for knockd once the files of a change are in place; may be done again from the start.

    :param verb: what Doorman.verb() returned.
    :raises HostError: if that cannot be done.
    """
    if verb == KEEP:
        _forget_run(host, dict.fromkeys(IN_RUN, _GONE))
        host.enable(SERVICE)
        restart(host, CONFIG)
    elif verb:
        if verb == REMOVE:
            _forget_run(host, dict.fromkeys(IN_RUN, _GONE))
        host.disable(SERVICE)
        host.remove_empty(DROP_IN_DIRECTORY)
        host.service("daemon-reload")
        host.service("reset-failed", SERVICE, must=False)


def _forget_run(host, files):
    host.replace_files(files)
    host.remove_empty(RUN_DROP_IN_DIRECTORY)
    host.service("daemon-reload")


def put_back(host, was):
    """Have knockd as it was before a change that did not stay; its files in /etc are in place.

    :param was: what state_of() returned then.
    :raises HostError: if that cannot be done. A knockd that does not listen is not such a case: it was started, systemd goes
        on trying, and a rollback that never ends would help nobody.
    """
    host.remove_empty(DROP_IN_DIRECTORY)
    _forget_run(host, was["run"])
    if was["enabled"]:
        host.enable(SERVICE)
    else:
        host.disable(SERVICE)
    if was["runs"]:
        host.service("reset-failed", SERVICE, must=False)
        host.service("restart", SERVICE)
    elif host.running(SERVICE) is not None:
        host.service(STOP, SERVICE)


__all__ = (
    "CONFIG",
    "KEEP",
    "KEPT",
    "LEAVE",
    "Doorman",
    "config_of",
    "finish",
    "is_listening",
    "put_back",
    "restart",
    "state_of",
)
