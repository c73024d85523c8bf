# ivcapfs in a container. How to run it, and how its mounts are seen outside: docs/MOUNTING.md, docs/KUBERNETES.md.
# scripts/image-test builds it and runs it.
#
#   docker build -t ivcapfs .
#   docker run --rm --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined ivcapfs demo
ARG BASE=debian:13-slim

# What is needed to install, and not to run.
FROM ${BASE} AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv
COPY pyproject.toml README.md LICENSE /src/
COPY ivcapfs /src/ivcapfs
RUN python3 -m venv /tools \
 && python3 -m venv --without-pip /opt/ivcapfs \
 && /tools/bin/pip --python /opt/ivcapfs/bin/python install --no-cache-dir --disable-pip-version-check '/src[server]'

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ivcapfs" \
      org.opencontainers.image.description="A FUSE filesystem that shows the artifacts of an IVCAP deployment as files" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Any user may mount, with allow_other too; fusermount3 is the only program that runs as root for others.
# extrausers: see image/ivcapfs. /etc/mtab: fusermount3 unmounts by it, and not every engine makes it.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates fuse3 libnss-extrausers python3 \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
 && find / -xdev -type f -perm /6000 ! -name fusermount3 -exec chmod ug-s {} + \
 && sed -i 's/^# *user_allow_other/user_allow_other/' /etc/fuse.conf \
 && grep -qx user_allow_other /etc/fuse.conf \
 && sed -i 's/^passwd:.*/& extrausers/' /etc/nsswitch.conf \
 && grep -qx 'passwd:.* extrausers' /etc/nsswitch.conf \
 && install -m 666 /dev/null /var/lib/extrausers/passwd \
 && ln -sf /proc/self/mounts /etc/mtab \
 && useradd --uid 1000 --create-home ivcapfs \
 && install -d -m 777 /mnt/ivcap \
 && install -d -m 1777 /var/cache/ivcapfs

COPY --from=build /opt/ivcapfs /opt/ivcapfs
COPY image/ivcapfs /usr/local/bin/ivcapfs

# Users whose home folder is missing or read-only have a place for the cache too.
ENV XDG_CACHE_HOME=/var/cache/ivcapfs \
    PYTHONUNBUFFERED=1

# IVCAP_URL and a token (docs/CREDENTIALS.md) are given when it runs; none is in the image.
ENTRYPOINT ["ivcapfs"]
CMD ["mount", "-f", "-o", "allow_other", "/mnt/ivcap"]
