# The first process of a private node: makes its mounts and its network, and keeps its PID namespace alive
# until standard input ends.
set -eu
joined=$1
# The process id seen from outside, while /proc is still the outside one.
read -r pid _ </proc/self/stat

mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
# What is written below /var (the network plugins' records, links to logs) stays here too.
mkdir -p /run/lock /run/netns /run/var/upper /run/var/work
mount -t overlay -o lowerdir=/var,upperdir=/run/var/upper,workdir=/run/var/work var /var

# The control groups as this namespace sees them.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    for group in $joined; do echo $$ >"$group/cgroup.procs"; done
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
else
    umount -R /sys/fs/cgroup
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
        [ -n "$controllers" ] || continue
        mkdir -p "/sys/fs/cgroup/${controllers#name=}"
        case $controllers in
        name=*) options=none,$controllers ;;
        *) options=$controllers ;;
        esac
        mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/${controllers#name=}"
    done </proc/self/cgroup
fi

# A bridge stands in for the network card, with a default route.
ip link set lo up
ip link add eth0 type bridge
ip address add 10.88.0.1/24 dev eth0
ip link set eth0 up
ip route add default via 10.88.0.254
hostname node1

exec 3<&0
cat <&3 >/dev/null &
keeper=$!
exec 3<&-
# `wait` also reaps the orphans of this namespace.
echo "ready $pid"
wait $keeper
