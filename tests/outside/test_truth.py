"""The yardstick itself: the real data is what README says, and two engines agree on what must come out of it."""

import truth
from world import POINTS, SAMPLE, TURBINES


def test_the_history_has_the_rows_and_values_that_are_known_of_it(history):
    assert len(history.rows) == 420_480
    assert history.rows.groupby("deviceKey").size().to_dict() == dict.fromkeys(TURBINES, 105_120)
    assert len(history.rows.dropna(how="all", subset=POINTS)) == 417_911
    assert history.rows[POINTS].notna().sum().sum() == 2_925_377


def test_every_double_is_read_exactly(history):
    lines = history.text.splitlines()[1:]
    for place, point in enumerate(POINTS, start=2):
        exact = [float(cell) if (cell := line.split(",")[place]) else float("nan") for line in lines]
        assert history.rows[point].equals(truth.pandas.Series(exact)), point


def test_forty_eight_moments_stand_twice_with_307_different_and_29_equal_values(history):
    doubled = truth.doubled(history.rows)
    moments = doubled.groupby(truth.KEY)
    assert moments.size().eq(2).all() and len(moments) == 48
    distinct = moments[POINTS].nunique()
    assert (distinct == 2).sum().sum() == 307
    assert (distinct == 1).sum().sum() == 29
    assert len(truth.changes(doubled)) == 307


def test_pandas_and_duckdb_agree_on_every_value_that_must_come_out(history):
    expected = truth.winners(history.rows)
    assert expected[POINTS].notna().sum().sum() == 2_925_377 - 336
    assert truth.difference(expected, truth.winners_by_sql(history.rows)) == ""


def test_the_comparison_notices_a_last_bit_a_missing_row_and_a_row_too_many(history):
    expected = truth.winners(history.rows.head(1000))
    other = expected.copy()
    other.loc[7, "P_avg"] = float.fromhex("0x1.0000000000001p+0") * other.loc[7, "P_avg"]
    assert "1 values differ, such as P_avg" in truth.difference(expected, other)
    assert "1 rows missing" in truth.difference(expected, expected.drop(index=3))
    assert "1 rows too many" in truth.difference(expected.drop(index=3), expected)


def test_a_sequential_model_predicts_conflicts_of_a_second_pass_in_another_order(history):
    doubled = truth.doubled(history.rows)
    reversed_twice = truth.changes(truth.pandas.concat([doubled, doubled.iloc[::-1]]))
    assert len(reversed_twice) == 2 * 307, "a, b, b, a is a→b and b→a"
    same_twice = truth.changes(truth.pandas.concat([doubled, doubled]))
    assert len(same_twice) == 3 * 307, "a, b, a, b is a→b, b→a and a→b"


def test_the_bundled_sample_is_a_part_of_the_history_and_small(history):
    sample = truth.read_history(SAMPLE.read_text())
    assert SAMPLE.stat().st_size <= 1_000_000
    assert set(SAMPLE.read_text().splitlines()) <= set(history.text.splitlines())
    assert sample[POINTS].notna().sum().sum() == 68_537
    assert len(truth.changes(truth.doubled(sample))) == 153
