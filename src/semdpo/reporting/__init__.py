"""A report: collect its data, compute its numbers, prepare what is shown, write the page.

``collect`` and ``evaluated`` read the run, ``compute`` and ``propositions`` compute; ``labels``, ``formats``,
``words``, ``rows``, ``tables`` and ``plots`` prepare the view, and ``page`` and ``report`` write it.
"""

import logging

# On a fresh machine matplotlib reports that it builds its font cache; users need not read that.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
