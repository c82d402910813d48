"""``report.html`` of a run's folder: one page that needs nothing else, no network either."""

from tracefl.report.page.write import write_at_end, write_page

__all__ = ["write_at_end", "write_page"]
