"""Weights that visit the card while it draws: what rests there, what passes through, and how."""
