# $1: how many versions are installed now; 1 at the first installation.
systemd-sysusers exogate.conf
# Where it cannot, in an image that is being built, the first boot does it.
systemd-tmpfiles --create exogate.conf || true

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
if [ "$1" -eq 1 ]; then
    # What the distribution or the administrator has decided.
    systemctl preset exogate.service >/dev/null 2>&1 || true
    cat <<'TEXT'
exogate is not started yet. It begins in monitor mode: it drops nothing.
Next: name the interface in /etc/exogate/exogate.toml, interfaces = ["eth0"], then
  systemctl enable --now exogate && exogate status
TEXT
elif [ -d /run/systemd/system ]; then
    # The new agent takes the filter over from the old one; it is in force in between.
    systemctl try-restart exogate.service || true
fi
