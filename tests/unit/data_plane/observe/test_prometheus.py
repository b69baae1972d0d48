"""The text format, read back with the Prometheus client's own parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from data_plane.observe.prometheus import Exposition, Kind, Metric

GAUGE = Metric("a_gauge", Kind.GAUGE, 'A "gauge"\nwith a \\', ("one", "two"))
HISTOGRAM = Metric("a_ms", Kind.HISTOGRAM, "Times", ("route",), (1, 5))
BARE = Metric("b_ms", Kind.HISTOGRAM, "Times", (), (1,))


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.floats(allow_nan=False, allow_infinity=False))
def test_any_label_and_number_comes_back(label: str, number: float) -> None:
    page = Exposition()
    page.family(GAUGE, [((label, "x"), number)])
    (family,) = text_string_to_metric_families(page.page().decode())
    (sample,) = family.samples
    assert sample.labels == {"one": label, "two": "x"}
    assert sample.value == number
    assert (family.type, family.documentation) == ("gauge", GAUGE.help)


def test_a_histogram_is_cumulated_and_ends_with_inf() -> None:
    page = Exposition()
    page.begin(HISTOGRAM)
    page.histogram(HISTOGRAM, ("r",), [1, 2, 3], 40.5)
    page.begin(BARE)
    page.histogram(BARE, (), [0, 1], 2)
    assert page.page().decode() == (
        "# HELP a_ms Times\n# TYPE a_ms histogram\n"
        'a_ms_bucket{route="r",le="1"} 1\na_ms_bucket{route="r",le="5"} 3\na_ms_bucket{route="r",le="+Inf"} 6\n'
        'a_ms_sum{route="r"} 40.5\na_ms_count{route="r"} 6\n'
        "# HELP b_ms Times\n# TYPE b_ms histogram\n"
        'b_ms_bucket{le="1"} 0\nb_ms_bucket{le="+Inf"} 1\nb_ms_sum 2\nb_ms_count 1\n'
    )
