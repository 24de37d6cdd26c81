"""Results in notebooks: HTML that a parser, a screen reader and a phone can use, with the numbers of the text."""

import re

import pytest
import torch
from bs4 import BeautifulSoup

import sobolev_lib as sl
from sobolev_lib import _show

ERRORS = sl.Errors((7, 3, 1), 28, {"price": 1e-3, "delta": 2e-3, "gamma": 0.03}, {})
X = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)


def results():
    net = sl.Surrogate([2, 4, 1])
    samples = sl.Samples(x=torch.rand(40, 2), value=torch.rand(40), gradient=torch.rand(40, 2))
    return {
        "Errors": ERRORS,
        "table": sl.table({"a < b": ERRORS}),
        "Scores": sl.significance(net, sl.balls(samples.x[:3].double(), 0.1)),
        "Greeks": sl.bachelier(X, strike=1.0, volatility=0.2, maturity=1.0),
        "one Greek": sl.bachelier(1.0, strike=1.0, volatility=0.2, maturity=1.0),
        "basket": sl.basket_case().reference(torch.ones(3, 7)),
        "Verdict": sl.is_non_negative(net, sl.Interval([0.0, 0.0], [1.0, 1.0])),
        "Samples": samples,
        "Interval": sl.Interval([0.0, 1.0], [2.0, 3.0]),
        "boxes": sl.balls(samples.x, 0.1),
        "number": sl.Interval(0.0, 1.0),
    }


@pytest.mark.parametrize(("name", "result"), results().items())
def test_a_result_is_an_accessible_table_that_scrolls_by_itself_and_sets_no_colour(name, result):
    soup = BeautifulSoup(result._repr_html_(), "html.parser")
    (frame,), (table,) = soup.select("div.result"), soup.select("table")
    assert frame["tabindex"] == "0" and "overflow-x: auto" in frame["style"]
    assert frame["aria-label"] == table.caption.text != ""
    headings = [cell.text for cell in table.select("thead th[scope=col]")]
    assert all(headings)
    for row in table.select("tbody tr"):
        assert len(row.select("th[scope=row]")) == 1 and len(row.find_all(["th", "td"])) == len(headings)
    assert "color" not in str(soup) and "nan" not in soup.text
    assert len(table.select("tbody tr")) <= _show.ROWS and len(repr(result)) < 2000
    assert all("tabular-nums" in cell["style"] for cell in table.select("td") if re.match(r"-?\d", cell.text))


def test_the_table_shows_the_digits_of_the_text_and_escapes_names():
    table = sl.table({"a < b": ERRORS})
    assert str(table).splitlines()[1].split() == ["a", "<", "b", "28", "1.0e-03", "2.0e-03", "3.0e-02"]
    cells = [cell.text for cell in BeautifulSoup(table._repr_html_(), "html.parser").select("tbody tr > *")]
    assert cells == ["a < b", "28", "1.0e-03", "2.0e-03", "3.0e-02"] and repr(table) == str(table)


def test_of_many_points_the_first_are_shown_and_the_rest_counted():
    soup = BeautifulSoup(sl.bachelier(X, strike=1.0, volatility=0.2, maturity=1.0)._repr_html_(), "html.parser")
    assert len(soup.select("tbody tr")) == 12 and soup.p.text == "The first 12 of 40."
    columns = BeautifulSoup(sl.balls(torch.zeros(3, 2), 1.0)._repr_html_(), "html.parser").select("thead th")
    assert [cell.text for cell in columns] == ["point", "lower end 1", "lower end 2", "upper end 1", "upper end 2"]
