"""Data sets with labels, as the field lays them out in folders."""
