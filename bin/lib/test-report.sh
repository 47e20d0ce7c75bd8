# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Running checks and reporting them, for bin/test.
# A check is a command with a log of its own; its result is one line in $RESULTS, so that checks
# in the background can report too.
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }

start_report() {
    # $1: the folder for the logs
    LOGS=$1
    RESULTS=$CACHE/results
    rm -rf "$LOGS" "$RESULTS"
    mkdir -p "$LOGS" "$RESULTS"
    CHECKS=0
    RUNNING=0
    WARNINGS=()
}

# Something that was left out stands in the summary, however well the rest went.
warn() {
    WARNINGS+=("$*")
    say "!!! $*"
}

record() {
    # $1 number  $2 stage  $3 name  $4 passed or failed  $5 seconds  $6 note
    printf '%s\t%s\t%s\t%s\t%s\n' "$2" "$3" "$4" "$5" "$6" >"$RESULTS/$(printf '%04d' "$1")"
}

log_of() {
    local name=$2
    name=${name//[^A-Za-z0-9._-]/-}
    printf '%s/%s-%s.log' "$LOGS" "$1" "$name"
}

# Test runners close with a line that counts; it says more than "passed".
note_from_log() {
    grep -aoE '[0-9]+ (passed|failed)[^=]*' "$1" | tail -n 1 | tr '\t' ' ' | cut -c 1-60
}

show_failure() {
    # The bar keeps a test runner's closing line in here from being read as ours.
    say "--- $1: the last lines of $2"
    tail -n 40 "$2" | sed 's/^/    | /'
    say "--- end of $1"
}

run_check() {
    # $1 number  $2 stage  $3 name  $4... command or function
    local number=$1 stage=$2 name=$3 log begun=$SECONDS code
    shift 3
    log=$(log_of "$stage" "$name")
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null 9>&-
    code=$?
    if ((code == 0)); then
        record "$number" "$stage" "$name" passed $((SECONDS - begun)) "$(note_from_log "$log")"
        say "  ok      $stage: $name ($((SECONDS - begun)) s)"
        return
    fi
    record "$number" "$stage" "$name" failed $((SECONDS - begun)) "exit code $code, see ${log#"$ROOT"/}"
    printf '%s\n' "  FAILED  $stage: $name ($((SECONDS - begun)) s)" \
        "$(show_failure "$stage: $name" "$log")"
}

check() {
    # $1 stage  $2 name  $3... command or function: runs it now
    CHECKS=$((CHECKS + 1))
    say "  ...     $1: $2"
    # Waiting for it, unlike running it, lets a signal through at once.
    run_check "$CHECKS" "$@" &
    wait $!
}

check_beside() {
    # As check, but beside at most one other check; wait_for_checks waits for the rest.
    if ((RUNNING >= 2)); then
        wait -n
        RUNNING=$((RUNNING - 1))
    fi
    CHECKS=$((CHECKS + 1))
    RUNNING=$((RUNNING + 1))
    say "  ...     $1: $2"
    run_check "$CHECKS" "$@" &
}

wait_for_checks() {
    wait
    RUNNING=0
}

fail_check() {
    # $1 stage  $2 name  $3 why: a check that could not even begin
    CHECKS=$((CHECKS + 1))
    record "$CHECKS" "$1" "$2" failed 0 "$3"
    say "  FAILED  $1: $2: $3"
}

count_results() { cat "$RESULTS"/* 2>/dev/null | cut -f 3 | grep -c "^$1\$"; }

print_summary() {
    # Every check that was begun must be counted: a lost result is a failure.
    local passed failed warning
    passed=$(count_results passed)
    failed=$((CHECKS - passed))
    say ""
    say "Summary (logs in ${LOGS#"$ROOT"/})"
    printf '  %-10s %-34s %-7s %6s  %s\n' stage check result seconds note
    cat "$RESULTS"/* 2>/dev/null | while IFS=$'\t' read -r stage name result seconds note; do
        printf '  %-10s %-34s %-7s %6s  %s\n' "$stage" "$name" "$result" "$seconds" "$note"
    done
    for warning in "${WARNINGS[@]}"; do
        say "  !!! NOT RUN: $warning"
    done
    say ""
    say "$passed passed, $failed failed"
    ((failed == 0 && passed > 0))
}
