# Sourced by the demo: telling what goes on, and talking to the guest.
# shellcheck shell=bash

step_number=0

# step TITLE FUNCTION: runs one step under a numbered title, with its time.
step() {
    local began=$SECONDS
    step_number=$((step_number + 1))
    current_step=$1
    printf '\n[%d/%d] %s\n' "$step_number" "$steps" "$1"
    "$2"
    [ $((SECONDS - began)) -lt 10 ] || say "($((SECONDS - began)) s)"
}

say() { echo "      $*"; }

# die MESSAGE [LOG...]: the end, with the last lines of the logs that tell why.
die() {
    local log
    {
        printf '\nThe demo failed at "%s": %s\n' "${current_step:-start}" "$1"
        shift
        for log in "$@"; do
            [ -s "$log" ] || continue
            printf '\nthe end of %s:\n' "$log"
            tail -n 12 "$log" | sed 's/\r//g; s/^/    /'
        done
    } >&2
    exit 1
}

now_ms() { date +%s%3N; }
seconds() { awk -v ms="$1" 'BEGIN { printf "%.1f s", ms / 1000 }'; }
mib() { awk -v bytes="$1" 'BEGIN { printf "%.0f MiB", bytes / 1048576 }'; }
# rate BYTES MS
rate() { awk -v bytes="$1" -v ms="$2" 'BEGIN { printf "%.0f MiB/s", bytes / 1048.576 / (ms ? ms : 1) }'; }
quotient() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", b ? a / b : 0 }'; }
# Bytes that a file or directory takes on the disk.
used_bytes() { du -s -B1 "$1" | cut -f1; }

# The guest's second serial port is the pair of file descriptors 3 (to it) and 4 (from it);
# what is spoken there is described in rootfs/usr/local/sbin/firn-agent.
guest_id=0
guest_said=

# await_guest PREFIX SECONDS: waits for a line that begins so, and leaves it in guest_line.
# The lines before it are left in guest_said.
await_guest() {
    local deadline=$((SECONDS + $2)) part='' piece status
    guest_said=
    while [ "$SECONDS" -lt "$deadline" ]; do
        # A timeout leaves what has come of the line so far in "piece".
        status=0
        IFS= read -r -t 1 -u 4 piece || status=$?
        part+=$piece
        if [ "$status" != 0 ]; then
            kill -0 "$qemu_pid" 2>/dev/null || return 1
            continue
        fi
        guest_line=${part%$'\r'} part=
        [[ "$guest_line" == "$1"* ]] && return 0
        [ -z "$guest_line" ] || [[ "$guest_line" == "@begin "* ]] || guest_said+="${guest_said:+$'\n'}$guest_line"
    done
    return 1
}

# in_guest SECONDS COMMAND: runs a command line in the guest; what it prints is left in guest_said.
in_guest() {
    guest_id=$((guest_id + 1))
    printf '%s %s\n' "$guest_id" "$2" >&3
    await_guest "@end $guest_id " "$1" || die "the guest did not finish within $1 s: $2" "$work/console.log" "$work/backend.log" "$work/qemu.log"
    local code=${guest_line##* }
    [ "$code" = 0 ] || die "in the guest, exit code $code of: $2
$guest_said" "$work/console.log" "$work/backend.log"
}

# A command line that prints how many milliseconds another one takes.
timed() { echo "began=\$(date +%s%3N); $1 || exit 1; echo \$((\$(date +%s%3N) - began))"; }
