"""What pydicom and highdicom say of the values in a file: nothing for a terminal, where it would show patients' names.

One policy for the whole process, since Python keeps its warning filters for all threads: `warnings.catch_warnings` in
two threads at once puts the filters of one back under the other, and drops what a server set up in between.
"""

from __future__ import annotations

import logging
import re
import warnings

#: As `warnings.filterwarnings` keeps it.
_FILTER = ("ignore", None, Warning, re.compile(r"(pydicom|highdicom)\b"), 0)


def quiet() -> None:
    """Drop the warnings of the libraries that read and write DICOM, from now on and in every thread.

    They are of values that break a rule, most of them names; what volseg needs it checks itself. Called before each
    reading and writing, because a program's `warnings.catch_warnings` may have put the filters back.
    """
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=_FILTER[3].pattern)
    logging.getLogger("pydicom").addFilter(_no_warning)
    logging.getLogger("highdicom").addFilter(_no_warning)


def _no_warning(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING
