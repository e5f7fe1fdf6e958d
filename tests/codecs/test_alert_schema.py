"""The schema made from our table against the published one and against the schema inside real packets."""

from __future__ import annotations

import json

import fastavro
import pytest

from ztfluigi.model import alert_schema
from ztfluigi.model.errors import ConfigError


def shape(fields):
    """What of a field matters to a reader: name, type, whether null is allowed and which branch comes first."""
    def kind(of):
        if isinstance(of, list):
            return [kind(one) for one in of]
        if isinstance(of, dict):
            return kind(of["items"]) if of["type"] == "array" else of["name"].rpartition(".")[2]
        return of.rpartition(".")[2]

    return [(field["name"], kind(field["type"]), "default" in field, field.get("default")) for field in fields]


def nested(schema, field):
    """Fields of the record inside a field."""
    kind = next(f for f in schema["fields"] if f["name"] == field)["type"]
    kind = next(k for k in kind if isinstance(k, dict)) if isinstance(kind, list) else kind
    return (kind["items"] if kind["type"] == "array" else kind)["fields"]


PARTS = {"candidate": "candidate", "prv_candidate": "prv_candidates", "fp_hist": "fp_hists", "cutout": "cutoutScience"}


@pytest.mark.parametrize("version", alert_schema.VERSIONS)
def test_the_schema_is_valid_avro(version):
    fastavro.parse_schema(json.loads(json.dumps(alert_schema.schema(version))))


def test_every_field_is_told_in_words():
    for field in (*alert_schema.CANDIDATE, *alert_schema.PRV_CANDIDATE, *alert_schema.FP_HIST):
        assert len(field.doc) > 3, field.name


def test_other_versions_cannot_be_written():
    with pytest.raises(ConfigError, match="'5.0' cannot be written, expected one of 4.02, 3.3"):
        alert_schema.schema("5.0")


@pytest.mark.real
@pytest.mark.parametrize("version", alert_schema.VERSIONS)
def test_names_order_types_and_nullability_are_the_published_ones(shared_spec, version):
    made, folder = alert_schema.schema(version), shared_spec / "data" / f"avro_v{version}"
    published = {path.stem: json.loads(path.read_text())["fields"] for path in folder.glob("*.avsc")}
    assert shape(made["fields"]) == shape(published["alert"])
    for part in set(published) - {"alert"}:
        assert shape(nested(made, PARTS[part])) == shape(published[part]), part
        theirs = {f["doc"] for f in published[part] if len(f.get("doc", "")) > 20}
        assert not theirs & {f.get("doc") for f in nested(made, PARTS[part])}  # the words are our own


@pytest.mark.real
def test_the_schema_is_that_inside_a_real_packet(shared_data):
    path = next((shared_data / "ztf-alerts" / "packets_v4.02").glob("*.avro"))
    with open(path, "rb") as stream:
        real = fastavro.reader(stream).writer_schema
    made = alert_schema.schema("4.02")
    assert shape(made["fields"]) == shape(real["fields"])
    for field in PARTS.values():
        assert shape(nested(made, field)) == shape(nested(real, field)), field
