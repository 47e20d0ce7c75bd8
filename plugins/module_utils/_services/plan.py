# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which services of a host must change with its ruleset: other firewalls off, what loads the rules at boot on. Pure."""

import re
from typing import List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import (
    FAIL,
    NFTABLES,
    UFW,
    firewalls_in_use,
    is_ufw_on,
    refusal,
)
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import UnitState

OTHERS = ("firewalld", "nftables", "ufw")
"""Services of other firewalls."""


class Facts(NamedTuple):
    """What the decision depends on."""

    systemd: bool
    """Whether systemd runs the services."""
    states: Mapping[str, UnitState]
    """Service, without the suffix, to its state."""
    ufw_config: str
    """The text of UFW_CONFIG."""
    live_rules: bool
    """Whether a rule of iptables is loaded; asked only where nftables.service runs and is to stop."""
    loaders: Tuple[str, ...]
    """The services that load the rules at boot, of the IP versions that are managed; none where nothing is kept."""
    uses_iptables: bool = True
    """Whether the doors are in iptables."""


class Todo(NamedTuple):
    """What is to be done; services without the suffix."""

    stop: List[str]
    """Services of other firewalls to be stopped."""
    disable: List[str]
    """Those to be no longer started at boot."""
    enable: List[str]
    """Services to be started at boot; none is started now, as a start loads a rules file in the place of the live rules."""
    ufw_config: str
    """The text that UFW_CONFIG is to have, '' where it stays."""
    findings: List[Finding]
    """What an operator should know."""


def plan_services(facts: Facts, conflicting: str, may_lack: bool) -> Todo:
    """Return what is to be done.

    :param conflicting: what to do about another firewall, FAIL or DISABLE.
    :param may_lack: whether packages may still be missing (check mode).
    :raises SpecError: if another firewall is in use, and is not to be switched off or cannot be.
    """
    used = {name for name in OTHERS if facts.states[name].active or facts.states[name].enabled}
    ufw_on = is_ufw_on(facts.ufw_config)
    found = firewalls_in_use(used, ufw_on, facts.uses_iptables)
    if found and conflicting == FAIL:
        raise SpecError("conflicting_firewall", refusal(found))
    if found and not facts.systemd:
        raise SpecError(
            "conflicting_firewall",
            f"{' and '.join(found)} cannot be switched off here, because systemd does not run on this host. Nothing was changed. "
            "Switch it off by hand, then run this again.",
        )
    # Stopping nftables.service runs "nft flush ruleset": everybody's rules go.
    stop = [name for name in found if facts.states[name].active and (name != NFTABLES or not facts.live_rules)]
    disable = [name for name in found if name != UFW and facts.states[name].enabled]
    config = re.sub(r"(?im)^ENABLED=.*$", "ENABLED=no", facts.ufw_config) if ufw_on else ""
    enable = [name for name in facts.loaders if _can_be_enabled(facts.states[name], may_lack)]
    findings = _not_stopped(found, stop, facts) + not_loaded(facts, may_lack)
    return Todo(stop, disable, enable, config, findings)


def _can_be_enabled(state: UnitState, may_lack: bool) -> bool:
    return not state.enabled and not state.masked and (state.present or may_lack)


def _not_stopped(found: Sequence[str], stop: Sequence[str], facts: Facts) -> List[Finding]:
    if NFTABLES not in found or NFTABLES in stop or not facts.states[NFTABLES].active:
        return []
    message = (
        "nftables.service is disabled, but it was not stopped: stopping it flushes all rules of the host, those of iptables too, "
        "and there are such rules. Its own tables stay loaded until the next boot. They may refuse more than the doors do, but "
        "nothing in them can open a door."
    )
    return [Finding("native_table", "", "", message)]


def not_loaded(facts: Facts, may_lack: bool = False) -> List[Finding]:
    """Return a Finding for the services that no boot will start, and that a run cannot have it start."""
    states = {name: facts.states[name] for name in facts.loaders}
    lost = [name for name, state in states.items() if not state.enabled and not _can_be_enabled(state, may_lack)]
    if not lost:
        return []
    names = ", ".join(f"{name}.service" for name in lost)
    if not facts.systemd:
        what = f"systemd does not run on this host, so {names} cannot be enabled here, and nothing may load the rules after a reboot"
        advice = "See to it that the system's own means load them."
    elif all(facts.states[name].masked for name in lost):
        what = f"{names} is masked, so nothing loads the rules after a reboot"
        advice = f"Run systemctl unmask {names}, then this again."
    else:
        what = f"{names} is not installed, so nothing loads the rules after a reboot"
        advice = "Install it; the role does that (tag portknock_install)."
    message = f"persist: {what}. {advice} If that is intended, set persist to false."
    return [Finding("not_loaded_at_boot", "", "", message)]


__all__ = ("OTHERS", "Facts", "Todo", "not_loaded", "plan_services")
