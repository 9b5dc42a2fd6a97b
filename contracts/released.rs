// The contracts in this folder, by version. `just release-contract` writes it.
&[
    ("0.1.0", include_str!("0.1.0.yaml")),
]
