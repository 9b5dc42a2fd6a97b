# The image holds the program, the C libraries that it is linked to, the certificates that it knows an issuer of tokens by,
# and nothing else: no shell, no package manager. It runs as a user of its own and writes below data/ only.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# What is built in beside the usual, such as `otlp`; and the commit, which the program can't find out here.
ARG FEATURES="" COMMIT=""
# The caches stay with the builder: a second build compiles no dependency again. Cargo tells by the times of files what has
# changed, and would take those of a checkout that is older than the last build for what it compiled then: they get new ones.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && BUILD_COMMIT=$COMMIT cargo build --release --locked --bin taskpact --features "$FEATURES" \
    && install -D target/release/taskpact /image/usr/local/bin/taskpact
# The loader and the libraries, each at its own path, and the folders for the data, of which only the last is the program's:
# a copy that changes the owner changes that of the folders which it has to make, too.
RUN ldd /image/usr/local/bin/taskpact | grep --only-matching '/[^ ]*' | xargs cp --parents --dereference --target-directory=/image \
    && install -D --mode=644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && mkdir --parents /image/var/lib/taskpact /data

FROM scratch
ARG VERSION="" COMMIT=""
LABEL org.opencontainers.image.title="Taskpact" \
      org.opencontainers.image.description="A multi-user task API server whose OpenAPI contract is the product" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /image /
COPY --from=build --chown=10001:10001 /data /var/lib/taskpact/data
USER 10001:10001
WORKDIR /var/lib/taskpact
VOLUME /var/lib/taskpact/data
# Within a container every address is the container's own; which of them is reached is for the publisher of the port.
ENV HOST=0.0.0.0 PORT=8080
# There is no /tmp. SQLite needs a place for what a migration of many rows does not keep in memory.
ENV SQLITE_TMPDIR=/var/lib/taskpact/data
EXPOSE 8080
# The start period covers the time that the server waits for its database.
HEALTHCHECK --interval=10s --timeout=6s --start-period=40s --retries=3 CMD ["/usr/local/bin/taskpact", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/taskpact"]
CMD ["serve"]
