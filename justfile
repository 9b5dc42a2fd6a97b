# List the recipes
default:
    @just --list

# Serve, on SQLite, in development mode
run:
    cargo run

# Run every test, on SQLite and on PostgreSQL
test:
    cargo test

# Write the contract
spec:
    cargo run -q -- spec > api-spec.yaml

# Format the code
fmt:
    cargo fmt --all

# Check what CI checks: format, lints, documentation, tests
check:
    .ci/run

# Build the container's image
image:
    docker build --tag taskpact .

# Serve in containers, on PostgreSQL
up:
    docker compose up --build
