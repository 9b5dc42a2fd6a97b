# List the recipes
default:
    @just --list

# Serve, on SQLite, in development mode
run:
    cargo run

# Run every test, on SQLite and on PostgreSQL
test:
    cargo test

# Kill servers and databases under load, and keep the server waiting; needs Python and PostgreSQL (docs/RELIABILITY.md)
faults:
    cargo build --release
    python3 tests/faults/crashes.py --server target/release/taskpact
    python3 tests/faults/hostile.py --server target/release/taskpact

# Kill and freeze a worker of a Citus cluster; needs Citus (docs/RELIABILITY.md)
citus:
    cargo build --release
    python3 tests/faults/citus.py --server target/release/taskpact

# Fuzz what reads requests, tokens and settings, for so many seconds each; needs cargo-fuzz
fuzz seconds="60":
    cd fuzz && for target in requests tokens settings; do \
        cargo fuzz run --dev --sanitizer none $target -- -max_total_time={{ seconds }} -dict=words.dict || exit 1; done

# Write the contract, and its rendition in OpenAPI 3.1
spec:
    spec=$(mktemp) && trap 'rm "$spec"' EXIT && for version in 3.0 3.1; do \
        cargo run -q -- spec --openapi $version > "$spec" && cat "$spec" > api-spec$([ $version = 3.0 ] || echo -3.1).yaml || exit 1; done

# Make the types of the TypeScript client from the contract
client-types:
    npm ci --prefix clients/typescript --ignore-scripts
    npm run contract --prefix clients/typescript

# Check the contract and the server with other people's tools; needs Node.js, Python, Chromium and HAProxy
contract: lint-contract client clients journeys conformance pools browser released kept metrics try-readme

# Lint the contract: Redocly, Spectral, OWASP
lint-contract:
    tests/contract/run lint

# Pack the TypeScript client, and try it in Node.js and in Chromium
client:
    tests/contract/run client

# Generate three TypeScript clients and take the round trip with each
clients:
    tests/contract/run clients

# Make the journeys of journeys.arazzo.yaml with the server
journeys:
    tests/contract/run journeys

# Let Schemathesis try the server, on SQLite and on PostgreSQL
conformance:
    tests/contract/run conformance

# Refuse requests of clients that keep their connections, and see that the next request on each is served
pools:
    tests/contract/run pools

# Look at the docs page and at CORS in Chromium; screenshots go to tests/browser/screenshots
browser:
    tests/contract/run browser

# Compare the contract with the last release's
released:
    tests/contract/run released

# Let clients of every released contract make their way with the server
kept:
    tests/contract/run kept

# Read the metrics as Prometheus does, and hold docs/METRICS.md against them
metrics:
    tests/contract/run metrics

# Give a collector the spans of requests, and see what arrives
traces:
    tests/contract/run traces

# Run what the README and docs/ tell other teams to run
try-readme:
    tests/contract/run readme

# Record the contract of the release that the changelog names last, in contracts/
release-contract:
    node tests/contract/released.mjs

# Format the code
fmt:
    cargo fmt --all

# Check where dependencies come from and under which licence; needs cargo-deny
deny:
    cargo deny --locked check bans licenses sources

# Look for known vulnerabilities in dependencies; needs cargo-deny, and the network for the database of them
advisories:
    cargo deny --locked check advisories

# Check what CI checks: format, lints, licences, documentation, tests, the contract
check:
    .ci/run

# Build the container's image
image:
    .ci/image --tag taskpact

# Make what a release hands out, in target/dist: the program, its manual, checksums, a bill of materials
dist target=(arch() + "-unknown-linux-gnu"):
    .ci/dist {{ target }}

# Serve in containers, on PostgreSQL
up:
    docker compose up --build
