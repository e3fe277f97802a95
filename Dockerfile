# Latchkey in a small image: one program, the parts of glibc that it needs and root
# certificates. No shell, no package manager, not root, and nothing written outside
# /data and /jwt.
#
#   docker build -t latchkey .
#   docker run --rm --read-only --cap-drop ALL -p 127.0.0.1:3000:3000 \
#     -v latchkey-data:/data -v latchkey-jwt:/jwt latchkey
#
# Commands follow the name of the image: `docker run … latchkey keys list`.
#
# `scripts/verify-image` builds the second stage out of a program that is there already,
# and runs it as the lines above do.

# The slim image has the C compiler that SQLite and AWS-LC are built with. Who builds
# releases pins it by digest as well.
FROM rust:1.95-slim-trixie AS build
WORKDIR /src

# The dependencies, with an empty program over them: a layer that lasts until
# Cargo.toml or Cargo.lock changes. Tests and benches stay outside the image, so
# their tables (each up to an empty line) leave the manifest.
COPY Cargo.toml Cargo.lock ./
COPY src/http/docs/pack.rs src/http/docs/pack.rs
RUN sed -i '/^\[\[\(bench\|example\|test\)\]\]/,/^$/d' Cargo.toml \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked

# The program. Copied files keep their age, by which Cargo would take the empty
# program for newer; so they are touched.
COPY migrations migrations
COPY src src
# What /metrics tells of its origin: --build-arg REVISION="$(git rev-parse HEAD)".
ARG REVISION
RUN touch src/lib.rs src/main.rs \
    && BUILD_REVISION="$REVISION" cargo build --release --locked

# What will be the root of the image.
COPY LICENSE-APACHE LICENSE-MIT ./
COPY deploy/image/fill /usr/local/bin/fill
RUN fill target/release/latchkey /image \
    && mkdir /volumes && mkdir -m 700 /volumes/data /volumes/jwt

# glibc rather than a static musl: its allocator keeps up with many threads. And from
# the first stage rather than from a base image: those with glibc bring much more of it.
FROM scratch

COPY --from=build /image/ /

# A new volume takes owner and mode from these. They must not be there before, or they
# keep their owner. A folder of the host that is mounted here instead has to belong to
# user 65532.
COPY --from=build --chown=65532:65532 /volumes/ /

# In a container, loopback would be reached by nobody. The internal listener is
# for probes and operators: publish 3000 to people, 3001 to nobody. SQLite looks for a
# place for what does not fit into memory; there is no /tmp.
ENV PATH=/usr/local/bin \
    LATCHKEY_DATA_DIR=/data \
    LATCHKEY_JWT_DIR=/jwt \
    LATCHKEY_LISTEN=0.0.0.0:3000 \
    LATCHKEY_INTERNAL_LISTEN=0.0.0.0:3001 \
    SQLITE_TMPDIR=/data

# Without a named volume they are anonymous ones, so that a read-only root works
# either way. The signing keys are in /jwt: name a volume for anything that lasts.
VOLUME ["/data", "/jwt"]
EXPOSE 3000 3001

# By number, since Kubernetes (runAsNonRoot) cannot tell who a name is.
USER 65532:65532

# It stops taking connections, gives running requests 30 seconds and a mail on its way
# 15; Docker has to be told to wait that long (`docker stop -t 50`).
STOPSIGNAL SIGTERM

# The process alone: with a database away it is as healthy as ever. Kubernetes does not
# read this, and asks GET :3001/health/live.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/latchkey", "health"]

ENTRYPOINT ["/usr/local/bin/latchkey"]

# Last, since they differ from build to build.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Latchkey" \
    org.opencontainers.image.description="A self-contained auth server" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
