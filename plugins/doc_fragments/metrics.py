# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option for metrics of the host."""

from __future__ import annotations


class ModuleDocFragment:
    """Where metrics are written."""

    DOCUMENTATION = r"""
options:
  metrics_directory:
    description:
      - A directory of the host, in which a timer of systemd writes the file C(portknock.prom) each minute, for the textfile collector
        of Prometheus' node_exporter - doors open, knocks, refusals, wrong knocks, drift, pending changes, and how full the lists are.
      - It must exist. If empty, nothing is written.
    type: str
    default: ""
"""
