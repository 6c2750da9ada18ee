"""What the converter refuses."""

from kbnn.errors import KbnnError


class ConversionError(KbnnError):
    """A model that cannot become a file that computes the same; the message names each layer, why, and what to do."""
