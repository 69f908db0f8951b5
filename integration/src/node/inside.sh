# The first process of a private node: makes its mounts and its network, and keeps its PID namespace alive
# until standard input ends.
#
#   sh inside.sh GROUPS FOLDER NEEDED...      GROUPS are the node's control groups; FOLDER is the node's; NEEDED are the
#                                             folders with what the tests need
set -eu
joined=$1 folder=$2
shift 2
# The process id seen from outside, while /proc is still the outside one.
read -r pid _ </proc/self/stat

mount -t proc proc /proc

# What of the needed folders would be covered below is set aside, with what is mounted in it: a checkout below /var may be
# a mount of its own, and so may anything below /run.
number=0
for needed; do
    number=$((number + 1))
    case $needed in
    /run/* | /var/* | /etc/*)
        mkdir -p "$folder/needed/$number"
        mount --rbind "$needed" "$folder/needed/$number"
        ;;
    esac
done

# What the machine has mounted below these folders is covered by what is mounted over them now. It goes first: else
# it would still be listed among the node's mounts.
sh "${0%/*}/unmount_below.sh" /run /var
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /run/netns

# layer FOLDER NAME...: what is written below FOLDER stays in the node, where it has none of these of the machine's.
layer() {
    layered=$1 layers=/run/layers$1
    shift
    mkdir -p "$layers/upper" "$layers/work"
    for name; do
        mkdir -p "$(dirname "$layers/upper/$name")"
        # An overlay's sign for "not there".
        mknod "$layers/upper/$name" c 0 0
    done
    mount -t overlay -o "lowerdir=$layered,upperdir=$layers/upper,workdir=$layers/work" layer "$layered"
}
# The machine may be a node itself, with pods, a cluster, other runtimes, and debuglet.
layer /var lib/kubelet lib/containerd lib/docker lib/debuglet lib/etcd lib/cni log/pods log/containers
# Container engines mount these files.
mkdir /run/files
for file in hosts hostname resolv.conf; do
    [ ! -e "/etc/$file" ] || cp -L "/etc/$file" "/run/files/$file"
done
layer /etc kubernetes debuglet containerd crictl.yaml docker cni cdi nri
for file in hosts hostname resolv.conf; do
    [ ! -e "/run/files/$file" ] || { rm -f "/etc/$file"; mv "/run/files/$file" "/etc/$file"; }
done
rmdir /run/files

number=0
for needed; do
    number=$((number + 1))
    [ -d "$folder/needed/$number" ] || continue
    mkdir -p "$needed"
    mount --move "$folder/needed/$number" "$needed"
    rmdir "$folder/needed/$number"
done

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
