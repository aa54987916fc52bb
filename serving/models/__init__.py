"""Where models come from: found on disk, loaded, proved, warmed up, swapped, put away; or known by name only."""
