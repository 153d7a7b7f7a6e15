"""Pluri's models in other programs."""
