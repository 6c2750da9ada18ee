"""The error of the converter."""

from kbnn.errors import KbnnError


class ConversionError(KbnnError):
    """A model cannot be converted to a file that computes the same; the message names the layers, reasons and fixes."""
