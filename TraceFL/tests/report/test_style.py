"""Figures as files: nothing is written through a link that stands in their place."""

import pytest
from matplotlib import pyplot as plt

from tracefl.report.style import save_figure, write_figure


@pytest.mark.parametrize("name", [".chart.png.partial", "chart.png"])
@pytest.mark.parametrize("write", [lambda f, p: write_figure(f, p.with_suffix(".png")), save_figure])
def test_a_link_in_a_figure_s_place_leads_nowhere(tmp_path, name, write):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / name).symlink_to(precious)
    write(plt.figure(), tmp_path / "chart")
    assert precious.read_text() == "mine"
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "chart.png").is_symlink()
    assert not list(tmp_path.glob(".*.partial"))
