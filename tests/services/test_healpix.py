import hpgeom
import numpy as np
import pytest

from ztfluigi.services import healpix


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def around(rng, ra, dec, radius_arcsec, n):
    """Positions up to twice the radius from a centre, everywhere on the sky."""
    r = np.radians(radius_arcsec / 3600) * 2 * np.sqrt(rng.random(n))
    angle = rng.random(n) * 2 * np.pi
    centre = healpix.unit_vectors(ra, dec)[0]
    east = np.cross([0, 0, 1], centre)
    east /= np.linalg.norm(east)
    north = np.cross(centre, east)
    v = np.cos(r)[:, None] * centre + np.sin(r)[:, None] * (np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * north)
    return np.degrees(np.arctan2(v[:, 1], v[:, 0])) % 360, np.degrees(np.arcsin(v[:, 2]))


def test_index_is_healpix_nested_of_order_16():
    assert healpix.index([10.0, np.nan, -350.0], [20.0, 5.0, 20.0]).tolist() == [hpgeom.angle_to_pixel(65536, 10.0, 20.0, nest=True), -1,
                                                                               hpgeom.angle_to_pixel(65536, 10.0, 20.0, nest=True)]


@pytest.mark.parametrize("dec", [-89.9999, -41.8, 0.0, 41.81, 75.0, 89.99])
@pytest.mark.parametrize("ra", [0.0001, 45.0, 233.3])
def test_disc_pixels_and_cones_miss_nothing(rng, ra, dec):
    for radius in (1.5, 10.0, 360.0, 3600.0):
        x, y = around(rng, ra, dec, radius, 2000)
        inside = healpix.separation_arcsec(ra, dec, x, y) <= radius
        assert 100 < inside.sum() < 1900
        pixels = healpix.index(x[inside], y[inside])
        ranges = healpix.cone_ranges(ra, dec, radius)
        assert ((pixels[:, None] >= ranges[:, 0]) & (pixels[:, None] < ranges[:, 1])).any(axis=1).all()
        if radius < 2:
            position, around_it = healpix.disc_pixels([ra], [dec], radius)
            assert set(position) == {0} and set(pixels) <= set(around_it.tolist()) and len(around_it) <= 9
    with pytest.raises(ValueError, match="up to 2 arcsec"):
        healpix.disc_pixels([ra], [dec], 5.0)


def test_inside_quads_and_cells(rng):
    ra = np.array([[359.8, 0.2, 0.2, 359.8], [100.0, 100.9, 100.9, 100.0]])
    dec = np.array([[-0.2, -0.2, 0.2, 0.2], [60.0, 60.0, 60.5, 60.5]])
    assert healpix.inside_quads([0.0, 0.19, 0.21, 180.0, 100.4], [0.0, 0.19, 0.0, 0.0, 60.3], ra, dec).tolist() == [
        [True, False], [True, False], [False, False], [False, False], [False, True]]
    assert healpix.inside_quads([0.0], [0.0], ra[:, ::-1], dec[:, ::-1]).tolist() == [[True, False]]  # corners the other way round
    assert healpix.inside_quads([0.0], [0.0], np.zeros((0, 4)), np.zeros((0, 4))).shape == (1, 0)
    x, y = (rng.random(2000) * 0.4 - 0.2) % 360, rng.random(2000) * 0.4 - 0.2
    assert set(healpix.cells(healpix.index(x, y)).tolist()) <= set(healpix.polygon_cells(ra[0], dec[0]).tolist())


@pytest.mark.db
def test_cone_condition_in_sql(database, rng):
    database.execute("create table if not exists places (n int, ra float8, dec float8, hpx bigint)")
    database.execute("truncate places")
    x, y = around(rng, 0.001, -30.0, 60.0, 500)
    with database.transaction() as cursor:
        for i, (a, d, p) in enumerate(zip(x, y, healpix.index(x, y))):
            cursor.execute("insert into places values (%s, %s, %s, %s)", (i, a, d, p))
    for radius in (2.0, 60.0):
        found = database.query(f"select n from places where {healpix.cone_condition(0.001, -30.0, radius)} order by n")
        assert [r["n"] for r in found] == np.flatnonzero(healpix.separation_arcsec(0.001, -30.0, x, y) <= radius).tolist()
