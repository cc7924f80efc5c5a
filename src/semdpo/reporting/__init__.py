"""How a report is made: its data and tables, its plots, its page. Only ``stages/report.py`` calls this."""

import logging

# Building matplotlib's font cache on a fresh machine is not the user's business.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
