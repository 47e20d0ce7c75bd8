#!/bin/sh
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Prints which of the hosts the user's own ssh configuration reaches through another host or program: one host a line.
# Usage: client-jumps.sh CONFIGURATION OUR_CONFIGURATION HOST...
# What this playbook wrote is left out of it, or the answer would be what it wrote the last time.

config=$1 ours=$2
shift 2
plain=$(mktemp) || exit 1
trap 'rm -f "$plain"' EXIT

# Our file as it may be named in an Include: its last two parts.
tail=$(basename "$(dirname "$ours")")/$(basename "$ours")
if [ -r "$config" ]; then
    awk -v tail="$tail" '
        tolower($1) != "include" { print; next }
        {
            line = kept = $1
            rest = substr($0, index($0, $1) + length($1))
            while (match(rest, /"[^"]*"|[^ \t"]+/)) {
                word = substr(rest, RSTART, RLENGTH)
                rest = substr(rest, RSTART + RLENGTH)
                path = word
                gsub(/"/, "", path)
                at = length(path) - length(tail)
                if (at < 0 || substr(path, at + 1) != tail) kept = kept " " word
            }
            if (kept != line) print kept
        }' "$config" >"$plain"
fi
[ ! -r /etc/ssh/ssh_config ] || printf 'Match all\nInclude /etc/ssh/ssh_config\n' >>"$plain"

for host; do
    ssh -G -F "$plain" -- "$host" 2>/dev/null |
        grep -i '^proxy\(jump\|command\) ' | grep -vi '^[a-z]* none$' | grep -qv portknock-connect && echo "$host"
done
exit 0
