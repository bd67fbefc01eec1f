"""Hooks into a running fit."""
