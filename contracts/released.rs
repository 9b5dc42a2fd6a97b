// The contracts in this folder, by version. `just release-contract` writes it.
&[
]
