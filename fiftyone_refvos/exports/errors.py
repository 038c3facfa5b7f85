"""What goes wrong while masklets are exported."""

from __future__ import annotations


class ExportError(ValueError):
    """Masklets cannot be exported; the message names the sample, field or file, and how to mend it."""
