# Takes a lab down: the one way in which it ends, whatever ended its owner.
#
# Waits until standard input closes, which the kernel sees to when the owner
# returns, panics, or is killed. Then ends what still runs in the lab's
# namespaces, and removes them, the mounts and the directory.
#
# $1 the lab's name   $2 its directory   $3 the owner, which is left alone

trap '' HUP INT TERM
cat > /dev/null
status=0

for path in /run/netns/"$1"-*; do
	[ -e "$path" ] || continue
	namespace=${path##*/}
	for pid in $(ip netns pids "$namespace"); do
		[ "$pid" = "$3" ] || kill -KILL "$pid" 2> /dev/null
	done
	ip netns delete "$namespace" || status=1
done

# What was killed may hold a mount for a moment.
mounts() {
	# Those in it first.
	while read -r _ mounted _; do
		case $mounted in "$2" | "$2"/*) echo "$mounted" ;; esac
	done < /proc/self/mounts | sort -r
}
tries=50
while [ -n "$(mounts "$@")" ] && ! umount $(mounts "$@") 2> /dev/null; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || { umount $(mounts "$@") || status=1; break; }
	sleep 0.1
done
rm -rf --one-file-system "$2" || status=1
exit "$status"
