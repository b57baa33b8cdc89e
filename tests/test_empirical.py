"""Empirical nulls, above all that of objects with similar errors: false positives go, what is odd stays."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import special, stats

import robusta_prob as rp
from robusta_prob.scoring import verdict
from robusta_prob.scoring.empirical import GROUP, EmpiricalNull, Tail, bulk_of, by_error

N, M = 3000, 100
SETS = {"two": [30.0, 60.0], "a/b": [80.0]}
PLAIN = EmpiricalNull(0.0, 1.0, True)
ODD = np.arange(0, 60, 3)  # into which an absorption line is put, of all brightnesses


def spectra(weak, seed=0):
    """Objects of rank 3 and, where `weak`, four weak components more; errors of 0.01 to 0.3 (noise, data)."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0.0, np.pi, M)
    main = np.array([np.ones(M), np.cos(3.0 * x), np.sin(5.0 * x)])
    others = np.array([np.cos((7.0 + k) * x) for k in range(4)])
    sigma = rng.permutation(np.geomspace(0.01, 0.3, N))[:, None]
    sigma[ODD, 0] = np.geomspace(0.01, 0.3, len(ODD))
    flux = (rng.standard_normal((N, 3)) + np.array([3.0, 0.0, 0.0])) @ main
    flux += weak * rng.standard_normal((N, 4)) @ others + sigma * rng.standard_normal((N, M))
    return sigma[:, 0], flux


def data_of(sigma, flux):
    return rp.dataset(flux, np.broadcast_to(sigma[:, None] ** -2.0, flux.shape).copy())


def scored(fit, data, like=None, **settings):
    alike = {} if like is None else {"null": like.null, "search": like.search}
    return rp.surprise(fit, data, lines=SETS, flag_lines=True, **alike, **settings)


@pytest.fixture(scope="module")
def varied():
    """A fit of a rank that is too small, and scores without and with the null of similar errors."""
    sigma, flux = spectra(weak=0.006)
    line = np.exp(-0.5 * ((np.arange(M) - 80.0) / 2.0) ** 2)
    flux[ODD] -= 12.0 * sigma[ODD][:, None] * line  # 23 sigma altogether
    data = data_of(sigma, flux)
    fit = rp.fit(data, 3, starts=1)
    plain = scored(fit, data)
    return sigma, data, fit, plain, scored(fit, data, plain, empirical_null="by error")


@pytest.fixture(scope="module")
def regular():
    """Data that obey the model."""
    data = data_of(*spectra(weak=0.0))
    fit = rp.fit(data, 3, starts=1)
    plain = scored(fit, data)
    return data, fit, plain, scored(fit, data, plain, empirical_null="by error")


def probabilities(scores):
    return {"object": scores.object.p_value, "run": scores.object.p_run} | {
        name: line.p_value for name, line in scores.lines.items()
    }


def alike(p, q, rtol=1e-3):
    """Whether log p-values agree to 0.1 %: objects are fitted anew, in float32."""
    np.testing.assert_allclose(np.log(p), np.log(q), rtol=rtol, atol=2e-3)


# What it does to a survey -------------------------------------------------------------------------------


def test_bright_objects_more_varied_than_the_basis_are_no_discoveries(varied):
    sigma, _, _, plain, by = varied
    normal = ~np.isin(np.arange(N), ODD)
    bright, faint = normal & (sigma < np.quantile(sigma, 0.2)), normal & (sigma > np.median(sigma))
    assert plain.flagged[bright].sum() > 40 and by.flagged[normal].sum() <= 3
    for name, p in probabilities(by).items():
        before = probabilities(plain)[name]
        # of 600, of which 0.6 should be; what is left is the skewness of so many squares
        assert (p[bright] < 1e-3).sum() <= 6 and (p[bright] < 1e-2).sum() <= 18, name
        assert (p[faint] < 1e-3).sum() <= 6 and (p[faint] < 1e-2).sum() <= 30, name  # 1.5 and 15
        assert (before[bright] < 1e-3).sum() > (12 if name != "a/b" else 2), name


def test_what_is_odd_is_found_all_the_same(varied):
    *_, by = varied
    assert by.flagged[ODD].mean() > 0.9
    assert (by.lines["a/b"].z[ODD] < -4.0).mean() > 0.9  # absorption
    assert (by.lines["a/b"].q_value[ODD] < 0.05).mean() > 0.9
    assert (by.object.kind[ODD] == "lines").mean() > 0.8


def test_widths_follow_the_errors_and_none_is_below_one(varied):
    *_, by = varied
    null = by.empirical
    assert null.applied and len(null.levels) == N // GROUP and (np.diff(null.levels) > 0).all()
    assert set(null.by_error) == {"object", "run", *SETS} and set(null.tails) == set(SETS)
    for name, groups in null.by_error.items():
        width = np.array(groups)[:, 1]
        assert (width >= 1.0).all() and width[:3].mean() > 1.25 and width[-10:].mean() < 1.1, name
        assert all(isinstance(x, float) for pair in groups for x in pair)
    # of log errors, in flux: what this basis lacks does not grow with the distance from the population
    assert null.power == 0.0
    middle = math.log(0.01) + math.log(30.0) * (np.arange(20, 30) + 0.5) / 30
    np.testing.assert_allclose(null.levels[-10:], middle, atol=0.03)


def test_deviates_are_those_against_objects_of_similar_errors(varied, monkeypatch):
    _, data, fit, plain, by = varied
    seen = []
    monkeypatch.setattr(verdict, "by_error", lambda bulk, *like: seen.extend(like) or by_error(bulk, *like))
    again = scored(fit, data, plain, empirical_null="by error")
    level = by.empirical.relative_error(*seen[:2])
    np.testing.assert_allclose(seen[1], plain.object.mahalanobis / fit.rank)
    assert np.corrcoef(seen[0], np.log(varied[0]))[0, 1] > 0.99
    assert again.empirical == by.empirical
    before = {"object": plain.object.z, "run": -special.ndtri(plain.object.p_run)}
    after = {"object": by.object.z, "run": -special.ndtri(by.object.p_run)}
    inside = (level > by.empirical.levels[0]) & (level < by.empirical.levels[-1])
    for name, z in before.items():
        centre, width = np.array(by.empirical.by_error[name]).T
        here = np.interp(level, by.empirical.levels, centre)
        wide = np.sqrt(np.interp(level, by.empirical.levels, width**2))
        some = inside & (np.abs(z) < 5.0)  # near 1, and where it underflows, a p-value has no digits left
        np.testing.assert_allclose(after[name][some], ((z - here) / wide)[some], atol=1e-6)
    far = plain.object.z > 2.0  # no object gains by width
    centre = np.interp(level, by.empirical.levels, np.array(by.empirical.by_error["object"])[:, 0])
    assert (by.object.z[far] <= (plain.object.z - centre)[far] + 1e-6).all()
    for name, line in by.lines.items():
        shift = max(abs(c) for c, _ in by.empirical.by_error[name])
        assert (np.abs(line.z) <= np.abs(plain.lines[name].z) + shift + 1e-6).all()
        np.testing.assert_allclose(line.p_value, 2.0 * special.ndtr(-np.abs(line.z)))


def test_each_list_follows_from_its_probabilities(varied):
    *_, by = varied
    p = np.stack(list(probabilities(by).values()))
    np.testing.assert_array_equal(by.least_p, p.min(0))
    np.testing.assert_allclose(by.object.log_p, special.log_ndtr(-by.object.z))
    np.testing.assert_allclose(by.object.q_value, stats.false_discovery_control(by.object.p_value))
    np.testing.assert_allclose(
        by.object.q_any, stats.false_discovery_control(np.minimum(4.0 * p.min(0), 1.0))
    )
    for line in by.lines.values():
        np.testing.assert_allclose(line.q_value, stats.false_discovery_control(line.p_value))


def test_where_the_model_holds_next_to_nothing_changes(regular):
    *_, plain, by = regular
    for name, groups in by.empirical.by_error.items():
        centre, width = np.array(groups).T
        # a width by five of a hundred is 13 % off by chance, and is at least 1: 1.05 of 30 groups
        assert np.median(width) < 1.06 and width.mean() < 1.1, name
        assert np.abs(centre).mean() < 0.2, name  # 0.125 by chance
    for name, p in probabilities(by).items():
        before, after = (
            -special.ndtri(np.clip(x, 1e-12, 1 - 1e-12)) for x in (probabilities(plain)[name], p)
        )
        assert np.corrcoef(before, after)[0, 1] > 0.94, name
        assert np.abs(after - before).mean() < 0.25, name
        assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.0065), name  # 3.5 standard deviations
    assert by.flagged.sum() <= 2


def test_a_part_is_judged_as_in_the_whole(varied):
    _, data, fit, plain, by = varied
    rows = np.r_[ODD, 500:560]
    part = scored(fit, data.take(rows), plain, empirical_null=by.empirical)
    assert part.empirical == by.empirical
    for name, p in probabilities(part).items():
        alike(p, probabilities(by)[name][rows])


def test_of_other_tests_than_it_knows_it_says_nothing(varied):
    """Sets that the other call had not are refused; those that do not flag stay with the null law."""
    _, data, fit, plain, by = varied
    few = data.take(slice(0, 100))
    null = by.empirical._replace(by_error={"object": by.empirical.by_error["object"]}, tails={})
    with pytest.raises(ValueError, match="knows the tests 'object', not 'run': give the same lines"):
        scored(fit, few, plain, empirical_null=null)
    settings = {"null": plain.null, "search": plain.search, "lines": SETS}
    quiet = rp.surprise(fit, data, empirical_null="by error", **settings)
    np.testing.assert_array_equal(quiet.lines["two"].p_value, plain.lines["two"].p_value)
    assert set(quiet.empirical.by_error) == {"object", "run"} and not quiet.empirical.tails
    np.testing.assert_array_equal(quiet.object.p_value, by.object.p_value)


def test_of_all_objects_together_it_leaves_lines_alone(varied):
    _, data, fit, plain, _ = varied
    whole = scored(fit, data, plain, empirical_null=True)
    assert not whole.empirical.levels and not whole.empirical.by_error
    for name, line in whole.lines.items():
        np.testing.assert_array_equal(line.z, plain.lines[name].z)
    np.testing.assert_allclose(
        whole.object.z, (plain.object.z - whole.empirical.centre) / whole.empirical.width
    )


def test_nothing_injected_is_judged_as_the_data_were(varied):
    """Lines included; with what it was judged by left out, bright ones would be found again."""
    _, data, fit, _, by = varied
    at = {"line set": {"positions": SETS["two"]}}
    found = rp.recovery(fit, data, {"line set": [0.0]}, key=1, per_amplitude=150, scores=by, options=at)
    assert found.lists == ("p_value", "p_run", "p_pixel", "two", "a/b", "p_flag", "any")
    for place, p in enumerate(probabilities(by).values()):
        column = place if place < 2 else place + 1
        alike(found.trials.p[:, column], p[found.trials.row])
    alike(found.trials.p[:, -2], by.least_p[found.trials.row])


def test_few_objects_and_wrong_words_are_refused(varied):
    _, data, fit, _, _ = varied
    with pytest.raises(ValueError, match="needs at least 50 objects, got 49"):
        rp.surprise(fit, data.take(slice(0, 49)), empirical_null="by error")
    ivar = np.array(data.ivar[:60]) / data.unit**2
    ivar[:20] = 0.0
    mostly = rp.dataset(data.flux[:60] * data.unit, ivar)
    with pytest.raises(ValueError, match="at least 50 objects with a score, got 40"):
        rp.surprise(fit, mostly, empirical_null="by error")
    for wrong in ("by errors", 1, None, np.array([True])):
        with pytest.raises((TypeError, ValueError)):
            rp.surprise(fit, data.take(slice(0, 60)), empirical_null=wrong)


def test_lines_that_nobody_shows_have_no_bulk(varied):
    _, data, fit, _, _ = varied
    part = data.take(slice(0, 300))
    gap = np.broadcast_to((np.arange(M) > 60) & (np.arange(M) < 95), part.shape).copy()
    by = scored(fit, part.hide(gap), empirical_null="by error")
    assert np.isnan(by.lines["a/b"].p_value).all() and np.isfinite(by.lines["two"].p_value).all()
    np.testing.assert_array_equal(by.least_p, np.minimum.reduce(list(probabilities(by).values())[:3]))
    assert np.isfinite(by.object.q_any).all()


ALIKE = np.ones(1)  # squared distance per component: that of everybody


# Bulks of groups ------------------------------------------------------------------------------------------


def test_bulks_of_groups_are_the_laws_that_they_were_drawn_from():
    rng = np.random.default_rng(0)
    level = rng.uniform(-4.0, 0.0, 40_000)
    centre, width = 0.3 * (level + 4.5), 1.5 - 0.25 * level
    z = centre + width * rng.standard_normal(40_000)
    z[::50] = level[::50] = np.nan  # without a score, and perhaps without a pixel
    null = by_error(PLAIN, level, ALIKE, {"object": z, "run": z, "set": z}, frozenset({"set"}))
    for name in ("object", "run"):
        after = null.standardised(name, z, level, ALIKE)
        assert bulk_of(after) == pytest.approx((0.0, 1.0), abs=0.03)
        assert np.isnan(after[::50]).all() and np.isfinite(np.delete(after, np.s_[::50])).all()
        known = np.array(null.by_error[name])
        np.testing.assert_allclose(
            known[:, 0], 0.3 * np.array(null.levels) + 1.35, atol=0.4
        )  # 3.5 errors of 625
        np.testing.assert_allclose(known[:, 1], 1.5 - 0.25 * np.array(null.levels), rtol=0.2)
    assert len(null.levels) == 64


@pytest.mark.parametrize("grows", [False, True])
def test_distance_counts_where_what_the_basis_lacks_grows_with_it(grows):
    """Deviates as wide as what is lacking and the errors make them; rare objects are no discoveries then."""
    rng = np.random.default_rng(1)
    level, distance = rng.uniform(-4.0, 0.0, 20_000), rng.chisquare(5, 20_000) / 5
    lacks = 0.1 * np.exp(-level) * (distance**0.5 if grows else 1.0)
    z = np.hypot(1.0, lacks) * rng.standard_normal(20_000)
    null = by_error(PLAIN, level, distance, {"object": z, "run": z}, frozenset())
    assert null.power == (0.25 if grows else 0.0)
    rare = distance > np.quantile(distance, 0.99)
    after = null.standardised("object", z, level, distance)
    blind = by_error(PLAIN, level, ALIKE, {"object": z, "run": z}, frozenset())
    without = blind.standardised("object", z, level, ALIKE)
    if grows:  # 2.3 % of normal deviates are beyond 2
        assert (after[rare] > 2.0).mean() < 0.05 < (without[rare] > 2.0).mean()
    else:
        np.testing.assert_array_equal(after, without)


def test_objects_narrower_than_the_law_stay_as_they_are():
    z = 0.3 * np.random.default_rng(0).standard_normal(1000)
    null = by_error(PLAIN, np.linspace(0.0, 1.0, 1000), ALIKE, {"object": z, "run": z}, frozenset())
    assert all(width == 1.0 for groups in null.by_error.values() for _, width in groups)


def test_no_object_becomes_more_surprising_than_the_law_has_it():
    """Bulks below it: of a test without a sign the centre stays, of one with a sign it moves."""
    z = np.random.default_rng(0).standard_normal(1000) - 1.0
    null = by_error(PLAIN, np.zeros(1000), ALIKE, {"object": z, "set": z}, frozenset({"set"}))
    assert null.by_error["object"][0][0] == 0.0
    after = null.standardised("object", z, np.zeros(1000), ALIKE)
    assert (after[z > 0] <= z[z > 0]).all()
    assert null.by_error["set"][0][0] == pytest.approx(-1.0, abs=0.15)


def test_strange_objects_say_nothing_of_the_width_of_their_group():
    z = np.random.default_rng(0).standard_normal(1000)
    z[:80] = 30.0  # 8 %, beyond the quantile that tells the width
    null = by_error(PLAIN, np.zeros(1000), ALIKE, {"object": z, "set": z}, frozenset({"set"}))
    for name in ("object", "set"):
        assert null.by_error[name][0][1] < 1.3


def test_what_is_strange_by_other_tests_says_nothing_of_how_far_lines_reach():
    """Of 20,000 objects 400 are foreign, and of these the lines are off to either side."""
    rng = np.random.default_rng(2)
    z, line = rng.standard_normal((2, 20_000))
    z[:400], line[:400] = 20.0, rng.uniform(-30.0, 30.0, 400)
    null = by_error(PLAIN, np.zeros(20_000), ALIKE, {"object": z, "run": z, "set": line}, frozenset({"set"}))
    assert null.tails["set"].z[-1] < 3.6
    after = null.standardised("set", np.array([4.0, -6.0, 9.0]), np.zeros(3), ALIKE)
    np.testing.assert_allclose(after, [4.0, -6.0, 9.0], rtol=0.25)


def test_objects_with_the_same_errors_are_one_group():
    z = np.random.default_rng(0).standard_normal(3000)
    z[100:] *= 2.0
    one = by_error(PLAIN, np.zeros(3000), ALIKE, {"object": z}, frozenset())
    assert one.levels == (0.0,) and one.by_error["object"][0][1] == pytest.approx(2.0, abs=0.1)
    level = np.where(np.arange(3000) % 2, -1.0, 1.0)
    two = by_error(PLAIN, level, ALIKE, {"object": z}, frozenset())
    assert two.levels == (-1.0, 1.0)
    assert np.array(two.by_error["object"])[:, 1] == pytest.approx(2.0, abs=0.15)
    assert np.isfinite(two.standardised("object", z, level, ALIKE)).all()


def test_widths_are_carried_on_to_smaller_errors_but_not_to_larger_ones():
    """What the model lacks is a flux: its variance over theirs goes as error^-2, for one e-fold."""
    widths = (2.0, 1.5, 1.2, 1.1)
    null = PLAIN._replace(
        levels=(-4.0, -3.0, -2.0, -1.0), by_error={"object": tuple((0.0, w) for w in widths)}
    )
    level = np.array([-9.0, -5.0, -4.5, -4.0, -3.0, -1.0, 3.0])
    after = null.standardised("object", np.full(7, 10.0), level, ALIKE)
    lacks = 3.0 * np.exp([2.0, 2.0, 1.0, 0.0])  # 2^2 - 1, of the variance of the errors
    np.testing.assert_allclose(after, 10.0 / np.array([*np.sqrt(1.0 + lacks), 1.5, 1.1, 1.1]))
    right = null._replace(by_error={"object": 4 * ((0.0, 1.0),)})
    np.testing.assert_array_equal(right.standardised("object", np.ones(7), level, ALIKE), np.ones(7))


# Tails ------------------------------------------------------------------------------------------------------


def far_out(nu, levels):
    """Deviates of Student-t with these probabilities beyond, and those of a normal law."""
    return stats.t(nu).isf(levels), stats.norm.isf(levels)


@pytest.mark.parametrize("nu", [3.0, 5.0, 10.0])
def test_a_heavy_tail_is_told_within_a_fifth(nu):
    """20,000 draws, to the probability at which there is one of them."""
    z = np.random.default_rng(0).standard_t(nu, 20_000)
    size, expected = far_out(nu, np.array([0.04, 1e-2, 1e-3, 1e-4, 5e-5]))
    tail = Tail.of(z)
    np.testing.assert_allclose(tail.deviates(size), expected, rtol=0.2)
    np.testing.assert_allclose(tail.deviates(size[:3]), expected[:3], rtol=0.05)  # within the quantiles
    np.testing.assert_array_equal(tail.deviates(-size), -tail.deviates(size))
    found = (2.0 * special.ndtr(-np.abs(tail.deviates(z))) < 1e-3).mean()
    assert found == pytest.approx(1e-3, abs=8e-4)  # 3.5 standard deviations
    assert (2.0 * special.ndtr(-np.abs(z)) < 1e-3).mean() > 2.5e-3


@pytest.mark.parametrize("number", [500, 5000, 50_000])
def test_a_normal_tail_is_left_alone(number):
    z = np.random.default_rng(0).standard_normal(number)
    after = Tail.of(z).deviates(z)
    assert (np.abs(after) <= np.abs(z)).all() and (np.sign(after) == np.sign(z)).all()
    assert np.abs(after - z).mean() < 0.02
    # beyond the last quantile, the earlier the fewer there are, it goes on as an exponential
    np.testing.assert_allclose(after, z, rtol=0.25)
    assert Tail.of(z).deviates(np.array([5.0]))[0] == pytest.approx(5.0, rel=0.25 if number > 500 else 0.35)


@pytest.mark.parametrize("share", [0.01, 0.02])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_outliers_of_one_sign_do_not_hide_themselves(side, share):
    rng = np.random.default_rng(0)
    z = rng.standard_normal(4000)
    odd = np.arange(int(share * 4000))
    z[odd] = side * rng.uniform(6.0, 15.0, len(odd))
    tail = Tail.of(z)
    after = tail.deviates(z)
    assert (side * after[odd] > 4.0).all()
    assert (np.abs(after) <= np.abs(z)).all()
    both = np.concatenate([z, -z])  # where either sign is as frequent there are none
    assert np.abs(Tail.of(both).deviates(z[odd])).max() < 3.5


def test_tails_of_little_or_nothing():
    for z in (np.full(60, np.nan), np.zeros(0)):
        tail = Tail.of(z)
        np.testing.assert_array_equal(tail.deviates(np.array([3.0, -8.0, np.nan])), [3.0, -8.0, np.nan])
    ties = Tail.of(np.tile([-1.0, 0.0, 1.0], 200))
    after = ties.deviates(np.array([-1.0, 0.0, 1.0, 5.0, np.nan]))
    np.testing.assert_array_equal(after[:3], [-1.0, 0.0, 1.0])
    assert 1.5 < after[3] <= 5.0 and np.isnan(after[4])
    rng = np.random.default_rng(0)
    for number in (1, 5, 50, 399, 400):
        z = rng.standard_normal(number)
        z[number // 2] = np.nan if number > 1 else z[0]
        tail = Tail.of(z)
        assert len(tail.z) == len(tail.normal) <= 2
        after = tail.deviates(z)
        assert np.array_equal(np.isnan(after), np.isnan(z))
        assert (np.abs(after) <= np.abs(z) + 1e-12)[~np.isnan(z)].all()
    assert len(Tail.of(rng.standard_normal(1600)).z) == 4  # 0, and 20 of 1600 are the last that are trusted
    all_types = [type(x) for x in (*ties.z, *ties.normal, ties.decay)]
    assert set(all_types) == {float}


def test_a_null_of_other_objects_must_have_a_width(varied):
    _, data, fit, _, by = varied
    for change in ({"width": 0.0}, {"centre": np.nan}):
        with pytest.raises(ValueError, match="must have a centre and a width"):
            rp.surprise(fit, data, empirical_null=by.empirical._replace(**change))
    assert dataclasses.is_dataclass(by) and by.empirical.applied
