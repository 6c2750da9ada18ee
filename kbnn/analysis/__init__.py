"""Diagnostics of binary networks, and pictures of them."""
