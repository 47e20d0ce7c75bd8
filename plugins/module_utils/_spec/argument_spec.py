# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of knock_ruleset, as an argument spec; the role's argument_specs say the same."""

from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import (
    DEFAULTS,
    ENGINES,
    FAMILIES,
    POLICIES,
    PUBLISHED,
    REJECT_WITH,
)


def _strings(**more: Any) -> Dict[str, Any]:
    return dict(type="list", elements="str", **more)


def argument_spec() -> Dict[str, Any]:
    """Return the argument spec of knock_ruleset.

    ``doors`` and ``allow`` are raw: core would print the values of one that has another shape, and they may be steps.
    spec_from_options() checks them. They are no_log, so they do not show in the journal either.
    """
    return dict(
        doors=dict(type="raw", default=DEFAULTS["doors"], no_log=True),
        policy=dict(type="str", choices=list(POLICIES), default=DEFAULTS["policy"]),
        reject_with=dict(type="str", choices=list(REJECT_WITH), default=DEFAULTS["reject_with"]),
        published=dict(type="str", choices=list(PUBLISHED), default=DEFAULTS["published"]),
        allow=dict(type="raw", default=DEFAULTS["allow"], no_log=True),
        trusted_sources=_strings(default=DEFAULTS["trusted_sources"]),
        trusted_interfaces=_strings(default=DEFAULTS["trusted_interfaces"]),
        icmp=dict(type="bool", default=DEFAULTS["icmp"]),
        ip_versions=_strings(choices=list(FAMILIES), default=DEFAULTS["ip_versions"]),
        ipv6_prefix=dict(type="int", default=DEFAULTS["ipv6_prefix"]),
        engine=dict(type="str", choices=list(ENGINES), default=DEFAULTS["engine"]),
        knockd_interface=dict(type="str", default=DEFAULTS["knockd_interface"]),
        list_size=dict(type="int", default=DEFAULTS["list_size"]),
        log=dict(type="bool", default=DEFAULTS["log"]),
        persist=dict(type="bool", default=DEFAULTS["persist"]),
        conflicting_firewall=dict(type="str", choices=["fail", "disable"], default=DEFAULTS["conflicting_firewall"]),
        guard=dict(type="bool", default=DEFAULTS["guard"]),
        guard_timeout=dict(type="int", default=DEFAULTS["guard_timeout"]),
        prove=dict(type="bool", default=DEFAULTS["prove"]),
        acknowledge=_strings(default=DEFAULTS["acknowledge"]),
        metrics_directory=dict(type="str", default=DEFAULTS["metrics_directory"]),
        guard_id=dict(type="str", default=""),
        guard_owner=dict(type="str", default=""),
        state=dict(type="str", choices=["present", "absent"], default=DEFAULTS["state"]),
    )


__all__ = ("argument_spec",)
