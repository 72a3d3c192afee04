"""Sluice's contexts and interfaces; imports between them go down only."""
