"""Packet records: sentinels, types, order and history rules; neighbours against a direct search; real packets rebuilt from their parts."""

from __future__ import annotations

import numpy as np
import pytest

from targets.codecs import alert
from ztfluigi.algorithms import packets
from ztfluigi.model import alert_schema
from ztfluigi.model.columns import GAIA, PS1, dtype_of
from ztfluigi.model.errors import BadInput, ConfigError
from ztfluigi.model.wcs import separation_arcsec

CONTEXT = {"jd": 2459116.93, "fid": 2, "pid": 1362431775015, "programid": 1, "programpi": "Kulkarni", "nid": 1362, "rcid": 50, "field": 655,
           "diffmaglim": 20.5, "pdiffimfilename": "ztf_a_scimrefdiffimg.fits", "ndethist": 1, "ncovhist": 3, "nmtchps": 0,
           "rfid": 655120250, "jdstartref": 2458000.1, "jdendref": 2458100.1, "nframesref": 15, "rbversion": "t17_f5_c3", "nmatches": 900,
           "drbversion": "d6_m7"}
EVENT = {"candid": np.int64(1362431775015015000), "objectId": "ZTF20aaaaaaa", "isdiffpos": True, "tblid": np.int64(0), "ra": 58.0,
         "dec": 35.7, "magpsf": np.float32(19.5), "sigmapsf": np.float32(0.1), "ranr": 58.0001, "decnr": 35.7001,
         "rb": np.float32(np.nan), "extra": object()}
STAMP = alert.encode_cutout(np.ones((63, 63)))
CUTOUTS = {"science": STAMP, "template": STAMP, "difference": STAMP}


def detection(pid, jd, **changes):
    return CONTEXT | EVENT | {"pid": pid, "jd": jd, "candid": pid * 10**6 + 15000} | changes


@pytest.mark.parametrize("version", alert_schema.VERSIONS)
def test_a_packet_is_accepted_by_the_codec_and_has_the_schemas_order(version):
    limits = [CONTEXT | {"pid": 4, "jd": 2459099.0}]
    made = packets.build_packet(EVENT, [detection(5, 2459100.0)], limits, CUTOUTS, CONTEXT, version=version)
    assert alert.read_packets(alert.write_packet(made))[0]["candid"] == EVENT["candid"]
    assert list(made) == [field["name"] for field in alert_schema.schema(version)["fields"]]
    assert list(made["candidate"]) == [field.name for field in alert_schema.CANDIDATE]


def test_missing_values_are_null_and_a_neighbour_that_is_not_there_is_said_by_who_looked():
    made = packets.build_packet(EVENT | {"neargaia": np.nan, "sgmag1": -999.0, "sky": np.inf, "ssnamenr": "null", "ranr": np.nan}, [], [], {},
                                CONTEXT)
    shown = made["candidate"]
    assert shown["rb"] is shown["sky"] is shown["tooflag"] is shown["neargaia"] is shown["ssdistnr"] is shown["objectidps1"] is None
    assert (shown["sgmag1"], shown["ssnamenr"], shown["ranr"]) == (-999.0, "null", -999.0)
    assert made["prv_candidates"] is None and made["fp_hists"] is None and made["cutoutScience"] is None


def test_a_catalogue_that_cannot_be_asked_leaves_null():
    unknown = packets.rows(packets.unknown_ps1(1))[0]
    shown = packets.build_packet(EVENT | unknown, [], [], {}, CONTEXT)["candidate"]
    assert unknown.keys() == packets.nearest_ps1([0.0], [0.0], np.zeros(0, dtype_of(PS1))).keys()
    assert shown["nmtchps"] == -999 and all(shown[name] is None for name in unknown if name != "nmtchps")


def test_sign_and_cutout_names():
    positive = packets.build_packet(EVENT, [], [], CUTOUTS, CONTEXT)
    negative = packets.build_packet(EVENT | {"isdiffpos": "f"}, [], [], CUTOUTS, CONTEXT)
    stem = "candid1362431775015015000_pid1362431775015_targ_"
    assert positive["candidate"]["isdiffpos"] == "t" and positive["cutoutDifference"]["fileName"] == f"{stem}scimref.fits.gz"
    assert negative["cutoutDifference"]["fileName"] == f"{stem}refmsci.fits.gz"
    assert negative["cutoutTemplate"]["fileName"] == "candid1362431775015015000_ref.fits.gz"


def test_history_is_in_time_order_and_a_limit_says_only_what_its_image_was():
    history = [detection(9, 2459109.0), detection(3, 2459103.0, ssdistnr=None)]
    limits = [CONTEXT | {"pid": 6, "jd": 2459106.0, "magpsf": 18.0, "magzpsci": 26.1, "rbversion": None},
              CONTEXT | {"pid": 9, "jd": 2459109.0}]
    made = packets.build_packet(EVENT, history, limits, {}, CONTEXT)["prv_candidates"]
    assert [row["pid"] for row in made] == [3, 6, 9]
    limit = made[1]
    assert (limit["candid"], limit["magpsf"], limit["isdiffpos"], limit["ssnamenr"], limit["ra"]) == (None,) * 5
    assert (limit["magzpsci"], limit["diffmaglim"], limit["rbversion"]) == (26.1, 20.5, "t17_f5_c3")
    assert made[0]["ssdistnr"] is None and made[0]["isdiffpos"] == "t" and made[0]["magpsf"] == 19.5


def test_what_may_not_be_null_is_named():
    with pytest.raises(BadInput, match="alert field magpsf has no value"):
        packets.build_packet(EVENT | {"magpsf": np.nan}, [], [], {}, CONTEXT)
    with pytest.raises(BadInput, match="no objectId"):
        packets.build_packet(EVENT | {"objectId": None}, [], [], {}, CONTEXT)
    with pytest.raises(ConfigError, match="5.0"):
        packets.build_packet(EVENT, [], [], {}, CONTEXT, version="5.0")


def test_forced_photometry_goes_to_version_4_only():
    row = CONTEXT | {"forcediffimflux": np.float32(10.0), "forcediffimfluxunc": np.nan, "procstatus": 0, "ranr": np.nan, "decnr": np.nan}
    made = packets.build_packet(EVENT, [], [], {}, CONTEXT, forced=[row])["fp_hists"][0]
    assert (made["forcediffimflux"], made["forcediffimfluxunc"], made["procstatus"], made["ranr"]) == (10.0, None, "0", -999.0)
    both = packets.build_packet(EVENT, [], [], {}, CONTEXT, forced=[row | {"jd": 1.0}, row | {"jd": 2.0}])["fp_hists"]
    assert [one["jd"] for one in both] == [2.0, 1.0]
    assert "fp_hists" not in packets.build_packet(EVENT, [], [], {}, CONTEXT, forced=[row], version="3.3")


def test_rows_are_plain_python():
    table = np.array([(1, 2.5, "t")], [("tblid", "i8"), ("ra", "f4"), ("isdiffpos", "U1")])
    assert packets.rows(table) == [{"tblid": 1, "ra": 2.5, "isdiffpos": "t"}]
    assert packets.rows({"a": np.arange(2), "b": ["x", "y"]}) == [{"a": 0, "b": "x"}, {"a": 1, "b": "y"}]


def sky(columns, n, ra_name, dec_name, seed):
    rng = np.random.default_rng(seed)
    table = np.zeros(n, dtype_of(columns))
    table[ra_name], table[dec_name] = (rng.uniform(-0.1, 0.1, n)) % 360, rng.uniform(69.95, 70.05, n)
    return table


@pytest.mark.parametrize("n", [0, 1, 2, 400])
def test_ps1_neighbours_are_those_of_a_direct_search(n):
    ps1 = sky(PS1, n, "raMean", "decMean", 3)
    ps1["objID"], ps1["gMeanPSFMag"], ps1["sgscore"] = np.arange(n) + 10**17, 20.0, 0.9
    if n > 5:
        ps1["gMeanPSFMag"][::7] = np.nan
    at = sky(PS1, 30, "raMean", "decMean", 4)
    found = packets.nearest_ps1(at["raMean"], at["decMean"], ps1)
    for i in range(30):
        distance = separation_arcsec(at["raMean"][i], at["decMean"][i], ps1["raMean"], ps1["decMean"])
        order = np.argsort(distance)[:3]
        order = order[distance[order] <= 30.0]
        assert found["nmtchps"][i] == np.count_nonzero(distance <= 30.0)
        for k in range(3):
            if k < len(order):
                assert found[f"objectidps{k + 1}"][i] == 10**17 + order[k]
                assert found[f"distpsnr{k + 1}"][i] == pytest.approx(distance[order[k]], abs=1e-6)
                assert found[f"sgmag{k + 1}"][i] == (-999.0 if order[k] % 7 == 0 and n > 5 else 20.0)
            else:
                assert found[f"objectidps{k + 1}"][i] == found[f"distpsnr{k + 1}"][i] == found[f"sgscore{k + 1}"][i] == -999.0


def test_gaia_neighbours_and_bright_ones():
    gaia = np.zeros(3, dtype_of(GAIA))
    gaia["ra"], gaia["dec"] = [10.0, 10.0, 10.0], [20.0, 20.0 + 10 / 3600, 20.0 + 80 / 3600]
    gaia["phot_g_mean_mag"] = [np.nan, 15.0, 13.0]
    found = packets.nearest_gaia([10.0, 10.0, 50.0], [20.0 + 9 / 3600, 20.0 - 5 / 3600, 0.0], gaia)
    np.testing.assert_allclose(found["neargaia"], [1.0, 5.0, -999.0], atol=1e-6)
    np.testing.assert_allclose(found["maggaia"], [15.0, -999.0, -999.0])
    np.testing.assert_allclose(found["neargaiabright"], [71.0, 85.0, -999.0], atol=1e-6)
    np.testing.assert_allclose(found["maggaiabright"], [13.0, 13.0, -999.0])
    assert packets.nearest_gaia([10.0], [20.0], gaia[:0])["neargaia"].tolist() == [-999.0]


@pytest.mark.real
def test_real_packets_are_rebuilt_from_their_parts(shared_data):
    for path in sorted((shared_data / "ztf-alerts" / "packets_v4.02").glob("*.avro")):
        real, = alert.read_packets(path)
        before = real["prv_candidates"] or []
        cutouts = {word: real[name]["stampData"] for name, word in alert_schema.CUTOUTS.items()}
        made = packets.build_packet(
            real["candidate"] | {"objectId": real["objectId"]}, [row for row in before if row["candid"] is not None],
            [row for row in before if row["candid"] is None], cutouts, {}, forced=real["fp_hists"] or [])
        assert made == real
