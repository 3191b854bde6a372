"""Adapters against recorded traffic."""
