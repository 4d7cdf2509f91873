"""Geospot, the reference application: ten places retrieved for a photo, re-ranked by what people click."""
