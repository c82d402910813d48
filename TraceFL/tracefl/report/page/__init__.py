"""``report.html`` of a run's folder: one page that needs nothing else, no network either."""

from tracefl.report.page.write import REPORT, write_at_end, write_page

__all__ = ["REPORT", "write_at_end", "write_page"]
