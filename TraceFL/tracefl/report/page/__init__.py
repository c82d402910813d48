"""``report.html`` of a run's folder: one page that needs nothing else, no network either."""

from tracefl.report.page.record import read_record
from tracefl.report.page.write import write_at_end, write_page

__all__ = ["read_record", "write_at_end", "write_page"]
