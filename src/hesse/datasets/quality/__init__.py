"""Checks of labels: sum rules, consistency of curvature with forces, flags of single structures."""
