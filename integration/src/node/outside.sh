# The outside of a private node. Lives as long as somebody holds its standard input open, however that process
# ends; then everything of the node ends, and what processes leave behind is removed: control groups, files.
#
#   sh outside.sh FOLDER INSIDE NEEDED...      FOLDER is the node's, removed at the end; INSIDE is inside.sh; what is in
#                                              the folders NEEDED stays to be reached in the node
#
# Prints "ready PID" when the namespaces are made; PID is the inside's first process.
set -u
folder=$1 inside=$2 name=debuglet-${1##*/}
shift 2

# A terminal's signals end the test; the end of the test ends the node.
trap '' HUP INT TERM QUIT

# One control group per hierarchy (v1), or one in all (v2); `joined` are those that processes go to.
groups= joined=
while IFS=: read -r _ controllers path; do
    if [ -n "$controllers" ]; then
        parent=/sys/fs/cgroup/${controllers#name=}${path%/}
        [ -d "$parent" ] || continue
        mkdir "$parent/$name"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$parent/$file" ] || cat "$parent/$file" >"$parent/$name/$file"
        done
        groups="$groups $parent/$name" joined="$joined $parent/$name"
    elif [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        mkdir -p "/sys/fs/cgroup/$name/processes"
        groups="$groups /sys/fs/cgroup/$name" joined="$joined /sys/fs/cgroup/$name/processes"
    fi
done </proc/self/cgroup
echo "$joined" >"$folder/cgroups"

exec 3<&0
sh -c '
    # Where the control group namespace begins is where its first process is.
    for group in $1; do echo $$ >"$group/cgroup.procs"; done
    shift
    exec unshare --pid --fork --kill-child --mount --net --cgroup --uts --ipc --propagation private sh "$@"
' sh "$groups" "$inside" "$joined" "$folder" "$@" <&3 3<&- || true

tries=0
for group in $groups; do
    until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || break
        sleep 0.05
    done
done
rm -rf "$folder"
