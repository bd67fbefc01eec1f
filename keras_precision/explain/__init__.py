"""Whom a lower precision hurts, which layers are to blame, and what it takes to win the answers back."""
