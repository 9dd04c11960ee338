# $1: how many versions will be left. An upgrade leaves the agent running until the new
# one is there.
[ "$1" -eq 0 ] || exit 0

if [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now exogate.socket exogate.service >/dev/null 2>&1 || true
fi
# A stop leaves the filter in force. Without the program nobody would look after it.
exogate detach || true
# What is left if that failed, for instance for a configuration that cannot be read.
rm -rf /sys/fs/bpf/exogate
