# What a loss of power takes from a private node whose containerd has ended: every container with its shim, and what
# is kept in memory only. What is on the disk stays as it is.
#
#   sh lose_power.sh FOLDER      FOLDER is the node's
set -eu
folder=$1

# A container's first process is its shim's child, and takes the others of its PID namespace along.
while shims=$(pgrep containerd-shim); do
    for shim in $shims; do
        # shellcheck disable=SC2046
        kill -KILL "$shim" $(pgrep -P "$shim") 2>/dev/null || true
    done
    sleep 0.05
done

# Containers' roots, network namespaces, volumes in memory.
sh "${0%/*}/unmount_below.sh" "$folder/containerd/state" "$folder/kubelet" "$folder/state" /run/netns /run/containerd
rm -rf "$folder/containerd/state" "$folder/run" /run/netns/* /run/containerd
