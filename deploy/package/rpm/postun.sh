# The configuration, if it was changed, and the state stay; /var/lib/exogate can be removed.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
