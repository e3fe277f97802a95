# Latchkey in a small image: one program on glibc, no shell, no package manager,
# not root, and nothing written outside /data and /jwt.
#
#   docker build -t latchkey .
#   docker run --rm --read-only --cap-drop ALL -p 127.0.0.1:3000:3000 \
#     -v latchkey-data:/data -v latchkey-jwt:/jwt latchkey
#
# Commands follow the name of the image: `docker run … latchkey keys list`.

# Both stages are Debian 13: the program runs on the glibc it was linked with.
# The slim image has the C compiler that SQLite and AWS-LC are built with.
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
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked \
    && mkdir /data /jwt

# glibc, libgcc and root certificates. `nonroot` is user 65532.
FROM gcr.io/distroless/cc-debian13:nonroot

COPY --from=build /src/target/release/latchkey /usr/local/bin/latchkey

# A new volume takes owner and mode from these. A folder of the host that is
# mounted here instead has to belong to user 65532.
COPY --from=build --chown=65532:65532 --chmod=700 /data /data
COPY --from=build --chown=65532:65532 --chmod=700 /jwt /jwt

# In a container, loopback would be reached by nobody. The internal listener is
# for probes and operators: publish 3000 to people, 3001 to nobody.
ENV LATCHKEY_DATA_DIR=/data \
    LATCHKEY_JWT_DIR=/jwt \
    LATCHKEY_LISTEN=0.0.0.0:3000 \
    LATCHKEY_INTERNAL_LISTEN=0.0.0.0:3001

# Without a named volume they are anonymous ones, so that a read-only root works
# either way. The signing keys are in /jwt: name a volume for anything that lasts.
VOLUME ["/data", "/jwt"]
EXPOSE 3000 3001

# By number, since Kubernetes (runAsNonRoot) cannot tell who a name is.
USER 65532:65532

# It stops taking connections and gives running requests 30 seconds; Docker has
# to be told to wait that long (`docker stop -t 40`).
STOPSIGNAL SIGTERM

# No HEALTHCHECK: it would run in here, where there is no shell and no client,
# and the program has no command for it. Orchestrators ask from outside:
# GET :3001/health/live.

ENTRYPOINT ["/usr/local/bin/latchkey"]
