# ivcapfs in a container. Mounting needs the FUSE device and the right to mount:
#
#   docker build -t ivcapfs .
#   docker run --rm --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined ivcapfs demo
#
# To see the mount outside of the container, give it a folder of the host with shared propagation:
#
#   docker run --rm --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined \
#       -e IVCAP_URL -e IVCAP_JWT --mount type=bind,src=/mnt/ivcap,dst=/mnt/ivcap,bind-propagation=rshared \
#       ivcapfs mount -f -o allow_other /mnt/ivcap
#
# Any user may run it (--user 1000). A user without an entry in the image's /etc/passwd cannot mount, because
# fusermount3 wants a name: the image has `ivcapfs` (1000); for others add -v /etc/passwd:/etc/passwd:ro.
FROM debian:trixie-slim

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates fuse3 python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && sed -i 's/^# *user_allow_other/user_allow_other/' /etc/fuse.conf \
 && grep -qx user_allow_other /etc/fuse.conf \
 && useradd --uid 1000 --create-home ivcapfs \
 && install -d -m 1777 /var/cache/ivcapfs

COPY pyproject.toml README.md LICENSE /usr/src/ivcapfs/
COPY ivcapfs /usr/src/ivcapfs/ivcapfs
RUN python3 -m venv /opt/ivcapfs \
 && /opt/ivcapfs/bin/pip install --no-cache-dir --disable-pip-version-check '/usr/src/ivcapfs[server]' \
 && rm -rf /usr/src/ivcapfs

# Users whose home folder is missing or read-only have a place for the cache too.
ENV PATH=/opt/ivcapfs/bin:$PATH \
    XDG_CACHE_HOME=/var/cache/ivcapfs \
    PYTHONUNBUFFERED=1

ENTRYPOINT ["ivcapfs"]
CMD ["--help"]
