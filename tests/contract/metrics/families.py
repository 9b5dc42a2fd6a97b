"""Reads metrics as Prometheus does, and prints each family with the labels that its samples have."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = [
    {
        "name": family.name,
        "type": family.type,
        "help": family.documentation,
        "labels": sorted({label for sample in family.samples for label in sample.labels if label != "le"}),
        # JSON has no infinity.
        "samples": [[sample.name, sample.labels, str(sample.value)] for sample in family.samples],
    }
    for family in text_string_to_metric_families(sys.stdin.read())
]
json.dump(families, sys.stdout)
