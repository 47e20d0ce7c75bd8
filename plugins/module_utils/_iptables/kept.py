# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept of a ruleset over a reboot: which files, judged before anything is changed, and what to say of them. Pure."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._boot.loaders import (
    drop_ins,
    loader_findings,
    loaders_in_use,
)
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    Files,
    Finding,
    Wanted,
    differing,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot import fallback_text
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot_check import (
    BootFile,
    check_boot,
    check_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.only_at_boot import only_at_boot
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import (
    layout_of,
    list_size_finding,
    modprobe_text,
    saving_services,
    wanted_files,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    IPTABLES_SERVICE_CONFIGS,
    MODPROBE,
    OS_RELEASE,
    RULES_FILES,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables


class Kept(NamedTuple):
    """What is kept."""

    files: Files
    """Every file as it should be."""
    rules_files: Dict[str, str]
    """IP version to the distribution's own rules file, whether it is kept or not."""
    loaders: Tuple[str, ...]
    """Other firewalls in use that load a whole ruleset."""


def plan_kept(host: Any, wanted: Wanted, owns: Mapping[str, BuiltRules]) -> Kept:
    """Return what is to be kept.

    :param host: a Host.
    :param owns: IP version to the rules that are to be there.
    :raises PortknockError: if something is to be kept, and it is not known how, or a file is no text for iptables-restore.
    """
    read = host.filesystem.read
    spec = wanted.spec if wanted.persist else None
    loaders = loaders_in_use(host) if wanted.spec is not None else ()
    try:
        layout = layout_of(read(OS_RELEASE))
    except HostError:
        if spec is not None:
            raise
        return Kept({}, {}, loaders)
    for path in layout.rules.values() if spec else ():
        check_text(path, read(path))
    files = wanted_files(spec, owns if spec else {}, layout, read)
    if spec is None or host.kernel.is_module("xt_recent"):
        files[MODPROBE] = (modprobe_text(spec) if spec else None, 0o644)
    files.update(drop_ins(loaders if spec else ()))
    return Kept(files, dict(layout.rules), loaders)


def check_kept(
    host: Any, iptables: Iptables, wanted: Wanted, owns: Mapping[str, BuiltRules], kept: Kept, loads: bool
) -> None:
    """Refuse what a boot would load if this connection would not get in under it.

    :param host: a Host.
    :param loads: whether what is running changes.
    :raises SpecError: for the first file that a boot must not load.
    """
    filesystem, checked = host.filesystem, []
    for family, path in kept.rules_files.items():
        managed = family in wanted.families
        text = (kept.files[path][0] if path in kept.files else filesystem.read(path)) or ""
        # One service loads both files on Debian, so that which is not managed counts as well.
        if text and iptables.installed(family) and (managed or path in RULES_FILES["debian"].values()):
            checked.append(BootFile(path, family, text, wanted.spec if managed else None))
    changes = loads or bool(differing(kept.files, filesystem.read, filesystem.mode))

    def test(family: str, text: str, flush: bool = True) -> None:
        # Not in check mode: the legacy commands load the kernel's tables for it.
        if changes and not wanted.may_lack:
            iptables.restore(family, text, test=True, flush=flush)

    # Chain DOCKER-USER may not be there yet; our script makes it.
    ours = {family: fallback_text(built._replace(forward=())) for family, built in owns.items()}
    check_boot(checked, wanted.connection, test, ours)


def boot_texts(host: Any, wanted: Wanted, kept: Kept) -> Dict[str, Tuple[str, str]]:
    """Return IP version to path and text of the file that a boot will load our rules with, where it will.

    :param host: a Host.
    """
    if wanted.spec is None or not wanted.persist:
        return {}
    paths = {family: path for family, path in kept.rules_files.items() if family in wanted.families}
    texts = {
        path: (kept.files[path][0] if path in kept.files else host.filesystem.read(path)) or ""
        for path in paths.values()
    }
    return {family: (path, texts[path]) for family, path in paths.items() if texts[path]}


def kept_findings(host: Any, wanted: Wanted, plans: Sequence[Plan], kept: Kept) -> List[Finding]:
    """Return what an operator should know of what outlives a reboot, and of what the kernel remembers.

    :param host: a Host.
    :param plans: the plan of each IP version.
    """
    found: List[Finding] = []
    read = host.filesystem.read
    for plan in plans if wanted.persist else ():
        path = kept.rules_files.get(plan.family, "")
        found += only_at_boot(path, read(path) if path else "", plan.family, plan.document, wanted.spec)
    return found + standing_findings(host, wanted, kept.loaders)


def standing_findings(host: Any, wanted: Wanted, loaders: Sequence[str]) -> List[Finding]:
    """Return what the options and the host alone give reason to say, whatever the rules are.

    :param host: a Host.
    :param loaders: other firewalls in use.
    """
    read, kernel = host.filesystem.read, host.kernel
    found = saving_services({path: read(path) for path in IPTABLES_SERVICE_CONFIGS})
    found += list_size_finding(
        wanted.spec.list_size, kernel.parameter("xt_recent", "ip_list_tot"), kernel.is_module("xt_recent")
    )
    return found + loader_findings(loaders, wanted.persist)


__all__ = ("Kept", "boot_texts", "check_kept", "kept_findings", "plan_kept", "standing_findings")
