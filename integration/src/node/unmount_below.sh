# Unmounts everything that is mounted below folders, also what was mounted over since, and so cannot be reached yet.
#
#   sh unmount_below.sh FOLDER...
set -eu

# The mounts below the folders, the innermost first, as mountinfo writes them: a blank is \040.
mounts() {
    cut -d' ' -f5 /proc/self/mountinfo | sort -r | while read -r mount; do
        for folder; do
            case $mount in "$folder"/*) echo "$mount" ;; esac
        done
    done
}

left=$(mounts "$@")
while [ -n "$left" ]; do
    # Those that are covered fail until what covers them is gone.
    echo "$left" | while read -r mount; do
        umount --lazy "$(printf %b "$mount")" 2>/dev/null || true
    done
    before=$left left=$(mounts "$@")
    if [ "$left" = "$before" ]; then
        echo "unmount_below.sh: these stay mounted: $left" >&2
        exit 1
    fi
done
